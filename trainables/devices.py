"""The device of a trial and its name."""

import resource
import sys

import torch

from search_spaces.errors import UserInputError


def choose_device(device: str, num_gpus: float) -> torch.device:
    """Return the device that a trial computes on.

    Args:
        device: "auto" (CUDA if the trial holds a GPU, else CPU), "cpu" or "cuda".
        num_gpus: GPUs that the trial holds.

    Raises:
        UserInputError: If the trial holds a GPU but torch finds no CUDA device. There is no silent fallback to the CPU.
    """
    if device == "cpu" or (device == "auto" and num_gpus == 0):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserInputError(
            "the trial holds a GPU but torch finds no CUDA device on this node; install a CUDA build of torch, "
            'or set resources.device = "cpu"'
        )
    return torch.device("cuda")


def device_name(device: torch.device) -> str:
    """Return the device's name in records: the GPU's model, or "cpu"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "cpu"


def peak_memory_bytes(device: torch.device) -> int:
    """Return the highest allocation on a CUDA device since its statistics were reset, or this process's highest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

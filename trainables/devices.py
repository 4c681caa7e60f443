"""The device of a trial and its name."""

import os
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
    # cuBLAS reads it when it is first used; without it, products may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda")


def count_cuda_devices() -> int:
    """Return the number of CUDA devices that torch can use, none where its driver is too old for torch."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_name(device: torch.device) -> str:
    """Return the device's name in records: the GPU's model, or "cpu"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "cpu"


def describe_libraries(device: torch.device) -> str:
    """Return the versions that a trial's results depend on, such as "torch 2.11.0+cu128, CUDA 12.8, cuDNN 91002"."""
    versions = [f"torch {torch.__version__}"]
    if device.type == "cuda":
        versions += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]  # type: ignore[no-untyped-call]
    return ", ".join(versions)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the highest allocation on a CUDA device since its statistics were reset, or this process's highest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

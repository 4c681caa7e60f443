"""Which device a trial computes on, and what it is called."""

import torch

from search_spaces.errors import UserInputError


def choose_device(device: str, num_gpus: float) -> torch.device:
    """Return the device a trial computes on.

    Raises UserInputError where the trial holds a GPU that torch cannot use: computing on the CPU instead would be slow
    and silent. `resources.device = "cpu"` says that it is meant.
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
    """Return the device's name for records: the GPU's model, or "cpu"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "cpu"

"""The device of a trial and its name, and what a trial says that did not fit into its memory."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, first_line


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


class DeviceMemoryError(RuntimeError):
    """A trial did not fit into the memory of its GPU. The message says what would fit."""


@contextmanager
def explaining_device_memory(config: TrialConfig, device: torch.device, num_gpus: float) -> Iterator[None]:
    """Raise DeviceMemoryError where the context runs out of a GPU's memory.

    Args:
        config: of the trial.
        device: of the trial.
        num_gpus: share of the GPU that the trial holds.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 0
        raise DeviceMemoryError(f"{describe_shortage(config, num_gpus, total)} ({first_line(error)})") from None


def describe_shortage(config: TrialConfig, num_gpus: float, total_bytes: int) -> str:
    """Return what did not fit, and what would."""
    batch_size, accumulate = config.whole("batch_size"), config.whole("accumulate")
    what = f"batches of {batch_size} at {config.whole('image_size')} px do not fit into"
    size = f"a GPU of {total_bytes / 1e9:.1f} GB"
    if 0 < num_gpus < 1:
        return f"{what} {num_gpus:g} of {size}; alone on a GPU they may: raise resources.gpu"
    if batch_size // 2 < 2 * config.whole("processes"):
        return f"{what} {size}; lower train.image_size, or use GPUs with more memory"
    # Graphs of CUDA hold one batch per step.
    eager = ' and train.compile = "none"' if config["compile"] == "cuda_graphs" else ""
    return (
        f"{what} {size}; batches of half the size take about half of the memory: train.batch_size = {batch_size // 2} with "
        f"train.accumulate = {2 * accumulate}{eager} has the same steps, but for the statistics of batch normalization"
    )

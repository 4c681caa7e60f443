"""The device of a trial, its name and a trial's share of its memory, and what a trial says that did not fit into it."""

import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

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
    """Return the versions that a trial's results depend on.

    Such as "torch 2.11.0+cu128, CUDA 12.8, cuDNN 91002, driver 570.86.15, compute capability 9.0".
    """
    versions = [f"torch {torch.__version__}"]
    if device.type == "cuda":
        versions += [f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]  # type: ignore[no-untyped-call]
        versions.append(f"driver {read_driver_version()}")
        versions.append("compute capability {}.{}".format(*torch.cuda.get_device_capability(device)))
    return ", ".join(versions)


def read_driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Return the version of NVIDIA's kernel module, such as "570.86.15"; "unknown" where Linux does not tell it."""
    with suppress(OSError):
        if found := re.search(r"Kernel Module.*? (\d+(?:\.\d+)+)\s", file.read_text()):
            return found[1]
    return "unknown"


@lru_cache(maxsize=256)
def hold_constant(values: tuple[object, ...], device: torch.device) -> Tensor:
    """Return a tensor of numbers, copied to the device once: each copy would wait until the device has caught up."""
    return torch.tensor(values, device=device)


# Of a process's CUDA context with the kernels of cuDNN and cuBLAS, which torch's limit does not count; an estimate for GPUs of
# data centers, not measured by this project.
CONTEXT_BYTES = 600_000_000


def compute_memory_fraction(num_gpus: float, total_bytes: int) -> float:
    """Return the fraction of a GPU's memory that the tensors of one process may take, so that those that share it fit.

    Beside its tensors, each process holds a context (`CONTEXT_BYTES`), which is taken from its share.

    Args:
        num_gpus: Share of the GPU that the process holds; 1 and more is all of it.
        total_bytes: Memory of the GPU.

    Raises:
        UserInputError: If the share has room for the context alone.
    """
    if not 0 < num_gpus < 1:
        return 1.0
    left = num_gpus - CONTEXT_BYTES / total_bytes
    if left <= 0:
        raise UserInputError(
            f"resources.gpu = {num_gpus:g} of a GPU of {total_bytes / 1e9:.1f} GB is less than the {CONTEXT_BYTES / 1e9:.1f} GB "
            "that each process takes before it trains; raise resources.gpu"
        )
    return left


def peak_memory_bytes(device: torch.device) -> int:
    """Return the highest allocation on a CUDA device since its statistics were reset, or this process's highest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# What CUDA, cuBLAS, cuDNN, cuSOLVER, cuFFT and NCCL say where memory is missing, in errors that torch.OutOfMemoryError is no base
# of. "unable to find an engine" is cuDNN's, which found no algorithm whose workspace fits.
_OUT_OF_MEMORY = re.compile(
    r"CUDA[^\n]{0,20}out of memory|Cuda failure[^\n]*out of memory|unable to find an engine|CUDA_ERROR_OUT_OF_MEMORY"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED|CUFFT_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_\w+_ALLOCATION_FAILED"
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error of torch says that the memory of a GPU was too small, by its class or its words."""
    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


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
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        total = 0
        # A full GPU may refuse this, too.
        with suppress(RuntimeError):
            total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 0
        raise DeviceMemoryError(f"{describe_shortage(config, num_gpus, total)} ({first_line(error)})") from None


def describe_shortage(config: TrialConfig, num_gpus: float, total_bytes: int) -> str:
    """Return what did not fit, and what would."""
    batch_size, accumulate = config.whole("batch_size"), config.whole("accumulate")
    what = f"batches of {batch_size} at {config.whole('image_size')} px do not fit into"
    size = f"a GPU of {total_bytes / 1e9:.1f} GB" if total_bytes else "the GPU"
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

"""What a trial says that did not fit into the memory of its GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import first_line


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

"""Rules of the recipe: what excludes what, and when the learning rate peaks. Without torch, as a spec is checked with it."""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

# Settings that have an effect on GPUs alone, each with the value that a CPU cannot follow.
FOR_GPUS: Mapping[str, bool] = MappingProxyType({"tf32": True, "deterministic": False})
# Batch normalization needs two images of each process.
FEWEST_IMAGES_OF_PROCESS = 2

# The gradients of a CUDA graph are overwritten by its next replay, before they are added up (torch 2.13).
ACCUMULATION_IN_GRAPHS = (
    'train.accumulate > 1 cannot be combined with train.compile = "cuda_graphs"; use "inductor" or "none", '
    "or a larger batch_size"
)


def list_process_problems(processes: int, batch_size: int, compiled: str) -> list[str]:
    """Return a message for each setting that training by several processes excludes.

    Args:
        processes: Of a trial.
        batch_size: Images of a batch, of all processes together.
        compiled: `train.compile`.
    """
    if processes == 1:
        return []
    problems = []
    if batch_size < FEWEST_IMAGES_OF_PROCESS * processes:
        problems.append(
            f"train.processes = {processes} needs batches of {FEWEST_IMAGES_OF_PROCESS * processes} images or more, "
            f"{FEWEST_IMAGES_OF_PROCESS} for each process, but a batch has {batch_size}; lower it, or raise train.batch_size"
        )
    if compiled != "none":
        problems.append(
            f'train.processes = {processes} cannot be combined with train.compile = "{compiled}"; set compile to "none"'
        )
    return problems


def find_latest_peak(
    schedules: Iterable[str], lr_peak_fractions: Iterable[float], warmup_fractions: Iterable[float]
) -> float:
    """Return the share of a trial's steps after which the learning rate of `build_schedule` has reached its peak.

    Args:
        schedules: `schedule` of the trials; where they differ, the latest peak counts.
        lr_peak_fractions: their `lr_peak_fraction`, which determines the peak of "onecycle".
        warmup_fractions: their `warmup_fraction`, which determines the peak of "cosine".
    """
    latest = {"onecycle": max(lr_peak_fractions), "cosine": max(warmup_fractions)}
    return max(latest[schedule] for schedule in schedules)


def compute_lr_peak_epoch(peak_fraction: float, max_epochs: int) -> int:
    """Return the 1-based epoch in which the learning rate of `build_schedule` reaches its peak.

    Args:
        peak_fraction: Of `find_latest_peak`.
        max_epochs: Epochs of a full trial.
    """
    # Rounded first, since 0.3 * 10 must not end in epoch 4.
    return max(1, math.ceil(round(peak_fraction * max_epochs, 9)))

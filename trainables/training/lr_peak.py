"""The epoch in which the learning rate peaks; without torch, because a spec is checked with it."""

import math
from collections.abc import Iterable


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

"""The epoch in which the learning rate peaks; without torch, because a spec is checked with it."""

import math


def find_peak_fraction(schedule: str, lr_peak_fraction: float, warmup_fraction: float) -> float:
    """Return the share of a trial's steps after which the learning rate of `build_schedule` is at its peak."""
    return warmup_fraction if schedule == "cosine" else lr_peak_fraction


def compute_lr_peak_epoch(peak_fraction: float, max_epochs: int) -> int:
    """Return the 1-based epoch in which the learning rate of `build_schedule` reaches its peak.

    Args:
        peak_fraction: Of `find_peak_fraction`.
        max_epochs: Epochs of a full trial.
    """
    # Rounded first, since 0.3 * 10 must not end in epoch 4.
    return max(1, math.ceil(round(peak_fraction * max_epochs, 9)))

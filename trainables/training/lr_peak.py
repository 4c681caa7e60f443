"""The epoch in which the learning rate peaks; without torch, because a spec is checked with it."""

import math


def compute_lr_peak_epoch(lr_peak_fraction: float, max_epochs: int) -> int:
    """Return the 1-based epoch in which the learning rate of `build_schedule` reaches its peak."""
    # Rounded first, since 0.3 * 10 must not end in epoch 4.
    return max(1, math.ceil(round(lr_peak_fraction * max_epochs, 9)))

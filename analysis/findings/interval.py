"""`Interval`: a point estimate with its confidence interval."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A point estimate with a two-sided confidence interval; low <= estimate <= high."""

    estimate: float
    low: float
    high: float

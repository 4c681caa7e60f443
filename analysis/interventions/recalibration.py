"""How measured changes followed predicted ones on planted scenes, by which new predictions are recalibrated.

The constants are those of recalibration.json, which the benchmark that measures them writes beside benchmarks/INTERVENTIONS.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import special

from analysis.statistics.interval import Interval

CONSTANTS = Path(__file__).with_name("recalibration.json")
CONFIDENCE = 0.95
MIN_PREDICTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """The line through the origin of measured on predicted changes: the part of a predicted change that comes about.

    Attributes:
        slope: measured over predicted change.
        slope_error: its standard error.
        spread: standard deviation of the measured changes around the line, beyond what the errors of the predictions explain; a
            fraction of images.
        number: predictions behind it.
        source: where it was measured, and when.
    """

    slope: float
    slope_error: float
    spread: float
    number: int
    source: str

    def apply(self, predicted: Interval) -> Interval:
        """Return what will be measured, with its interval at 95 %, from the predicted change with its interval at 95 %."""
        own_error = _find_error(predicted)
        center = self.slope * predicted.estimate
        variance = self.spread**2 + (self.slope_error * predicted.estimate) ** 2 + (self.slope * own_error) ** 2
        half_width = float(special.stdtrit(self.number - 1, 0.5 + CONFIDENCE / 2) * np.sqrt(variance))
        return Interval(estimate=center, low=center - half_width, high=center + half_width)

    def describe(self) -> str:
        """Return the line in words, with the interval of its slope at 95 %."""
        reach = float(special.stdtrit(self.number - 1, 0.5 + CONFIDENCE / 2)) * self.slope_error
        return (
            f"{self.slope:.2f} [{self.slope - reach:.2f}, {self.slope + reach:.2f}] came about on planted scenes (ratio through "
            f"the origin of {self.number} predictions, spread {100 * self.spread:.1f} pp; {self.source})"
        )


def fit_recalibration(predicted: Sequence[Interval], measured: Sequence[float], source: str) -> Recalibration | None:
    """Return the line by least squares; None for fewer than `MIN_PREDICTIONS` predictions, and if all of them are zero.

    Args:
        predicted: changes with their intervals at 95 %.
        measured: the changes that followed.
        source: of the constants.
    """
    x, y = np.array([one.estimate for one in predicted]), np.asarray(measured, dtype=np.float64)
    if len(x) < MIN_PREDICTIONS or not x.any():
        return None
    slope = float(x @ y / (x @ x))
    variance = float(np.sum((y - slope * x) ** 2) / (len(x) - 1))
    explained = slope**2 * float(np.mean([_find_error(one) ** 2 for one in predicted]))
    return Recalibration(
        slope=slope,
        slope_error=float(np.sqrt(variance / (x @ x))),
        spread=float(np.sqrt(max(variance - explained, 0.0))),
        number=len(x),
        source=source,
    )


@cache
def load_recalibrations() -> Mapping[str, Recalibration]:
    """Return the measured lines by the name of the intervention."""
    return {name: Recalibration(**values) for name, values in json.loads(CONSTANTS.read_text()).items()}


def _find_error(interval: Interval) -> float:
    return (interval.high - interval.low) / 2 / float(special.ndtri(0.5 + CONFIDENCE / 2))

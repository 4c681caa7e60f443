"""The variance between seeds of rows that are compared with one control, of which each row alone says little with few seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.metrics import FloatArray
from analysis.statistics.moderated_variances import moderate_variances

# With fewer rows, the spread of their variances says too little about what they have in common.
MIN_ROWS = 4
# r^2 of two differences from one control. It is 1/4 where all runs are equally noisy, and 0.4 with a control that is 1.3 times as
# noisy as the others. With 0.4, rounds whose control has three times the noise, or one arm seven times, claim an effect about 1.5
# times as often as their level allows (benchmarks/INTERVENTIONS.md); with 1/4 it was about twice as often.
SQUARED_CORRELATION = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedVariance:
    """The variance between seeds of one row, with what the other rows say about it.

    Attributes:
        seed_variance: V_S, variance of the seeds' mean.
        degrees_of_freedom: of V_S, at least those of the row alone.
    """

    seed_variance: float
    degrees_of_freedom: float


def share_variances(differences: Sequence[FloatArray]) -> list[SharedVariance] | None:
    """Return the variance of each row, moderated by those of the others, and never below the row's own.

    Args:
        differences: (S,) per row, treatment minus the control that all rows have, of the same S >= 2 seeds.

    Returns:
        None for fewer than `MIN_ROWS` rows, or where no row varies.
    """
    if len(differences) < MIN_ROWS:
        return None
    own = np.array([np.var(values, ddof=1) for values in differences])
    if not own.any():
        return None
    num_seeds = len(differences[0])
    found = moderate_variances(own, num_seeds - 1, squared_correlation=SQUARED_CORRELATION)
    return [
        SharedVariance(seed_variance=float(variance) / num_seeds, degrees_of_freedom=found.degrees_of_freedom)
        for variance in np.maximum(found.variances, own)
    ]

"""The variance between seeds of rows that are compared with one control, of which each row alone says little with few seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.statistics.metrics import FloatArray
from analysis.statistics.moderated_variances import moderate_variances

# With fewer rows, the spread of their variances says too little about what they have in common.
MIN_ROWS = 4
# r^2 of two differences from one control. It is 1/4 where all runs are equally noisy, and 0.4 with a control that is 1.3 times as
# noisy as the others.
SQUARED_CORRELATION = 0.4
# Share of the degrees of freedom that the other rows lend, and the quantile of F above which the noisiest row stands alone. Where
# one arm has seven times the noise of the others, rows at a level of .025 are wrong in .0225 of rounds with 4 arms and 3 seeds,
# and in .0175 with 5 seeds (8,000 rounds); with all of the lent degrees and no row alone it was .0337 and .0360. At equal noise,
# the half-width with 3 seeds is 7.9 standard deviations of a run; with all of the degrees it was 5.8, and alone it is 12.0.
LENT_SHARE = 0.5
STANDS_OUT = 0.9


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

    The row with the largest variance stands alone where the others do not explain it.

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
    noisiest = int(np.argmax(own))
    together = [row for row in range(len(own)) if row != noisiest or not _stands_out(own, num_seeds)]
    found = moderate_variances(own[together], num_seeds - 1, squared_correlation=SQUARED_CORRELATION)
    lent = max(found.degrees_of_freedom - (num_seeds - 1), 0.0)
    shared = [SharedVariance(seed_variance=float(v) / num_seeds, degrees_of_freedom=num_seeds - 1.0) for v in own]
    for row, variance in zip(together, np.maximum(found.variances, own[together]), strict=True):
        shared[row] = SharedVariance(
            seed_variance=float(variance) / num_seeds, degrees_of_freedom=num_seeds - 1 + LENT_SHARE * lent
        )
    return shared


def _stands_out(own: FloatArray, num_seeds: int) -> bool:
    """Return whether the largest of the rows' variances is larger than the others explain."""
    rest = np.delete(own, np.argmax(own))
    # The variances of the others are correlated: as many independent ones as `moderate_variances` counts.
    number = len(rest) / (1 + (len(rest) - 1) * SQUARED_CORRELATION)
    bound = special.fdtri(num_seeds - 1, (num_seeds - 1) * number, STANDS_OUT)
    return bool(own.max() > bound * rest.mean())

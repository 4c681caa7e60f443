"""Moderated variances: those of a family of cells, shrunk towards a common prior, and those of rows with one control."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.statistics.metrics import BoolArray, FloatArray

# A trend of the variance in the mean is fitted to at least so many cells.
MIN_CELLS_OF_TREND = 10
# Variances below this fraction of the largest are rounding errors of a variance of zero.
NEGLIGIBLE = 1e-15


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeratedVariances:
    """Variances between seeds after moderation.

    Attributes:
        variances: (C,) one per cell.
        degrees_of_freedom: of their t distribution, the same for all cells.
    """

    variances: FloatArray
    degrees_of_freedom: float


def moderate_variances(
    variances: FloatArray,
    degrees_of_freedom: int,
    *,
    means: FloatArray | None = None,
    is_informative: BoolArray | None = None,
    squared_correlation: float = 0.0,
) -> ModeratedVariances:
    """Return variances shrunk towards a prior (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3; limma's squeezeVar).

    The prior's degrees of freedom d0 and location s0^2 are the moment estimates from the log variances of the informative cells;
    with means, log s0^2 is linear in them. The posterior variance is (d0 s0^2 + d s^2) / (d0 + d), with d0 + d degrees of
    freedom, at most those of the mean variance: d times the informative cells where these are independent. With fewer than two of
    them, variances are returned as they are.

    Cells that share a part of their noise, such as differences from one control, have variances that differ less from each other
    than independent ones, and say less together. For normal values with the correlation r, the correlation of two variances is
    r^2; it enters both moments.

    Args:
        variances: (C,) of C cells over S seeds.
        degrees_of_freedom: d = S - 1.
        means: (C,) of the cells, on the scale of the variances; None for a prior without a trend.
        is_informative: (C,) whether a cell counts for the prior; None for all. A variance of zero never does.
        squared_correlation: r^2 of the values of any two cells.
    """
    d = degrees_of_freedom
    used = variances > NEGLIGIBLE * variances.max()
    if is_informative is not None:
        used &= is_informative
    if used.sum() < 2:
        return ModeratedVariances(variances=variances, degrees_of_freedom=float(d))
    means = np.zeros(len(variances)) if means is None else np.clip(means, means[used].min(), means[used].max())
    logs = np.log(variances[used]) - special.digamma(d / 2) + math.log(d / 2)
    order = 1 if used.sum() >= MIN_CELLS_OF_TREND and np.ptp(means) > 0 else 0
    # NumPy 2.0 divides by the width of the domain, which is 0 where all means are equal; a constant does not depend on it.
    fit = np.polynomial.Polynomial.fit(means[used], logs, order, domain=None if order else (-1, 1))
    squared_residuals = (logs - fit(means[used])) ** 2
    spread = (1 - squared_correlation) * special.polygamma(1, d / 2)
    excess = float(squared_residuals.sum() / (len(logs) - order - 1) - spread)
    most = float(used.sum() * d / (1 + (used.sum() - 1) * squared_correlation))
    if excess <= 0:
        return ModeratedVariances(variances=np.exp(fit(means)), degrees_of_freedom=most)
    d0 = 2 * _invert_trigamma(excess)
    prior = np.exp(fit(means) + special.digamma(d0 / 2) - math.log(d0 / 2))
    return ModeratedVariances(variances=(d0 * prior + d * variances) / (d0 + d), degrees_of_freedom=min(d0 + d, most))


def _invert_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value, by Newton's method on 1 / trigamma (limma's trigammaInverse)."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


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


def count_independent_rows(num_rows: float) -> float:
    """Return how many independent variances say as much as those of so many rows with a control in common."""
    return num_rows / (1 + (num_rows - 1) * SQUARED_CORRELATION)


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
    # As many independent ones as `moderate_variances` counts.
    number = count_independent_rows(len(rest))
    bound = special.fdtri(num_seeds - 1, (num_seeds - 1) * number, STANDS_OUT)
    return bool(own.max() > bound * rest.mean())

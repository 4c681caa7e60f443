"""Mid-P bounds of proportions, for any effective number of observations."""

import numpy as np
from scipy import special
from scipy.optimize import elementwise

from analysis.statistics.metrics import FloatArray


def compute_mid_p_bounds(shares: FloatArray, sizes: FloatArray, tails: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return lower and upper bounds of proportions (Lancaster 1961, JASA 56:223; Berry and Armitage 1995, Statistician 44:417).

    They are Clopper-Pearson bounds, but for that the observed count itself has half of its probability. Over proportions, each
    bound is wrong with a probability near `tails` on average, and with twice that at most, where Clopper-Pearson bounds are wrong
    less than half as often in small samples.

    Args:
        shares: (C,) observed, in [0, 1].
        sizes: (C,) observations, any positive numbers.
        tails: (C,) error rate of each bound, in (0, 1/2].
    """
    return _find_lower(shares, sizes, tails), 1 - _find_lower(1 - shares, sizes, tails)


def _find_lower(shares: FloatArray, sizes: FloatArray, tails: FloatArray) -> FloatArray:
    found = np.zeros(len(shares))
    some = shares > 0
    hits, tails = shares[some] * sizes[some], tails[some]
    misses = np.maximum(sizes[some] - hits, 0.0)
    low = np.asarray(special.betaincinv(hits, misses + 1, tails), dtype=np.float64)
    above = np.asarray(special.betaincinv(hits + 1, np.where(misses > 0, misses, 1.0), tails), dtype=np.float64)
    high = np.where(misses > 0, above, 1.0)
    arguments = hits, misses, tails
    roots = elementwise.find_root(_exceed, (low, high), args=arguments, tolerances={"xrtol": 1e-10}).x
    # With a fraction of an observation, a proportion of 0 is not excluded, and there is no root.
    found[some] = np.where(_exceed(low, *arguments) >= 0, low, np.where(_exceed(high, *arguments) <= 0, high, roots))
    return found


def compute_mid_p_tail(p: FloatArray, hits: FloatArray, misses: FloatArray) -> FloatArray:
    """Return P(more hits) + P(as many hits) / 2 where the proportion is p: below `tails` where the lower bound lies above p.

    Args:
        p: (C,) proportions, in (0, 1).
        hits: (C,) observed, any positive numbers.
        misses: (C,) the other observations, any numbers from 0.
    """
    more = np.where(misses > 0, special.betainc(hits + 1, np.where(misses > 0, misses, 1.0), p), 0.0)
    return np.asarray((special.betainc(hits, misses + 1, p) + more) / 2)


def _exceed(p: FloatArray, hits: FloatArray, misses: FloatArray, tails: FloatArray) -> FloatArray:
    return compute_mid_p_tail(p, hits, misses) - tails

"""Tuning curves: score of an arm's best configuration so far as a function of the search's device time.

The observed curve is that of the one search that was run. Where the trials are independent draws, which holds for random search
without early stopping alone, there is also the expected curve with a band, over searches resampled from the arm's own trials with
replacement (Dodge et al. 2019, arXiv:1909.03004, with device time instead of the number of trials). A sampler that learns draws
each trial from the results of the earlier ones, so that resampled trials are not a search that could have happened. Only trials
that ran every epoch have a score; others contribute their device time.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.search.values import TuningCurve, TuningPoint
from trainables.records.record import TrialRecord, ran_every_epoch
from trainables.seeds import numpy_generator

NUM_RESAMPLES = 2000
NUM_POINTS = 40
BAND = 0.8
# The expected curve starts where this share of the resampled searches has a completed trial.
FIRST_SHARE = 0.95
MIN_COMPLETE = 3


def compute_tuning_curves(records: Sequence[TrialRecord], *, is_independent: bool) -> tuple[TuningCurve, ...]:
    """Return the curve of each arm with at least `MIN_COMPLETE` trials that ran every epoch, in the order of names.

    Args:
        records: of the search.
        is_independent: whether no trial depends on the results of others; the curves have an expectation and a band only then.
    """
    curves = []
    for arm in sorted({r.config.arm for r in records}):
        own = [r for r in records if r.config.arm == arm and r.state.is_finished and r.device_seconds > 0]
        own.sort(key=lambda r: r.ended_order or 0)
        if sum(ran_every_epoch(r) for r in own) >= MIN_COMPLETE:
            curves.append(_compute_curve(arm, own, is_independent=is_independent))
    return tuple(curves)


def _compute_curve(arm: str, records: Sequence[TrialRecord], *, is_independent: bool) -> TuningCurve:
    seconds = np.array([r.device_seconds for r in records])
    scores = np.array([r.last_macro_f1 or 0.0 if ran_every_epoch(r) else -np.inf for r in records])
    steps = zip(np.cumsum(seconds).tolist(), np.maximum.accumulate(scores).tolist(), strict=True)
    observed = tuple((end, best) for end, best in steps if np.isfinite(best))
    points = _resample(arm, seconds, scores) if is_independent else ()
    return TuningCurve(arm=arm, points=points, observed=observed)


def _resample(arm: str, seconds: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[TuningPoint, ...]:
    generator = numpy_generator(0, "tuning-curve", arm)
    picks = generator.integers(len(seconds), size=(NUM_RESAMPLES, len(seconds)))
    ends = np.cumsum(seconds[picks], axis=1)
    best = np.maximum.accumulate(scores[picks], axis=1)
    points = []
    for budget in np.linspace(0, float(seconds.sum()), NUM_POINTS + 1)[1:]:
        done = (ends <= budget).sum(axis=1)
        reached = np.where(done > 0, best[np.arange(NUM_RESAMPLES), np.maximum(done - 1, 0)], -np.inf)
        found = reached[np.isfinite(reached)]
        if len(found) >= FIRST_SHARE * NUM_RESAMPLES:
            low, high = np.quantile(found, [(1 - BAND) / 2, (1 + BAND) / 2])
            points.append(
                TuningPoint(
                    device_seconds=float(budget), expected=float(found.mean()), low=float(low), high=float(high)
                )
            )
    return tuple(points)

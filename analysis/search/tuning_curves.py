"""Tuning curves: expected score of an arm's best configuration as a function of the search's device time.

The expectation is over searches resampled from the arm's own trials with replacement (Dodge et al. 2019, arXiv:1909.03004, with
device time instead of the number of trials). Only trials that ran every epoch have a score; stopped trials contribute their
device time.
"""

from collections.abc import Sequence

import numpy as np

from analysis.findings.search_findings import TuningCurve, TuningPoint
from trainables.records.ranking import ran_every_epoch
from trainables.records.record import TrialRecord
from trainables.seeds import numpy_generator

NUM_RESAMPLES = 2000
NUM_POINTS = 40
BAND = 0.8
# The curve starts where this share of the resampled searches has a completed trial.
FIRST_SHARE = 0.95
MIN_COMPLETE = 3


def compute_tuning_curves(records: Sequence[TrialRecord], max_epochs: int) -> tuple[TuningCurve, ...]:
    """Return the curve of each arm with at least `MIN_COMPLETE` trials that ran every epoch, in the order of names."""
    curves = []
    for arm in sorted({r.config.arm for r in records}):
        own = [r for r in records if r.config.arm == arm and r.state.is_finished and r.device_seconds > 0]
        own.sort(key=lambda r: r.ended_order or 0)
        if sum(ran_every_epoch(r, max_epochs) for r in own) >= MIN_COMPLETE:
            curves.append(_compute_curve(arm, own, max_epochs))
    return tuple(curves)


def _compute_curve(arm: str, records: Sequence[TrialRecord], max_epochs: int) -> TuningCurve:
    seconds = np.array([r.device_seconds for r in records])
    scores = np.array([r.last_macro_f1 or 0.0 if ran_every_epoch(r, max_epochs) else -np.inf for r in records])
    generator = numpy_generator(0, "tuning-curve", arm)
    picks = generator.integers(len(records), size=(NUM_RESAMPLES, len(records)))
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
    seen = np.maximum.accumulate(scores)
    steps = zip(np.cumsum(seconds).tolist(), seen.tolist(), strict=True)
    observed = tuple((end, score) for end, score in steps if np.isfinite(score))
    return TuningCurve(arm=arm, points=tuple(points), observed=observed)


def find_lead_changes(curves: Sequence[TuningCurve]) -> tuple[tuple[float, str], ...]:
    """Return (device-seconds, arm) for every change of the arm with the highest expected score, the first leader included.

    Only budgets that every arm's curve covers are compared.
    """
    covered = [c for c in curves if c.points]
    if len(covered) < 2:
        return ()
    start = max(c.points[0].device_seconds for c in covered)
    stop = min(c.points[-1].device_seconds for c in covered)
    leaders: list[tuple[float, str]] = []
    for budget in np.linspace(start, stop, NUM_POINTS) if start < stop else ():
        expected = {
            c.arm: float(np.interp(budget, [p.device_seconds for p in c.points], [p.expected for p in c.points]))
            for c in covered
        }
        leader = max(expected, key=lambda arm: expected[arm])
        if not leaders or leaders[-1][1] != leader:
            leaders.append((float(budget), leader))
    return tuple(leaders)

"""How each arm did in the search; rung scores against final scores, and the device time that early stopping saved."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import norm, spearmanr

from analysis.search.values import RungFinding, RungScores, SearchArm
from analysis.statistics.interval import Interval
from trainables.records.record import TrialRecord, TrialState, best_trials, ran_every_epoch

CONFIDENCE = 0.95
MIN_TRIALS_FOR_INTERVAL = 4


def compute_rung_scores(records: Sequence[TrialRecord], rungs: Mapping[str, Sequence[int]]) -> tuple[RungScores, ...]:
    """Return the scores at every rung, arm by arm in the order of the arms' names.

    Args:
        records: of the search.
        rungs: epochs at which ASHA decides, by arm.
    """
    found = []
    for arm in sorted({r.config.arm for r in records}):
        own = [r for r in records if r.config.arm == arm]
        for epoch in rungs.get(arm, ()):
            reached = [(r, score) for r in own if (score := _score_at(r, epoch)) is not None]
            completed = [
                (score, r.last_macro_f1) for r, score in reached if ran_every_epoch(r) and r.last_macro_f1 is not None
            ]
            found.append(
                RungScores(
                    arm=arm,
                    epoch=epoch,
                    completed=tuple(completed),
                    stopped=tuple(s for r, s in reached if _was_stopped_at(r, epoch)),
                    num_reached=len(reached),
                )
            )
    return tuple(found)


def compute_rung_finding(scores: RungScores) -> RungFinding:
    """Return the number of trials that reached a rung and were stopped there, and the rank correlation.

    The correlation is between macro-F1 at the rung and at the last epoch, over trials that ran every epoch. Trials that the
    rung stopped have no score at the last epoch. The range of scores is therefore truncated from below, and the correlation
    and its interval tend to be lower than they would be over all trials.
    """
    correlation = _rank_correlation(scores.completed)
    num_completed = len(scores.completed)
    return RungFinding(
        arm=scores.arm,
        epoch=scores.epoch,
        num_reached=scores.num_reached,
        num_stopped=len(scores.stopped),
        num_completed=num_completed,
        rank_correlation=correlation,
        interval=None if correlation is None else compute_rank_interval(correlation, num_completed),
    )


def compute_rank_interval(correlation: float, num_trials: int) -> Interval | None:
    """Return the interval of a Spearman correlation at 95 %.

    It uses Fisher's z with the standard error sqrt((1 + r^2 / 2) / (n - 3)): Bonett and Wright (2000), Psychometrika 65, 23-28.

    Args:
        correlation: r.
        num_trials: n.

    Returns:
        The interval; None for fewer than four trials, and for r = 1 or -1, where z is infinite.
    """
    if num_trials < MIN_TRIALS_FOR_INTERVAL or abs(correlation) >= 1:
        return None
    center = math.atanh(correlation)
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt((1 + correlation**2 / 2) / (num_trials - 3))
    return Interval(estimate=correlation, low=math.tanh(center - half), high=math.tanh(center + half))


def compute_saved_device_seconds(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Return per arm the device-seconds that the remaining epochs of its pruned trials would have used.

    The remaining epochs count at the trial's own device-seconds per epoch. The first epoch, which includes the set-up, is left
    out of that mean where there are others.

    Args:
        records: of the search.
    """
    saved = dict.fromkeys(sorted({r.config.arm for r in records}), 0.0)
    for record in records:
        if record.state is TrialState.PRUNED and record.epochs:
            num_left = record.config.whole("max_epochs") - record.epochs[-1].epoch
            saved[record.config.arm] += num_left * _seconds_per_epoch(record)
    return saved


def _seconds_per_epoch(record: TrialRecord) -> float:
    first, last = record.epochs[0], record.epochs[-1]
    if last.epoch == first.epoch:
        return last.device_seconds / last.epoch
    return (last.device_seconds - first.device_seconds) / (last.epoch - first.epoch)


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    if len(pairs) < 2:
        return None
    at_rung, at_end = np.array(pairs).T
    if np.ptp(at_rung) == 0 or np.ptp(at_end) == 0:
        return None
    correlation = float(spearmanr(at_rung, at_end).statistic)
    # Rounding errors may give 0.9999999999999999 for equal ranks.
    return round(correlation, 12)


def _score_at(record: TrialRecord, epoch: int) -> float | None:
    return next((e.macro_f1 for e in record.epochs if e.epoch == epoch), None)


def _was_stopped_at(record: TrialRecord, epoch: int) -> bool:
    return record.state is TrialState.PRUNED and record.epochs[-1].epoch == epoch


def compute_search_arms(records: Sequence[TrialRecord]) -> tuple[SearchArm, ...]:
    """Return each arm's trials by state, its share of the device-seconds, what stopping saved, and its best trial."""
    saved = compute_saved_device_seconds(records)
    total = sum(r.device_seconds for r in records)
    found = []
    for arm in sorted({r.config.arm for r in records}):
        own = [r for r in records if r.config.arm == arm]
        spent = sum(r.device_seconds for r in own)
        best = next(iter(best_trials(own, arm)), None)
        states = [r.state for r in own]
        found.append(
            SearchArm(
                arm=arm,
                num_trials=len(own),
                num_completed=sum(map(ran_every_epoch, own)),
                num_pruned=states.count(TrialState.PRUNED),
                num_failed=states.count(TrialState.FAILED),
                device_seconds=spent,
                share=spent / total if total else 0.0,
                best_macro_f1=best.last_macro_f1 if best else None,
                best_trial_id=best.trial_id if best else "",
                saved_device_seconds=saved[arm],
                saved_fraction=saved[arm] / (spent + saved[arm]) if spent else 0.0,
            )
        )
    return tuple(found)

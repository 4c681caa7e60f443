"""What the records of a search say: how each arm did, rung scores against final scores, tuning curves, and warnings.

A tuning curve is the score of an arm's best configuration so far as a function of the search's device time. The observed curve
is that of the one search that was run. Where the trials are independent draws, which holds for random search without early
stopping alone, there is also the expected curve with a band, over searches resampled from the arm's own trials with
replacement (Dodge et al. 2019, arXiv:1909.03004, with device time instead of the number of trials). A sampler that learns
draws each trial from the results of the earlier ones, so that resampled trials are not a search that could have happened. Only
trials that ran every epoch have a score; others contribute their device time.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import norm, spearmanr

from analysis.search.values import LOW_SHARE_FRACTION, RungFinding, RungScores, SearchArm, TuningCurve, TuningPoint
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray
from trainables.records.record import TrialRecord, TrialState, best_trials, ran_every_epoch
from trainables.seeds import numpy_generator

CONFIDENCE = 0.95
MIN_TRIALS_FOR_INTERVAL = 4


def compute_rung_scores(records: Sequence[TrialRecord], rungs: Mapping[str, Sequence[float]]) -> tuple[RungScores, ...]:
    """Return the scores at every rung, arm by arm in the order of the arms' names.

    Args:
        records: of the search.
        rungs: parts of a trial's annealing (`TrialConfig.annealed_part`) after which ASHA decides, by arm.
    """
    found = []
    for arm, own in _group_by_arm(records).items():
        for part in rungs.get(arm, ()):
            at = {r.trial_id: _find_rung(r, part) for r in own}
            epoch = max(at.values())
            if epoch == max(r.config.whole("max_epochs") for r in own):
                continue
            scores = ((r, e.macro_f1) for r in own for e in r.epochs if e.epoch == at[r.trial_id])
            reached = [(r, score) for r, score in scores if score is not None]
            completed = [
                (score, r.last_macro_f1) for r, score in reached if ran_every_epoch(r) and r.last_macro_f1 is not None
            ]
            found.append(
                RungScores(
                    arm=arm,
                    epoch=epoch,
                    completed=tuple(completed),
                    stopped=tuple(
                        s for r, s in reached if r.state is TrialState.PRUNED and r.epochs[-1].epoch == at[r.trial_id]
                    ),
                    num_reached=len(reached),
                )
            )
    return tuple(found)


def _find_rung(record: TrialRecord, part: float) -> int:
    """Return the first epoch after which this part of the trial's annealing is done; its last one if no other is."""
    num_epochs = record.config.whole("max_epochs")
    done = (epoch for epoch in range(1, num_epochs) if round(record.config.annealed_part(epoch), 9) >= part)
    return next(done, num_epochs)


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


def _group_by_arm(records: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Return the records of each arm, in the order of the arms' names."""
    return {arm: [r for r in records if r.config.arm == arm] for arm in sorted({r.config.arm for r in records})}


def _compute_saved_seconds(records: Sequence[TrialRecord]) -> float:
    """Return the device-seconds that the remaining epochs of an arm's pruned trials would have used.

    The remaining epochs count at the trial's own device-seconds per epoch. The first epoch, which includes the set-up, is left
    out of that mean where there are others.
    """
    pruned = [r for r in records if r.state is TrialState.PRUNED and r.epochs]
    return sum(((r.config.whole("max_epochs") - r.epochs[-1].epoch) * _seconds_per_epoch(r) for r in pruned), 0.0)


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


def compute_search_arms(records: Sequence[TrialRecord]) -> tuple[SearchArm, ...]:
    """Return each arm's trials by state, its share of the device-seconds, what stopping saved, and its best trial."""
    total = sum(r.device_seconds for r in records)
    found = []
    for arm, own in _group_by_arm(records).items():
        spent, saved = sum(r.device_seconds for r in own), _compute_saved_seconds(own)
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
                saved_device_seconds=saved,
                saved_fraction=saved / (spent + saved) if spent else 0.0,
            )
        )
    return tuple(found)


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
    for arm, every in _group_by_arm(records).items():
        own = [r for r in every if r.state.is_finished and r.device_seconds > 0]
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


def _resample(arm: str, seconds: FloatArray, scores: FloatArray) -> tuple[TuningPoint, ...]:
    generator = numpy_generator(0, "tuning-curve", arm)
    picks = generator.integers(len(seconds), size=(NUM_RESAMPLES, len(seconds)))
    ends = np.cumsum(seconds[picks], axis=1)
    best = np.maximum.accumulate(scores[picks], axis=1)
    points = []
    for budget in np.linspace(0, float(seconds.sum()), NUM_POINTS + 1)[1:].tolist():
        done = (ends <= budget).sum(axis=1)
        reached = np.where(done > 0, best[np.arange(NUM_RESAMPLES), np.maximum(done - 1, 0)], -np.inf)
        found = reached[np.isfinite(reached)]
        if len(found) >= FIRST_SHARE * NUM_RESAMPLES:
            low, high = np.quantile(found, [(1 - BAND) / 2, (1 + BAND) / 2]).tolist()
            points.append(TuningPoint(device_seconds=budget, expected=float(found.mean()), low=low, high=high))
    return tuple(points)


def compute_warnings(
    search: Sequence[SearchArm],
    records: Sequence[TrialRecord],
    extra: Sequence[str],
    *,
    shares_matter: bool,
    max_trials: int | None = None,
) -> tuple[str, ...]:
    """Return the warnings of a study: `extra`, unequal device time, failed trials, changed records.

    Args:
        search: the arms of the search.
        records: of every stage.
        extra: further warnings, listed first.
        max_trials: of an arm; one that had so many lacks no device time.
        shares_matter: whether the arms were searched, so that unequal shares of device time bias the comparison.
    """
    equal = 1 / len(search) if search and shares_matter else 0.0
    unequal = [
        f"The arm {arm.arm} got {arm.share:.0%} of the search's device time; an equal share is {equal:.0%}."
        for arm in search
        if arm.share < LOW_SHARE_FRACTION * equal and (max_trials is None or arm.num_trials < max_trials)
    ]
    diverged = [_describe_divergence(r) for r in records if _is_scored(r)]
    failed = [
        f"Trial {r.stage}/{r.trial_id} failed: {r.reason.splitlines()[-1] if r.reason else 'no cause was recorded'}"
        for r in records
        if r.state is TrialState.FAILED and not _is_scored(r)
    ]
    altered = [f"{r.stage}/{r.trial_id}" for r in records if r.is_altered]
    changed = [f"The configuration of {trial} was changed after the study wrote it." for trial in altered]
    return (*extra, *unequal, *diverged, *failed, *changed)


def _is_scored(record: TrialRecord) -> bool:
    return record.diverged and "test" in record.predictions


def _describe_divergence(record: TrialRecord) -> str:
    epoch = record.last_finite_epoch
    score = f"its weights after epoch {epoch}" if epoch else "labels drawn at random, because no epoch was finite"
    return (
        f"Trial {record.stage}/{record.trial_id} diverged: {record.reason}. The comparison scores it by {score}; "
        "the scores and forensics of its arm leave it out."
    )

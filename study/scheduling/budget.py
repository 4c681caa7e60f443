"""The arm of the next search trial: equal device time within the search's budget.

All of it follows from the records: which trials started and ended, and what they cost.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from study.spec.study_spec import StudySpec
from trainables.records.record import TrialRecord

# Assumed for a full trial before any cost is known; equal for all arms, so that they alternate.
UNMEASURED_DEVICE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTimeLedger:
    """Device-seconds spent and committed by each arm.

    Committed device-seconds are those that finished trials spent, and those that running trials have spent and are expected to
    spend.

    The first trials to end are those that ASHA stopped, so the mean over finished trials would be too low while many trials
    run. The expected cost of an arm's trial is therefore the device-seconds spent by all trials of the arm, running ones
    included, divided by the number of finished trials: the estimate of a mean lifetime under censoring ("total time on
    test"; Epstein and Sobel 1953, Life testing). It is capped at the cost of a whole trial: of
    `full_trial_seconds` if it was measured, else that of the most expensive trial so far.

    Attributes:
        finished: device-seconds of the finished trials of each arm, in the order in which they ended.
        running: those of the trials that run, so far.
        budget: device-seconds for all arms together; None for no limit.
        full_trial_seconds: device-seconds of a full trial by arm, for the arms in which it was measured.
    """

    finished: Mapping[str, Sequence[float]]
    running: Mapping[str, Sequence[float]]
    budget: float | None
    full_trial_seconds: Mapping[str, float]

    @property
    def is_spent(self) -> bool:
        """Whether a budget is set, nothing is running, and no arm can afford another full trial."""
        return self.budget is not None and not any(self.running.values()) and self.choose() is None

    def expected(self, arm: str) -> float:
        """Return the device-seconds that the arm's next trial is expected to cost."""
        finished = sum(self.finished[arm])
        if finished > 0:
            return min(self._whole(arm), (finished + sum(self.running[arm])) / len(self.finished[arm]))
        if arm in self.full_trial_seconds:
            return self.full_trial_seconds[arm]
        seconds = sum(sum(spent) for spent in self.finished.values())
        return seconds / sum(map(len, self.finished.values())) if seconds else UNMEASURED_DEVICE_SECONDS

    def committed(self, arm: str) -> float:
        """Return the arm's committed device-seconds."""
        expected, whole = self.expected(arm), self._whole(arm)
        running = sum(max(spent, min(spent + expected, whole)) for spent in self.running[arm])
        return sum(self.finished[arm]) + running

    def _whole(self, arm: str) -> float:
        """Return the known cost of a whole trial of the arm in device-seconds; infinite if none is known."""
        known = [self.full_trial_seconds.get(arm, 0.0), *self.finished[arm], *self.running[arm]]
        return max(known) or math.inf

    def choose(self, among: Collection[str] | None = None) -> str | None:
        """Return the arm whose next trial leaves the arms' committed device-seconds most nearly equal; one of `among` if given.

        With equal costs this is the arm with the least committed device-seconds; with unequal costs it avoids overshooting by a
        whole trial of an expensive arm. A budget is divided equally, and an arm whose next trial would exceed its part is
        skipped. None if every arm is skipped.
        """
        quota = math.inf if self.budget is None else self.budget / len(self.finished)
        committed = {arm: self.committed(arm) for arm in self.finished}
        costs = {arm: self.expected(arm) for arm in self.finished}
        open_arms = [arm for arm in self.finished if among is None or arm in among]
        affordable = [arm for arm in open_arms if committed[arm] + costs[arm] <= quota]

        def spread_after(arm: str) -> tuple[float, float]:
            after = {a: c + (costs[arm] if a == arm else 0.0) for a, c in committed.items()}
            return (max(after.values()) - min(after.values()), committed[arm])

        return min(affordable, key=spread_after, default=None)


class ArmAllocator:
    """The arms of a search's trials, by the records so far: the device time of every arm, and the number of its trials."""

    def __init__(self, spec: StudySpec, full_trial_seconds: Mapping[str, float] | None) -> None:
        """Take the budget of a spec.

        Args:
            spec: the study's spec.
            full_trial_seconds: device-seconds of a full trial by arm; None if they were not measured.
        """
        arms = {arm.name: arm for arm in spec.arms()}
        self._spec, self._arms, self._epoch_cost = spec, tuple(arms), spec.search.epoch_cost
        if self._epoch_cost is not None:
            full_trial_seconds = {name: self._epoch_cost[name] * spec.max_epochs(arm) for name, arm in arms.items()}
        self._full_trial_seconds = full_trial_seconds or {}

    def is_over(self, records: Sequence[TrialRecord]) -> bool:
        """Return whether the budget, of trials or of device-seconds, is used up."""
        if not self._list_open(records):
            return True
        return self._measure(records).is_spent if self._spec.num_trials is None else not self._may_start(records)

    def choose(self, records: Sequence[TrialRecord]) -> str | None:
        """Return the arm of the next trial; None if the budget is used up, or committed to the running trials."""
        if not self._may_start(records):
            return None
        if self._spec.has_given_arms:
            # Each given configuration is trained once; the arms of a search share the device time.
            return self._arms[len(records)]
        return self._measure(records).choose(self._list_open(records))

    def _may_start(self, records: Sequence[TrialRecord]) -> bool:
        return self._spec.num_trials is None or len(records) < self._spec.num_trials

    def _list_open(self, records: Sequence[TrialRecord]) -> list[str]:
        """Return the arms that may have another trial."""
        most = self._spec.search.max_trials_per_arm
        if most is None:
            return [*self._arms]
        numbers = Counter(record.config.arm for record in records)
        return [arm for arm in self._arms if numbers[arm] < most]

    def _measure(self, records: Sequence[TrialRecord]) -> DeviceTimeLedger:
        """Return the device-seconds of every arm; those of an epoch are `search.epoch_cost` where the spec gives it."""
        finished: dict[str, list[float]] = {arm: [] for arm in self._arms}
        running: dict[str, list[float]] = {arm: [] for arm in self._arms}
        for record in sorted(records, key=lambda record: record.ended_order or 0):
            arm, seconds = record.config.arm, 0.0
            if record.epochs:
                last = record.epochs[-1]
                seconds = last.device_seconds if self._epoch_cost is None else last.epoch * self._epoch_cost[arm]
            (finished if record.state.is_finished else running)[arm].append(seconds)
        budget, full = self._spec.search.device_seconds, self._full_trial_seconds
        return DeviceTimeLedger(finished=finished, running=running, budget=budget, full_trial_seconds=full)


def is_search_finished(
    records: Sequence[TrialRecord], spec: StudySpec, full_trial_seconds: Mapping[str, float] | None
) -> bool:
    """Whether every trial of the search has ended and its budget is used up.

    Args:
        records: the search's records.
        spec: the study's spec.
        full_trial_seconds: device-seconds of a full trial by arm; None if they were not measured.
    """
    return all(r.state.is_finished for r in records) and ArmAllocator(spec, full_trial_seconds).is_over(records)

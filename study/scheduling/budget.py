"""The arm of the next search trial: equal device time within the search's budget.

All of it follows from the records: which trials started and ended, and what they cost.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from study.spec.study_spec import StudySpec
from trainables.records.record import EpochRecord, TrialRecord

# Assumed for a full trial before any cost is known; equal for all arms, so that they alternate.
UNMEASURED_DEVICE_SECONDS = 1.0


@dataclass(slots=True)
class _Account:
    """Device-seconds of one arm's trials: of the finished ones together, and of each running one so far."""

    num_finished: int = 0
    finished_seconds: float = 0.0
    max_trial_seconds: float = 0.0
    running: dict[str, float] = field(default_factory=dict)


class DeviceTimeLedger:
    """Device-seconds spent and committed by each arm.

    Committed device-seconds are those that finished trials spent, and those that running trials have spent and are expected to
    spend.

    The first trials to end are those that ASHA stopped, so the mean over finished trials would be too low while many trials
    run. The expected cost of an arm's trial is therefore the device-seconds spent by all trials of the arm, running ones
    included, divided by the number of finished trials: the estimate of a mean lifetime under censoring ("total time on
    test"; Epstein and Sobel 1953, Life testing). It is capped at the cost of a whole trial: of
    `full_trial_seconds` if it was measured, else that of the most expensive trial so far.
    """

    def __init__(
        self, arms: Sequence[str], *, budget: float | None = None, full_trial_seconds: Mapping[str, float] | None = None
    ) -> None:
        """Open an account for each arm.

        Args:
            arms: names of the arms.
            budget: device-seconds for all arms together; None for no limit.
            full_trial_seconds: device-seconds of a full trial by arm, for the arms in which it was measured.
        """
        self._arms = {arm: _Account() for arm in arms}
        self._full_trial_seconds = dict(full_trial_seconds or {})
        self.set_budget(budget)

    def set_budget(self, budget: float | None) -> None:
        """Set the device-seconds for all arms together; None for no limit."""
        self._quota = None if budget is None else budget / len(self._arms)

    @property
    def is_spent(self) -> bool:
        """Whether a budget is set, nothing is running, and no arm can afford another full trial."""
        is_running = any(account.running for account in self._arms.values())
        return self._quota is not None and not is_running and self.choose() is None

    def start(self, arm: str, trial_id: str) -> None:
        """Record that a trial starts."""
        self._arms[arm].running[trial_id] = 0.0

    def spend(self, arm: str, trial_id: str, device_seconds: float) -> None:
        """Record the device-seconds that a running trial has spent in total."""
        self._arms[arm].running[trial_id] = device_seconds

    def finish(self, arm: str, trial_id: str) -> None:
        """Record that a trial ends."""
        account = self._arms[arm]
        seconds = account.running.pop(trial_id)
        account.finished_seconds += seconds
        account.max_trial_seconds = max(account.max_trial_seconds, seconds)
        account.num_finished += 1

    def expected(self, arm: str) -> float:
        """Return the device-seconds that the arm's next trial is expected to cost."""
        account = self._arms[arm]
        if account.finished_seconds > 0:
            on_test = account.finished_seconds + sum(account.running.values())
            return min(self._whole(arm), on_test / account.num_finished)
        if arm in self._full_trial_seconds:
            return self._full_trial_seconds[arm]
        accounts = self._arms.values()
        seconds = sum(a.finished_seconds for a in accounts)
        return seconds / sum(a.num_finished for a in accounts) if seconds else UNMEASURED_DEVICE_SECONDS

    def committed(self, arm: str) -> float:
        """Return the arm's committed device-seconds."""
        account, expected, whole = self._arms[arm], self.expected(arm), self._whole(arm)
        running = sum(max(spent, min(spent + expected, whole)) for spent in account.running.values())
        return account.finished_seconds + running

    def _whole(self, arm: str) -> float:
        """Return the known cost of a whole trial of the arm in device-seconds; infinite if none is known."""
        account = self._arms[arm]
        most_expensive = max([account.max_trial_seconds, *account.running.values()])
        return max(most_expensive, self._full_trial_seconds.get(arm, 0.0)) or math.inf

    def choose(self, among: Collection[str] | None = None) -> str | None:
        """Return the arm whose next trial leaves the arms' committed device-seconds most nearly equal; one of `among` if given.

        With equal costs this is the arm with the least committed device-seconds; with unequal costs it avoids overshooting by a
        whole trial of an expensive arm. A budget is divided equally, and an arm whose next trial would exceed its part is
        skipped. None if every arm is skipped.
        """
        committed = {arm: self.committed(arm) for arm in self._arms}
        costs = {arm: self.expected(arm) for arm in self._arms}
        open_arms = [arm for arm in self._arms if among is None or arm in among]
        affordable = [arm for arm in open_arms if self._quota is None or committed[arm] + costs[arm] <= self._quota]

        def spread_after(arm: str) -> tuple[float, float]:
            after = {a: c + (costs[arm] if a == arm else 0.0) for a, c in committed.items()}
            return (max(after.values()) - min(after.values()), committed[arm])

        return min(affordable, key=spread_after, default=None)


class ArmAllocator:
    """The device time of every arm of a search, and the number of its trials."""

    def __init__(self, spec: StudySpec, full_trial_seconds: Mapping[str, float] | None = None) -> None:
        """Begin a search of which nothing has run.

        Args:
            spec: the study's spec.
            full_trial_seconds: device-seconds of a full trial by arm; None if they were not measured.
        """
        arms = {arm.name: arm for arm in spec.arms()}
        self._spec = spec
        self._epoch_cost = spec.search.epoch_cost
        if self._epoch_cost is not None:
            full_trial_seconds = {name: self._epoch_cost[name] * spec.max_epochs(arm) for name, arm in arms.items()}
        self._ledger = DeviceTimeLedger(
            tuple(arms), budget=spec.search.device_seconds, full_trial_seconds=full_trial_seconds
        )
        self._num_started = dict.fromkeys(arms, 0)

    def set_budget(self, spec: StudySpec) -> None:
        """Take over the budget of `spec`, which differs from the study's spec in its budget alone."""
        self._spec = spec
        self._ledger.set_budget(spec.search.device_seconds)

    @property
    def is_over(self) -> bool:
        """Whether the budget, of trials or of device-seconds, is used up."""
        if not self._list_open():
            return True
        return self._ledger.is_spent if self._spec.num_trials is None else not self._may_start()

    def choose(self) -> str | None:
        """Return the arm of the next trial; None if the budget is used up, or committed to the running trials."""
        if not self._may_start():
            return None
        if self._spec.has_given_arms:
            # Each given configuration is trained once; the arms of a search share the device time.
            return list(self._num_started)[sum(self._num_started.values())]
        return self._ledger.choose(self._list_open())

    def _may_start(self) -> bool:
        return self._spec.num_trials is None or sum(self._num_started.values()) < self._spec.num_trials

    def _list_open(self) -> list[str]:
        """Return the arms that may have another trial."""
        most = self._spec.search.max_trials_per_arm
        return [arm for arm, number in self._num_started.items() if most is None or number < most]

    def start(self, record: TrialRecord) -> None:
        """Record that a trial starts."""
        self._ledger.start(record.config.arm, record.trial_id)
        self._num_started[record.config.arm] += 1

    def spend(self, record: TrialRecord, epoch: EpochRecord) -> None:
        """Record the cost of a trial up to `epoch`."""
        arm, cost = record.config.arm, epoch.device_seconds
        if self._epoch_cost is not None:
            cost = epoch.epoch * self._epoch_cost[arm]
        self._ledger.spend(arm, record.trial_id, cost)

    def finish(self, record: TrialRecord) -> None:
        """Record that a trial ended."""
        self._ledger.finish(record.config.arm, record.trial_id)


def is_search_finished(
    records: Sequence[TrialRecord], spec: StudySpec, full_trial_seconds: Mapping[str, float] | None
) -> bool:
    """Whether every trial of the search has ended and its budget is used up.

    Args:
        records: the search's records.
        spec: the study's spec.
        full_trial_seconds: device-seconds of a full trial by arm; None if they were not measured.
    """
    if any(not r.state.is_finished for r in records):
        return False
    allocator = ArmAllocator(spec, full_trial_seconds)
    for record in sorted(records, key=lambda r: r.ended_order or 0):
        allocator.start(record)
        if record.epochs:
            allocator.spend(record, record.epochs[-1])
        allocator.finish(record)
    return allocator.is_over

"""Whose turn it is: the arm of the next search trial, within the search's budget.

All of it follows from the records: which trials started and ended, and what they cost.
"""

from collections.abc import Mapping, Sequence

from study.scheduling.budget_ledger import DeviceTimeLedger
from study.spec.study_spec import StudySpec
from trainables.records.record import EpochRecord, TrialRecord


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

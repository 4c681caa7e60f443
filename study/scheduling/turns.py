"""Whose turn it is: the arm of the next search trial, and whether it is a full trial or a rung, within the search's budget.

All of it follows from the records: which trials started and ended, what they cost and, of rungs, how they scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.scheduling.budget_ledger import DeviceTimeLedger, Length
from study.scheduling.leaders import ArmLeaders, Forecast
from study.scheduling.promotion import ArmPromotions
from study.spec.study_spec import StudySpec
from trainables.records.ranking import ran_every_epoch, ran_its_schedule, score_repeat
from trainables.records.record import EpochRecord, TrialRecord

# Of a rung that diverged, below every other score.
DIVERGED_MACRO_F1 = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The next trial.

    Attributes:
        arm: whose trial it is.
        length: what it is.
        rung_id: of the rung that a full trial was promoted from; "" for a new configuration.
        repeats_id: of the trial whose configuration runs again; "" for a new configuration.
    """

    arm: str
    length: Length = Length.FULL
    rung_id: str = ""
    repeats_id: str = ""


class Turns:
    """The device time and the promotions of every arm of a search."""

    def __init__(self, spec: StudySpec, full_trial_seconds: Mapping[str, float] | None = None) -> None:
        """Begin a search of which nothing has run.

        Args:
            spec: the study's spec.
            full_trial_seconds: device-seconds of a full trial by arm; None if they were not measured.
        """
        arms = {arm.name: arm for arm in spec.arms()}
        self._spec = spec
        self._rungs = {name: spec.rung_epochs(arm) for name, arm in arms.items()} if spec.has_rungs else {}
        self._promotions = {
            name: ArmPromotions(reduction_factor=spec.reduction_factor, num_reserved=spec.confirm.top_k)
            for name in self._rungs
        }
        self._epoch_cost = spec.search.epoch_cost
        if self._epoch_cost is not None:
            full_trial_seconds = {name: self._epoch_cost[name] * spec.max_epochs(arm) for name, arm in arms.items()}
        self._ledger = DeviceTimeLedger(
            tuple(arms),
            budget=spec.search.device_seconds,
            full_trial_seconds=full_trial_seconds,
            rung_fractions={name: epochs / spec.max_epochs(arms[name]) for name, epochs in self._rungs.items()},
        )
        self._arm_names = tuple(arms)
        self._num_configurations = 0
        counts_divergence = spec.counts_divergence_as_noise
        self._leaders = {
            name: ArmLeaders(num_runs=spec.search.leader_runs, counts_divergence_as_noise=counts_divergence)
            for name in arms
        }
        self._has_saturated = False

    def set_budget(self, spec: StudySpec) -> None:
        """Take over the budget of `spec`, which differs from the study's spec in its budget alone."""
        self._spec = spec
        self._ledger.set_budget(spec.search.device_seconds)

    @property
    def is_over(self) -> bool:
        """Whether the budget, of configurations or of device-seconds, is used up, or the search ends because it is saturated."""
        if self._stops:
            return True
        if self._rungs:
            return not self._ledger.num_running and self.choose() is None
        return self._ledger.is_spent if self._spec.num_trials is None else not self._may_suggest()

    def choose(self) -> Turn | None:
        """Return the next trial; None if the budget is used up, or committed to the running trials."""
        if self._spec.has_given_arms:
            # Each given configuration is trained once; the arms of a search share the device time.
            return Turn(arm=self._arm_names[self._num_configurations]) if self._may_suggest() else None
        if self._stops:
            return None
        wanted = {turn.arm: turn for turn in map(self._want, self._arm_names) if turn is not None}
        arm = self._ledger.choose({name: turn.length for name, turn in wanted.items()})
        return None if arm is None else wanted[arm]

    @property
    def _stops(self) -> bool:
        return self._has_saturated and self._spec.search.stop_when == "saturated"

    def _is_saturated(self) -> bool:
        if self._spec.search.leader_runs == 1:
            return False
        return all(found is not None and found.is_saturated for found in self.forecast().values())

    def forecast(self) -> dict[str, Forecast | None]:
        """Return what each arm would gain if it were searched twice as long; None where that is not known."""
        return {name: leaders.forecast() for name, leaders in self._leaders.items()}

    def _may_suggest(self) -> bool:
        return self._spec.num_trials is None or self._num_configurations < self._spec.num_trials

    def _want(self, arm: str) -> Turn | None:
        """Return what the arm would start next: a promoted trial before a new configuration."""
        if not self._rungs:
            return Turn(arm=arm, repeats_id=self._leaders[arm].find_due()) if self._may_suggest() else None
        promotions, ledger = self._promotions[arm], self._ledger
        rung_id = promotions.find_promotable()
        if rung_id is not None and ledger.can_afford(arm, Length.FULL):
            return Turn(arm=arm, rung_id=rung_id)
        # A rung says nothing unless a full trial may follow.
        reserved = max(1, promotions.num_missing) * ledger.expected(arm, Length.FULL)
        if self._may_suggest() and ledger.can_afford(arm, Length.RUNG, reserved=reserved):
            return Turn(arm=arm, length=Length.RUNG)
        # The last full trials are chosen from all rungs.
        if promotions.running or (self._spec.num_trials is not None and not promotions.num_missing):
            return None
        rung_id = promotions.find_best_left()
        return None if rung_id is None else Turn(arm=arm, rung_id=rung_id)

    def start(self, record: TrialRecord) -> None:
        """Record that a trial starts."""
        arm, length = record.config.arm, _length_of(record)
        self._ledger.start(arm, record.trial_id, length)
        if record.repeats_trial_id:
            self._leaders[arm].start_repeat(record.repeats_trial_id)
        if length is Length.FULL and record.source_trial_id:
            self._promotions[arm].start_full(record.trial_id, record.source_trial_id)
            return
        self._num_configurations += 1
        if length is Length.RUNG:
            self._promotions[arm].start_rung(record.trial_id)

    def spend(self, record: TrialRecord, epoch: EpochRecord) -> None:
        """Record the cost of a trial up to `epoch`."""
        arm, cost = record.config.arm, epoch.device_seconds
        if self._epoch_cost is not None:
            cost = epoch.epoch * self._epoch_cost[arm]
        self._ledger.spend(arm, record.trial_id, cost)

    def finish(self, record: TrialRecord) -> None:
        """Record that a trial ended."""
        arm = record.config.arm
        self._ledger.finish(arm, record.trial_id)
        if record.is_rung:
            score = DIVERGED_MACRO_F1 if record.diverged else record.last_macro_f1 if ran_its_schedule(record) else None
            self._promotions[arm].finish_rung(record.trial_id, score)
        elif record.source_trial_id:
            self._promotions[arm].finish_full(record.source_trial_id, ran_every_epoch=ran_every_epoch(record))
        if not record.is_rung:
            score = score_repeat(record) if record.repeats_trial_id or ran_every_epoch(record) else None
            self._leaders[arm].finish(record.trial_id, record.repeats_trial_id, score)
            self._has_saturated = self._has_saturated or self._is_saturated()


def replay_turns(
    records: Sequence[TrialRecord], spec: StudySpec, full_trial_seconds: Mapping[str, float] | None = None
) -> Turns:
    """Return the turns of a search after its trials, all of which have ended; arguments as of `is_search_finished`."""
    turns = Turns(spec, full_trial_seconds)
    for record in sorted(records, key=lambda r: r.ended_order or 0):
        turns.start(record)
        if record.epochs:
            turns.spend(record, record.epochs[-1])
        turns.finish(record)
    return turns


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
    return replay_turns(records, spec, full_trial_seconds).is_over


def _length_of(record: TrialRecord) -> Length:
    return Length.RUNG if record.is_rung else Length.FULL

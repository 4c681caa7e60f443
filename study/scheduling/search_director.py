"""The search: each arm has its own sampler and its own ASHA bracket, and all arms get equal device time."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from search_spaces.config import TrialConfig, Value
from study.scheduling.budget import ArmAllocator
from study.scheduling.director import Director
from study.scheduling.pruner import ArmPruner
from study.scheduling.sampler import make_arm_sampler
from study.scheduling.warm_start import EarlierTrial
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from trainables.records.record import EpochRecord, EpochReport, TrialRecord, TrialState, ran_every_epoch
from trainables.seeds import derive_seed


class WeightRetention:
    """The trials of one arm whose weights are kept; they rank as in `trainables.records.record.best_trials`."""

    def __init__(self, number: int | None) -> None:
        """Keep the weights of so many trials, of all if `number` is None; there are none yet."""
        self._number = number
        self._scores: dict[str, float] = {}

    def add(self, record: TrialRecord) -> str:
        """Take a trial that ended into account; return the id of the trial whose weights are no longer needed, "" for none."""
        if self._number is None or not ran_every_epoch(record):
            return ""
        self._scores[record.trial_id] = record.last_macro_f1 or 0.0
        if len(self._scores) <= self._number:
            return ""
        worst = max(self._scores, key=lambda trial_id: (-self._scores[trial_id], trial_id))
        del self._scores[worst]
        return worst


# Trials in a row of an arm that may fail before their first epoch. They cost no device time, so that a budget of device-seconds
# would never be used up.
MAX_FREE_FAILURES = 20


class SearchDirector(Director):
    """Director of the search; its state is rebuilt from the records in the book."""

    def __init__(
        self,
        book: MemoryBook,
        spec: StudySpec,
        fixed: dict[str, Value],
        *,
        full_trial_seconds: Mapping[str, float] | None = None,
        earlier: Sequence[EarlierTrial] = (),
    ) -> None:
        """Rebuild samplers, brackets and device-time accounts from the records, in the order of their events.

        Args:
            book: the study's records.
            spec: the study's spec.
            fixed: `TrialConfig.fixed` of every trial of the study.
            full_trial_seconds: device-seconds of a full trial by arm; None if they were not measured.
            earlier: finished trials of another study, from which the samplers start.
        """
        super().__init__(book, "search", spec.resources.max_failed_fraction)
        self._spec = spec
        self._fixed = fixed
        self._arms = {arm.name: arm for arm in spec.arms()}
        self._samplers = {name: make_arm_sampler(arm, spec, earlier) for name, arm in self._arms.items()}
        self._pruners = {
            name: ArmPruner(
                first_rung=spec.first_rung(arm),
                max_epochs=spec.max_epochs(arm),
                reduction_factor=spec.search.asha.reduction_factor,
            )
            for name, arm in self._arms.items()
            if spec.search.asha.enabled
        }
        self._retention = {name: WeightRetention(spec.num_kept_weights) for name in self._arms}
        self._allocator = ArmAllocator(spec, full_trial_seconds)
        records = self.book.of_stage("search")
        self._num_started = 0
        self._interrupted = [r.trial_id for r in records if not r.state.is_finished]
        # By arm: trials in a row that failed before their first epoch.
        self._num_free_failures = dict.fromkeys(self._arms, 0)
        self._replay(records)

    def set_budget(self, spec: StudySpec) -> None:
        """Take over the budget of `spec`, which differs from the study's spec in its budget alone."""
        self._spec = spec
        self._allocator.set_budget(spec)

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget, of trials or of device-seconds, is used up."""
        if self.problem:
            return True
        return not self._interrupted and self._allocator.is_over

    @property
    def problem(self) -> str:
        """Why no further trial is started although the budget is not used up; "" if none is held back."""
        return self._storage_problem or self._describe_free_failures() or super().problem

    def _describe_free_failures(self) -> str:
        """Return that an arm's failing trials would never use up the budget; "" if they do."""
        arms = [arm for arm, number in self._num_free_failures.items() if number >= MAX_FREE_FAILURES]
        if not arms or self._spec.search.device_seconds is None:
            return ""
        return (
            f"{MAX_FREE_FAILURES} trials in a row of {', '.join(arms)} failed before their first epoch; they cost no device "
            "time, so search.device_seconds would never be used up"
        )

    def next_trial(self) -> TrialRecord | None:
        """Return an interrupted trial if there is one, else another one of the arm with the least device time.

        None if the budget is used up, or committed to the running trials.
        """
        if self.problem:
            return None
        if self._interrupted:
            return self.restart(self.book.get("search", self._interrupted.pop(0)))
        arm = self._allocator.choose()
        if arm is None:
            return None
        index, trial_id = self._num_started, f"{self._num_started:05d}"
        seed = derive_seed(self._spec.seed, "search", index) % 2**31
        suggested = self._suggest(arm, trial_id)
        record = self.start_trial(
            trial_id, TrialConfig(arm=arm, seed=seed, hyperparameters=suggested, fixed=self._fixed)
        )
        self._start(record)
        return record

    def _suggest(self, arm: str, trial_id: str) -> dict[str, Value]:
        return self._samplers[arm].suggest(trial_id)

    def add_epoch(self, record: TrialRecord, report: EpochReport, *, stop: bool) -> TrialRecord:
        """Return the record with one more epoch (not saved yet), after its cost was recorded."""
        record = super().add_epoch(record, report, stop=stop)
        self._allocator.spend(record, record.epochs[-1])
        self._num_free_failures[record.config.arm] = 0
        return record

    def on_end(self, record: TrialRecord) -> None:
        """Report the end of a trial to its sampler and its arm's account, and delete its checkpoints and needless weights."""
        needless = self._end(record)
        super().on_end(record)
        if needless:
            self.book.drop_weights(self.book.get(self.stage, needless))

    def on_retries_exhausted(self, trial_id: str) -> TrialRecord | None:
        """Record that a trial failed and has no retries left, and report it to the sampler."""
        failed = super().on_retries_exhausted(trial_id)
        if failed is not None:
            self._num_free_failures[failed.config.arm] += not failed.epochs
            self._end(failed)
        return failed

    def decide(self, record: TrialRecord, epoch: int, macro_f1: float) -> tuple[TrialState, str]:
        """Update sampler and bracket, and decide: complete, pruned, or continue."""
        arm = record.config.arm
        self._samplers[arm].report(record.trial_id, epoch, macro_f1)
        may_stop = arm in self._pruners and epoch < record.config.whole("max_epochs")
        if may_stop and self._pruners[arm].should_stop(record.trial_id, epoch, macro_f1):
            return TrialState.PRUNED, f"below the cutoff of ASHA's rung at epoch {epoch}"
        return super().decide(record, epoch, macro_f1)

    def _start(self, record: TrialRecord) -> None:
        if record.config.arm in self._pruners:
            self._pruners[record.config.arm].add(record.trial_id)
        self._allocator.start(record)
        self._num_started = max(self._num_started, int(record.trial_id) + 1)

    def _end(self, record: TrialRecord) -> str:
        """Report the end of a trial; return the id of the trial whose weights are not needed any more, "" for none."""
        self._samplers[record.config.arm].finish(
            record.trial_id, record.state, record.last_macro_f1, diverged=record.diverged
        )
        self._allocator.finish(record)
        return self._retention[record.config.arm].add(record)

    def _replay(self, records: Sequence[TrialRecord]) -> None:
        """Rebuild samplers, brackets and accounts from the records' events in their order."""
        events: list[tuple[int, Callable[[], object]]] = []
        for record in records:
            events.append((record.suggested_order, partial(self._replay_suggestion, record)))
            events.extend((epoch.order, partial(self._replay_epoch, record, epoch)) for epoch in record.epochs)
            if record.ended_order is not None:
                events.append((record.ended_order, partial(self._end, record)))
        for _, replay_event in sorted(events, key=lambda event: event[0]):
            replay_event()

    def _replay_suggestion(self, record: TrialRecord) -> None:
        self._samplers[record.config.arm].restore(record.trial_id, record.config.hyperparameters)
        self._start(record)

    def _replay_epoch(self, record: TrialRecord, epoch: EpochRecord) -> None:
        self._allocator.spend(record, epoch)
        diverged_here = record.diverged and epoch is record.epochs[-1]
        if epoch.macro_f1 is not None and not diverged_here:
            self.decide(record, epoch.epoch, epoch.macro_f1)

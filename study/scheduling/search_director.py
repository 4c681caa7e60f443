"""The search: each arm has its own sampler and its own ASHA bracket, and all arms get equal device time.

The brackets are those of Ray's AsyncHyperBandScheduler; their state is rebuilt by replaying records.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from search_spaces.settings import find_epoch
from study.scheduling.budget import ArmAllocator
from study.scheduling.director import Director
from study.scheduling.sampler import make_arm_sampler
from study.scheduling.warm_start import EarlierTrial
from study.spec.sections import AshaSpec
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from trainables.records.record import EpochRecord, EpochReport, TrialRecord, TrialState, best_trials
from trainables.seeds import derive_seed

# Trials in a row of an arm that may fail before their first epoch. They cost no device time, so that a budget of device-seconds
# would never be used up.
MAX_FREE_FAILURES = 20
METRIC = "macro_f1"
# States of a trial whose network another one may use, if not now.
_USABLE = (TrialState.COMPLETE, TrialState.RUNNING)
# Decimals of a part of a trial, so that 3 of 10 epochs reach a rung at 0.1 * 3.
ROUNDED = 9


class ArmPruner:
    """Decides whether a trial of one arm continues, from its macro-F1 at the rungs.

    Asynchronous successive halving: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, MLSys.
    """

    def __init__(self, asha: AshaSpec) -> None:
        """Create an empty bracket; raise UserInputError if Ray is not installed."""
        # Imported here, because a search without ASHA needs no Ray.
        try:
            from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
        except ImportError as error:
            raise UserInputError(
                f'ASHA is Ray\'s, which cannot be imported here ({error}); install ray[tune], or set search.pruning = "none"'
            ) from None
        self._stop = TrialScheduler.STOP
        self._asha = AsyncHyperBandScheduler(
            time_attr="part",
            metric=METRIC,
            mode="max",
            max_t=1.0,
            grace_period=asha.first_rung,
            reduction_factor=asha.reduction_factor,
        )

    def add(self, trial_id: str) -> None:
        """Add a trial to the bracket."""
        self._asha.on_trial_add(None, SimpleNamespace(trial_id=trial_id))

    def should_stop(self, trial_id: str, part: float, macro_f1: float) -> bool:
        """Return whether ASHA stops the trial after this part of its annealing; `macro_f1` must be finite."""
        result = {"part": round(part, ROUNDED), METRIC: macro_f1}
        # What the scheduler reads of a Ray trial is its id.
        decision = self._asha.on_trial_result(None, SimpleNamespace(trial_id=trial_id), result)
        return bool(decision == self._stop)


def compute_rungs(asha: AshaSpec) -> tuple[float, ...]:
    """Return the parts of a trial's annealing, below 1, after which ASHA decides, as AsyncHyperBandScheduler places them."""
    rungs, part = [], asha.first_rung
    while part < 1:
        rungs.append(part)
        part *= asha.reduction_factor
    return tuple(rungs)


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
        """Rebuild samplers and brackets from the records, in the order of their events.

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
        self._pruners = {name: ArmPruner(spec.search.asha) for name in self._arms if spec.search.pruning == "asha"}
        self._full_trial_seconds, self._allocator = full_trial_seconds, ArmAllocator(spec, full_trial_seconds)
        records = self.book.of_stage("search")
        self._interrupted = [r.trial_id for r in records if not r.state.is_finished]
        # By arm: trials in a row that failed before their first epoch.
        self._num_free_failures = dict.fromkeys(self._arms, 0)
        self._replay(records)

    def set_budget(self, spec: StudySpec) -> None:
        """Take over the budget of `spec`, which differs from the study's spec in its budget alone."""
        self._spec, self._allocator = spec, ArmAllocator(spec, self._full_trial_seconds)

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget, of trials or of device-seconds, is used up."""
        if self.problem:
            return True
        return not self._interrupted and self._allocator.is_over(self.book.of_stage("search"))

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
        records = self.book.of_stage("search")
        arm = self._allocator.choose(records)
        if arm is None:
            return None
        # Not their number: a user who gave up a damaged record moved its folder away.
        index = max((int(record.trial_id) + 1 for record in records), default=0)
        trial_id = f"{index:05d}"
        seed = derive_seed(self._spec.seed, "search", index) % 2**31
        suggested = self._suggest(arm, trial_id)
        config = TrialConfig(arm=arm, seed=seed, hyperparameters=suggested, fixed=self._fixed)
        # With the seed of a trial that trains the same network, the head alone is fitted.
        network = self.book.find_network(config, _USABLE, (record.config.seed for record in records))
        record = self.start_trial(trial_id, config if network is None else config.with_seed(network.config.seed))
        if arm in self._pruners:
            self._pruners[arm].add(trial_id)
        return record

    def _suggest(self, arm: str, trial_id: str) -> dict[str, Value]:
        return self._samplers[arm].suggest(trial_id)

    def add_epoch(self, record: TrialRecord, report: EpochReport, *, stop: bool) -> TrialRecord:
        """Return the record with one more epoch (not saved yet), after which its arm costs device time."""
        self._num_free_failures[record.config.arm] = 0
        return super().add_epoch(record, report, stop=stop)

    def on_end(self, record: TrialRecord) -> None:
        """Report the end of a trial to its sampler, and delete its checkpoints and the weights that it makes needless."""
        self._report_end(record)
        super().on_end(record)
        if self._spec.num_kept_weights is None:
            return
        ranked = best_trials(self.book.of_stage(self.stage), record.config.arm)
        for needless in ranked[self._spec.num_kept_weights :]:
            if not needless.weights_dropped:
                self.book.drop_weights(needless)

    def on_retries_exhausted(self, trial_id: str) -> TrialRecord | None:
        """Record that a trial failed and has no retries left, and report it to the sampler."""
        failed = super().on_retries_exhausted(trial_id)
        if failed is not None:
            self._num_free_failures[failed.config.arm] += not failed.epochs
            self._report_end(failed)
        return failed

    def decide(self, record: TrialRecord, epoch: int, macro_f1: float) -> tuple[TrialState, str]:
        """Update sampler and bracket, and decide: complete, pruned, or continue."""
        arm, part = record.config.arm, epoch / record.config.whole("max_epochs")
        # Where trials have other numbers of epochs, TPE compares stopped ones after the same part of them.
        step = find_epoch(part, self._spec.max_epochs(self._arms[arm]))
        self._samplers[arm].report(record.trial_id, step, macro_f1)
        # Scores around the peak of the learning rate rank the trials by how much they move, so that no rung lies before it.
        annealed = record.config.annealed_part(epoch)
        if part < 1 and arm in self._pruners and self._pruners[arm].should_stop(record.trial_id, annealed, macro_f1):
            return TrialState.PRUNED, f"below the cutoff of ASHA's rung at epoch {epoch}"
        return super().decide(record, epoch, macro_f1)

    def _report_end(self, record: TrialRecord) -> None:
        """Report the end of a trial to its sampler."""
        sampler, score = self._samplers[record.config.arm], record.last_macro_f1
        sampler.finish(record.trial_id, record.state, score, diverged=record.diverged)

    def _replay(self, records: Sequence[TrialRecord]) -> None:
        """Rebuild samplers and brackets from the records' events in their order."""
        events: list[tuple[int, Callable[[], object]]] = []
        for record in records:
            events.append((record.suggested_order, partial(self._replay_suggestion, record)))
            events.extend((epoch.order, partial(self._replay_epoch, record, epoch)) for epoch in record.epochs)
            if record.ended_order is not None:
                events.append((record.ended_order, partial(self._report_end, record)))
        for _, replay_event in sorted(events, key=lambda event: event[0]):
            replay_event()

    def _replay_suggestion(self, record: TrialRecord) -> None:
        self._samplers[record.config.arm].restore(record.trial_id, record.config.hyperparameters)
        if record.config.arm in self._pruners:
            self._pruners[record.config.arm].add(record.trial_id)

    def _replay_epoch(self, record: TrialRecord, epoch: EpochRecord) -> None:
        diverged_here = record.diverged and epoch is record.epochs[-1]
        if epoch.macro_f1 is not None and not diverged_here:
            self.decide(record, epoch.epoch, epoch.macro_f1)

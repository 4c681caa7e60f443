"""The search: every arm with its own sampler and its own ASHA bracket, and equal device time for all arms."""

from collections.abc import Callable
from functools import partial

from search_spaces.arms import Arm
from search_spaces.config import TrialConfig, Value
from study.director import RecordKeeper, Report, is_known, non_finite_reason
from study.pruning import ArmPruner
from study.records import RecordBook, now_utc
from study.sampling import ArmSampler
from study.spec import StudySpec
from trainables.record import TrialRecord, TrialState, config_model
from trainables.seeds import derive_seed

UNMEASURED_DEVICE_SECONDS = 1.0


class SearchDirector(RecordKeeper):
    """Director of the search stage; its state is rebuilt from the records that it finds in the book."""

    def __init__(self, book: RecordBook, spec: StudySpec, fixed: dict[str, Value]) -> None:
        """Rebuild samplers and brackets from the book's search records, in the order of their events.

        Args:
            book: the study's records.
            spec: the study's spec.
            fixed: what `TrialConfig.fixed` holds for every trial of the study.
        """
        super().__init__(book, "search")
        self._spec = spec
        self._fixed = fixed
        self._arms = {arm.name: arm for arm in spec.arms()}
        self._samplers = {
            name: ArmSampler(arm, sampler=spec.search.sampler, seed=spec.seed) for name, arm in self._arms.items()
        }
        self._pruners = {
            name: ArmPruner(
                first_rung=spec.first_rung,
                max_epochs=spec.search.max_epochs,
                reduction_factor=spec.search.asha.reduction_factor,
            )
            for name in self._arms
        }
        self._waiting = [r.trial_id for r in self._records() if not r.state.is_finished]
        self._replay()

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget of trials is used up."""
        return not self._waiting and len(self._records()) >= self._spec.search.num_trials

    def next_trial(self) -> TrialRecord | None:
        """Return an interrupted trial if there is one, else a new one of the arm that is owed device time."""
        if self._waiting:
            return self.restart(self.book.get("search", self._waiting.pop(0)))
        if self.is_exhausted:
            return None
        arm = self._choose_arm()
        index = len(self._records())
        trial_id = f"{index:05d}"
        config = TrialConfig(
            arm=arm.name,
            seed=derive_seed(self._spec.seed, "search", index) % 2**31,
            hyperparameters=self._samplers[arm.name].suggest(trial_id),
            fixed=self._fixed,
        )
        self._pruners[arm.name].add(trial_id)
        return self.book.save(
            TrialRecord(
                trial_id=trial_id,
                stage="search",
                config=config_model(config),
                fingerprint=config.fingerprint,
                state=TrialState.RUNNING,
                suggested_order=self.take_order(),
                started=now_utc(),
            )
        )

    def on_report(self, trial_id: str, report: Report) -> bool:
        """Record one epoch, tell sampler and bracket, and decide: complete, pruned, failed, or on."""
        record = self.book.get("search", trial_id)
        if record.state.is_finished:
            return False
        if is_known(record, report):
            return True
        reason = non_finite_reason(report)
        state = TrialState.FAILED if reason else TrialState.RUNNING
        epoch = int(report.metrics["epoch"])
        if not reason:
            state = self._decide(record, epoch, float(report.metrics["macro_f1"]))
        record = self.add_epoch(record, report, stop=state.is_finished)
        if state is TrialState.PRUNED:
            reason = f"below the cutoff of ASHA's rung at epoch {epoch}"
        if state.is_finished:
            record = self.finish(record, state, reason, diverged=state is TrialState.FAILED)
        record = self.book.save(record)
        if state.is_finished:
            self._tell_end(record)
            self.book.drop_checkpoint(record)
        return not state.is_finished

    def on_gave_up(self, trial_id: str) -> None:
        """Record that the trial failed for good, and tell the sampler."""
        was_running = not self.book.get(self.stage, trial_id).state.is_finished
        super().on_gave_up(trial_id)
        if was_running:
            self._tell_end(self.book.get(self.stage, trial_id))

    def _decide(self, record: TrialRecord, epoch: int, macro_f1: float) -> TrialState:
        arm = record.config.arm
        self._samplers[arm].report(record.trial_id, epoch, macro_f1)
        if epoch >= self._spec.search.max_epochs:
            return TrialState.COMPLETE
        if self._spec.search.asha.enabled and self._pruners[arm].should_stop(record.trial_id, epoch, macro_f1):
            return TrialState.PRUNED
        return TrialState.RUNNING

    def _tell_end(self, record: TrialRecord) -> None:
        last = record.epochs[-1].epoch if record.epochs else 0
        self._samplers[record.config.arm].finish(
            record.trial_id, record.state, record.last_macro_f1, last, diverged=record.diverged
        )

    def _choose_arm(self) -> Arm:
        """Return the arm whose next trial leaves the committed device-seconds of all arms most nearly equal.

        Committed is what finished trials spent and what running ones have spent or are expected to spend. With equal
        costs this is the arm with the least; with unequal ones it does not overshoot by a dear arm's whole trial.
        """
        expected = {name: self._expected_device_seconds(name) for name in self._arms}
        committed = dict.fromkeys(self._arms, 0.0)
        for record in self._records():
            arm = record.config.arm
            spent = record.device_seconds
            committed[arm] += spent if record.state.is_finished else max(spent, expected[arm])

        def spread_after(name: str) -> tuple[float, float]:
            after = {n: c + (expected[n] if n == name else 0.0) for n, c in committed.items()}
            return (max(after.values()) - min(after.values()), committed[name])

        return self._arms[min(self._arms, key=spread_after)]

    def _expected_device_seconds(self, arm: str) -> float:
        """Return the mean cost of the arm's finished trials; before there is one, of all finished trials."""
        ended = [r for r in self._records() if r.state.is_finished and r.device_seconds > 0]
        own = [r.device_seconds for r in ended if r.config.arm == arm]
        costs = own or [r.device_seconds for r in ended]
        return sum(costs) / len(costs) if costs else UNMEASURED_DEVICE_SECONDS

    def _records(self) -> tuple[TrialRecord, ...]:
        return self.book.of_stage("search")

    def _replay(self) -> None:
        """Rebuild samplers and brackets by going through the records' events in their order."""
        events: list[tuple[int, Callable[[], object]]] = []
        for record in self._records():
            events.append((record.suggested_order, partial(self._replay_suggestion, record)))
            reported = record.epochs[:-1] if record.diverged else record.epochs
            for epoch in reported:
                if epoch.macro_f1 is not None:
                    replay = partial(self._decide, record, epoch.epoch, epoch.macro_f1)
                    events.append((epoch.order, replay))
            if record.ended_order is not None:
                events.append((record.ended_order, partial(self._tell_end, record)))
        for _, replay_event in sorted(events, key=lambda event: event[0]):
            replay_event()

    def _replay_suggestion(self, record: TrialRecord) -> None:
        arm = record.config.arm
        self._samplers[arm].restore(record.trial_id, record.config.hyperparameters)
        self._pruners[arm].add(record.trial_id)


def best_trials(records: tuple[TrialRecord, ...], arm: str, max_epochs: int) -> tuple[TrialRecord, ...]:
    """Return the arm's trials that ran every epoch, highest last-epoch macro-F1 on the search split first."""
    full = [
        r
        for r in records
        if r.config.arm == arm
        and r.state is TrialState.COMPLETE
        and r.epochs[-1].epoch == max_epochs
        and r.last_macro_f1 is not None
    ]
    return tuple(sorted(full, key=lambda r: (-(r.last_macro_f1 or 0.0), r.trial_id)))

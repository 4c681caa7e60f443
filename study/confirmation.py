"""Confirmation: the chosen configurations again, with fresh seeds, on all epochs, without pruning; then one look at the test."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from pydantic import TypeAdapter, ValidationError

from search_spaces.config import TrialConfig
from search_spaces.designs import Contrast
from search_spaces.errors import UserInputError
from study.director import RecordKeeper, Report, is_known, non_finite_reason
from study.paths import PLAN
from study.records import RecordBook, best_trials, now_utc
from study.sealed import read_changed_json, write_sealed_json
from study.spec import StudySpec
from trainables.record import DamagedFileError, TrialRecord, TrialState, config_model
from trainables.seeds import derive_seed
from trainables.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTrial:
    """A configuration to be run with one seed."""

    config: TrialConfig
    source_trial_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be compared and by which rule; written before the first test prediction and never changed.

    Attributes:
        created: when.
        chosen: arm -> id of the search trial whose configuration represents it.
        rows: what is compared with what.
        seeds: paired seeds of every arm, in the order in which they are used.
        looks: numbers of seeds after which rows are judged; a row that is decided asks for no more.
        intervals: "planned" or "anytime", as the spec's.
        margin: equivalence margin in macro-F1.
        alpha: family-wise error rate over the rows and looks.
        is_changed: whether the file was changed after it was written; every output says so.
    """

    created: str
    chosen: dict[str, str]
    rows: tuple[Contrast, ...]
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    intervals: str
    margin: float
    alpha: float
    is_changed: bool = False


class ConfirmationDirector(RecordKeeper):
    """Director that runs a list of configurations to the end; those already recorded are not run again."""

    def __init__(self, book: RecordBook, wanted: Sequence[WantedTrial], max_epochs: int) -> None:
        super().__init__(book, "confirmation")
        self._max_epochs = max_epochs
        self._wanted = {trial.config.fingerprint for trial in wanted}
        recorded = {r.fingerprint: r for r in book.of_stage("confirmation")}
        self._waiting: list[WantedTrial | TrialRecord] = []
        for trial in wanted:
            record = recorded.get(trial.config.fingerprint)
            if record is None:
                self._waiting.append(trial)
            elif not record.state.is_finished:
                self._waiting.append(record)

    @property
    def is_exhausted(self) -> bool:
        """Whether every wanted trial has been started, or none is to be started any more."""
        return bool(self.problem) or not self._waiting

    def unfinished(self) -> tuple[TrialRecord, ...]:
        """Return the wanted trials' records that have not ended; others may be left from a driver that died later on."""
        return tuple(record for record in super().unfinished() if record.fingerprint in self._wanted)

    def next_trial(self) -> TrialRecord | None:
        """Return the next wanted trial's record, or None when all are started."""
        if self.problem or not self._waiting:
            return None
        trial = self._waiting.pop(0)
        if isinstance(trial, TrialRecord):
            return self.restart(trial)
        return self.book.save(
            TrialRecord(
                trial_id=f"{len(self.book.of_stage('confirmation')):05d}",
                stage="confirmation",
                config=config_model(trial.config),
                fingerprint=trial.config.fingerprint,
                state=TrialState.RUNNING,
                suggested_order=self.take_order(),
                source_trial_id=trial.source_trial_id,
                started=now_utc(),
            )
        )

    def on_report(self, trial_id: str, report: Report) -> bool:
        """Record one epoch; the trial goes on until its last epoch or a number that is not finite."""
        record = self.book.get("confirmation", trial_id)
        if record.state.is_finished:
            return False
        if is_known(record, report):
            return True
        reason = non_finite_reason(report)
        is_last = int(report.metrics["epoch"]) >= self._max_epochs
        record = self.add_epoch(record, report, stop=bool(reason) or is_last)
        if reason:
            record = self.finish(record, TrialState.FAILED, reason, diverged=True)
        elif is_last:
            record = self.finish(record, TrialState.COMPLETE, "")
        record = self.book.save(record)
        if record.state.is_finished:
            self.book.drop_checkpoint(record)
        return not record.state.is_finished

    def put_back(self, trial_id: str) -> None:
        """Let a trial wait that was dropped before it was started again."""
        record = self.book.get("confirmation", trial_id)
        if not record.state.is_finished:
            self._waiting.insert(0, record)


def confirmation_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Return the fresh seeds, the same for every arm."""
    return tuple(derive_seed(spec.seed, "confirmation", i) % 2**31 for i in range(spec.confirm.num_seeds))


def growth_option(spec: StudySpec) -> str:
    """Return the option of `study resume` that gives every arm two more trials, or doubles a budget of device-seconds."""
    if spec.search.num_trials is not None:
        return f"--num-trials +{2 * len(spec.arms())}"
    return f"--device-seconds +{spec.search.device_seconds:g}"


def candidates(book: RecordBook, spec: StudySpec) -> dict[str, tuple[TrialRecord, ...]]:
    """Return each arm's top_k search trials; raise UserInputError for an arm with no trial that ran every epoch."""
    chosen = {}
    for arm in spec.arms():
        best = best_trials(book.of_stage("search"), arm.name, spec.search.max_epochs)
        if not best:
            remedy = f"extend the search: study resume {growth_option(spec)}"
            if spec.has_given_arms:
                remedy = "`study status` shows why it failed; mend the configuration and compare again"
            raise UserInputError(
                f"no trial of the arm {arm.name!r} ran every epoch, so there is nothing to confirm; {remedy}"
            )
        chosen[arm.name] = best[: spec.confirm.top_k]
    return chosen


def want(source: TrialRecord, seeds: Sequence[int]) -> list[WantedTrial]:
    """Return the source's configuration once per seed."""
    return [WantedTrial(config=source.trial_config().with_seed(s), source_trial_id=source.trial_id) for s in seeds]


def choose_by_ranking(
    book: RecordBook, chosen: dict[str, tuple[TrialRecord, ...]], seeds: Sequence[int]
) -> dict[str, TrialRecord]:
    """Return per arm the candidate with the highest mean macro-F1 on the confirm split over `seeds`."""
    winners = {}
    for arm, sources in chosen.items():
        if len(sources) == 1:
            winners[arm] = sources[0]
            continue
        scores = {
            s.trial_id: _mean_confirm([r for r in runs_of(book, s) if r.config.seed in set(seeds)]) for s in sources
        }
        winners[arm] = max(sources, key=lambda s: (scores[s.trial_id], s.trial_id))
    return winners


def runs_of(book: RecordBook, source: TrialRecord) -> list[TrialRecord]:
    """Return the complete confirmation runs of one configuration, in the order of their ids."""
    identity = source.trial_config().configuration_fingerprint
    return [
        r
        for r in book.of_stage("confirmation")
        if r.state is TrialState.COMPLETE and r.trial_config().configuration_fingerprint == identity
    ]


def make_plan(spec: StudySpec, winners: dict[str, TrialRecord], complete_seeds: Sequence[int]) -> Plan:
    """Return the plan, with the spec's rows: by default every later arm against the first, which is the control.

    `complete_seeds` are those of the first look that every arm has completed; the looks get smaller by those that are missing.
    """
    first, *later = spec.confirm.looks
    num_lost = first - len(complete_seeds)
    return Plan(
        created=now_utc(),
        chosen={arm: record.trial_id for arm, record in winners.items()},
        rows=spec.contrasts(),
        seeds=(*complete_seeds, *confirmation_seeds(spec)[first:]),
        looks=tuple(look - num_lost for look in (first, *later)),
        intervals=spec.confirm.intervals,
        margin=spec.confirm.margin,
        alpha=spec.confirm.alpha,
    )


def write_plan(store: Store, plan: Plan) -> None:
    """Write the plan once."""
    content = asdict(plan)
    del content["is_changed"]
    write_sealed_json(store, PLAN, content)


def read_plan(store: Store) -> Plan | None:
    """Return the plan, or None if none has been written; raise DamagedFileError if it cannot be read.

    A plan that was changed by hand is taken, and says so.
    """
    if not store.exists(PLAN):
        return None
    data, is_intact = read_changed_json(store, PLAN)
    try:
        return TypeAdapter(Plan).validate_python({**data, "is_changed": not is_intact})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedFileError(f"{store.root}/{PLAN} is damaged: {place}: {first['msg']}") from None


def followed_plan(book: RecordBook, spec: StudySpec) -> Plan | None:
    """Return a study's plan, or None if none has been written.

    Raises DamagedFileError if it cannot be read, or was changed by hand into one that this study cannot follow.
    """
    plan = read_plan(book.store)
    if plan is not None and plan.is_changed:
        problem = _find_misfit(plan, book, spec)
        if problem:
            raise DamagedFileError(changed_plan_error(book.store, problem))
    return plan


def changed_plan_error(store: Store, problem: str) -> str:
    """Return the sentence about a plan that was changed and cannot be followed."""
    return f"{store.root}/{PLAN} was changed after it was written, and cannot be followed: {problem}"


def _find_misfit(plan: Plan, book: RecordBook, spec: StudySpec) -> str:
    """Return what of a changed plan does not fit the study; "" if all does."""
    searched = {record.trial_id for record in book.of_stage("search")}
    planned, looks = confirmation_seeds(spec), list(plan.looks)
    problems = {
        "its arms are not the study's": {arm.name for arm in spec.arms()} != set(plan.chosen),
        "it names trials that the search does not have": not set(plan.chosen.values()) <= searched,
        "a row of it compares arms that are not there": not all(_has_arms(row, plan) for row in plan.rows),
        "its seeds are not the study's": not set(plan.seeds) <= set(planned) or len(set(plan.seeds)) < len(plan.seeds),
        "its looks are not increasing numbers of its seeds": looks != sorted(set(looks))
        or not looks
        or not 2 <= looks[0] <= looks[-1] <= len(plan.seeds),
        "its margin, alpha or intervals are not allowed values": not (0 < plan.margin < 1 and 0 < plan.alpha < 1)
        or plan.intervals not in {"planned", "anytime"},
    }
    return next((problem for problem, is_there in problems.items() if is_there), "")


def _has_arms(row: Contrast, plan: Plan) -> bool:
    return bool(row.treatment_arms and row.control_arms) and set(row.arms) <= set(plan.chosen)


def _mean_confirm(runs: list[TrialRecord]) -> float:
    scores = [r.confirm_macro_f1 for r in runs if r.confirm_macro_f1 is not None]
    return float(np.mean(scores)) if scores else -1.0

"""Confirmation: the chosen configurations again, with fresh seeds, on all epochs, without pruning; then one look at the test."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, ValidationError

from search_spaces.designs import Contrast
from study.spec.study_spec import StudySpec
from study.state.checksums import read_changed_json, write_sealed_json
from study.state.paths import PLAN
from study.state.record_book import RecordBook, now_utc
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord
from trainables.records.store import Store
from trainables.seeds import derive_seed


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


def confirmation_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Return the fresh seeds, the same for every arm."""
    return tuple(derive_seed(spec.seed, "confirmation", i) % 2**31 for i in range(spec.confirm.num_seeds))


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

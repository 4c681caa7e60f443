"""The plan of the comparison: configurations, seeds and rule; and how often the study has read its test split."""

import itertools
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from search_spaces.designs import Contrast
from study.spec.study_spec import StudySpec
from study.state.paths import PLAN, TEST_READS
from study.state.record_book import RecordBook, now_utc
from study.state.sealed_files import add_sealed_json, read_changed_json, read_sealed_folder, write_sealed_json
from trainables.damaged_files import DamagedFileError, decoding
from trainables.records.record import TrialRecord
from trainables.seeds import derive_seed
from trainables.storage.store import Store


class Plan(BaseModel):
    """The plan of the comparison, as plan.json holds it; written before the first test prediction and never changed.

    Attributes:
        created: ISO 8601, UTC.
        chosen: arm -> id of the search trial whose configuration represents it.
        rows: the contrasts of the comparison.
        seeds: paired seeds of every arm, in the order in which they are used.
        looks: numbers of seeds after which rows are judged; a decided row needs no more seeds.
        intervals: "planned", "anytime" or "moderated", as in the spec.
        margin: equivalence margin in macro-F1.
        alpha: family-wise error rate over the rows and looks.
        is_changed: whether the file was changed after it was written, which every output states; not part of the file.
    """

    model_config = ConfigDict(frozen=True)

    created: str
    chosen: dict[str, str]
    rows: tuple[Contrast, ...]
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    intervals: str
    margin: float
    alpha: float
    is_changed: bool = Field(default=False, exclude=True)


def confirmation_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Return the seeds of the comparison, the same for every arm; those of interventions are new in every round."""
    name = ("confirmation",) if spec.intervene is None else ("intervention", spec.intervene.round)
    name = (*name, spec.confirm.seed_name) if spec.confirm.seed_name else name
    return tuple(derive_seed(spec.seed, *name, i) % 2**31 for i in range(spec.confirm.num_seeds))


def ranking_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Return the seeds with which the candidates of an arm are ranked.

    The comparison does not use them again: runs that chose the candidate are biased upward.
    """
    planned = confirmation_seeds(spec)
    drawn = (derive_seed(spec.seed, "ranking", i) % 2**31 for i in itertools.count())
    return tuple(itertools.islice((seed for seed in drawn if seed not in planned), spec.confirm.num_ranking_seeds))


def make_plan(spec: StudySpec, winners: dict[str, TrialRecord], complete_seeds: Sequence[int]) -> Plan:
    """Return the plan.

    Args:
        spec: the study's spec; its rows compare, by default, every later arm with the first one, the control.
        winners: the search trial that represents each arm; of a round, without the interventions that are left out.
        complete_seeds: seeds of the first look that every arm has completed. Each look shrinks by the number of seeds lost.
    """
    first, *later = spec.confirm.looks
    num_lost = first - len(complete_seeds)
    return Plan(
        created=now_utc(),
        chosen={arm: record.trial_id for arm, record in winners.items()},
        rows=tuple(row for row in spec.contrasts() if set(row.arms) <= set(winners)),
        seeds=(*complete_seeds, *confirmation_seeds(spec)[first:]),
        looks=tuple(look - num_lost for look in (first, *later)),
        intervals=spec.confirm.intervals,
        margin=spec.confirm.margin,
        alpha=spec.confirm.alpha,
    )


def write_plan(store: Store, plan: Plan) -> None:
    """Write plan.json."""
    write_sealed_json(store, PLAN, plan.model_dump(mode="json"))


def read_plan(store: Store) -> Plan | None:
    """Return the plan, or None if none has been written; raise DamagedFileError if it cannot be read.

    A plan that was changed by hand is accepted, with `is_changed` set.
    """
    if not store.exists(PLAN):
        return None
    data, is_intact = read_changed_json(store, PLAN)
    with decoding(store.locate(PLAN)):
        return Plan.model_validate({**data, "is_changed": not is_intact})


def followed_plan(book: RecordBook, spec: StudySpec) -> Plan | None:
    """Return a study's plan, or None if none has been written.

    Raises DamagedFileError if it cannot be read, or was changed by hand so that it does not fit the study.
    """
    plan = read_plan(book.store)
    if plan is not None and plan.is_changed:
        problem = _find_misfit(plan, book, spec)
        if problem:
            raise DamagedFileError(changed_plan_error(book.store, problem))
    return plan


def changed_plan_error(store: Store, problem: str) -> str:
    """Return the message about a plan that was changed and does not fit the study."""
    return f"{store.locate(PLAN)} was changed after it was written, and cannot be followed: {problem}"


def _find_misfit(plan: Plan, book: RecordBook, spec: StudySpec) -> str:
    """Return why a changed plan does not fit the study; "" if it does."""
    searched = {record.trial_id for record in book.of_stage("search")}
    planned, looks = confirmation_seeds(spec), list(plan.looks)
    problems = {
        "its arms are not the study's": not _are_arms(set(plan.chosen), spec),
        "it names trials that the search does not have": not set(plan.chosen.values()) <= searched,
        "one of its rows compares arms that the study does not have": not all(
            row.treatment_arms and row.control_arms and set(row.arms) <= set(plan.chosen) for row in plan.rows
        ),
        "its seeds are not the study's": not set(plan.seeds) <= set(planned) or len(set(plan.seeds)) < len(plan.seeds),
        "its looks are not increasing numbers of its seeds": looks != sorted(set(looks))
        or not looks
        or not 2 <= looks[0] <= looks[-1] <= len(plan.seeds),
        "its margin, alpha or intervals are not allowed values": not (0 < plan.margin < 1 and 0 < plan.alpha < 1)
        or plan.intervals not in {"planned", "anytime", "moderated"},
    }
    return next((problem for problem, is_there in problems.items() if is_there), "")


def _are_arms(names: set[str], spec: StudySpec) -> bool:
    """Return whether these are the arms of the study, or of a round that left interventions out."""
    arms = [arm.name for arm in spec.arms()]
    return names == set(arms) or (spec.intervene is not None and arms[0] in names and names < set(arms))


def note_test_read(store: Store, plan: Plan, trial_ids: list[str]) -> None:
    """Count one read of the test split, unless it continues the last one.

    Args:
        store: the study's root.
        plan: the plan that is followed.
        trial_ids: the confirmation trials that are about to predict the test split.
    """
    notes = [*read_sealed_folder(store, TEST_READS).values()]
    if notes and notes[-1]["plan_created"] == plan.created and set(trial_ids) <= set(notes[-1]["runs"]):
        return
    add_sealed_json(store, TEST_READS, {"time": now_utc(), "plan_created": plan.created, "runs": trial_ids})


def count_test_reads(store: Store) -> int:
    """Return how often the study has read the test split; raise DamagedFileError naming a file that cannot be read."""
    return len(read_sealed_folder(store, TEST_READS))

"""Warm start: the finished trials of another study of the same space, copied into this one for its samplers.

Only samplers learn from them. ASHA's brackets and the accounts of device time start empty: scores on other data would stop
trials wrongly. The copy makes the study independent of what becomes of the other one.
"""

import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search_spaces.config import Value
from search_spaces.errors import UserInputError
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, Parameter
from study.spec.study_spec import StudySpec
from study.state.budget_extensions import extended_spec, launched_spec
from study.state.checksums import read_sealed_json, write_sealed_json
from study.state.paths import WARM_START, open_study
from study.state.record_book import RecordBook
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, TrialState
from trainables.records.store import Store


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EarlierTrial(_Strict):
    """One finished trial of another study, as the sampler hears of it.

    Attributes:
        trial_id: its id there.
        arm: its arm.
        hyperparameters: its configuration.
        state: COMPLETE, PRUNED or FAILED.
        diverged: it failed because a metric was not finite.
        num_epochs: epochs that it ran.
        scores: (epoch, macro-F1) of every epoch before it diverged.
    """

    trial_id: str
    arm: str
    hyperparameters: dict[str, float | int | str | bool]
    state: TrialState = Field(strict=False)
    diverged: bool
    num_epochs: int
    scores: tuple[tuple[int, float], ...]


class WarmStart(_Strict):
    """What warm_start.json holds: where the trials come from, and the trials in the order in which they ended."""

    study: str
    root: str
    trials: tuple[EarlierTrial, ...]


def collect_warm_start(spec: StudySpec, storage: str | None) -> WarmStart | None:
    """Return the trials of the study that `search.warm_start` names; None where it names none.

    Trials that crashed are left out. Where the other study ran another number of epochs, so are those that were pruned:
    their scores belong to another schedule.

    Raises UserInputError if there is no such study, if its space is another one, or if no trial of it can be used.
    """
    if spec.search.warm_start is None:
        return None
    store = open_study(spec.search.warm_start, storage)
    other = extended_spec(store, launched_spec(store))
    difference = describe_difference(other, spec)
    if difference:
        raise UserInputError(f"search.warm_start must name a study of the same space, but in {store.root} {difference}")
    usable = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED}
    if other.search.max_epochs != spec.search.max_epochs:
        usable.remove(TrialState.PRUNED)
    records = [
        r
        for r in RecordBook(store).of_stage("search")
        if r.state in usable and (r.diverged or r.state is not TrialState.FAILED)
    ]
    if not records:
        raise UserInputError(f"search.warm_start names {store.root}, but no finished trial of it can be used")
    records.sort(key=lambda r: r.ended_order or 0)
    return WarmStart(study=other.name, root=store.root, trials=tuple(_earlier(r) for r in records))


def describe_difference(other: StudySpec, spec: StudySpec) -> str:
    """Return in words where the space of `other` first differs from that of `spec`, or ""."""
    theirs = {arm.name: arm.space for arm in other.arms()}
    ours = {arm.name: arm.space for arm in spec.arms()}
    if set(theirs) != set(ours):
        return f"the arms are {sorted(theirs)}, here {sorted(ours)}"
    for arm, space in ours.items():
        their_fixed, our_fixed = dict(theirs[arm].fixed), dict(space.fixed)
        their_parameters = {p.name: p for p in theirs[arm].parameters}
        our_parameters = {p.name: p for p in space.parameters}
        for name in sorted({*their_fixed, *our_fixed, *their_parameters, *our_parameters}):
            there = _describe(name, their_parameters, their_fixed)
            here = _describe(name, our_parameters, our_fixed)
            if there != here:
                return f"{name} is {there}, here {here}"
    return ""


def write_warm_start(store: Store, warm_start: WarmStart) -> None:
    """Write warm_start.json of a new study."""
    write_sealed_json(store, WARM_START, warm_start.model_dump(mode="json"))


def read_warm_start(store: Store) -> WarmStart | None:
    """Return the study's warm start, None if it has none; raise DamagedFileError if it cannot be read."""
    if not store.exists(WARM_START):
        return None
    try:
        return WarmStart.model_validate_json(json.dumps(read_sealed_json(store, WARM_START)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedFileError(f"{store.root}/{WARM_START} is damaged: {place}: {first['msg']}") from None


def earlier_trials(store: Store) -> Sequence[EarlierTrial]:
    """Return the trials that the study's samplers start from; none without a warm start."""
    warm_start = read_warm_start(store)
    return warm_start.trials if warm_start else ()


def _earlier(record: TrialRecord) -> EarlierTrial:
    reported = record.epochs[:-1] if record.diverged else record.epochs
    return EarlierTrial(
        trial_id=record.trial_id,
        arm=record.config.arm,
        hyperparameters=dict(record.config.hyperparameters),
        state=record.state,
        diverged=record.diverged,
        num_epochs=len(record.epochs),
        scores=tuple((e.epoch, e.macro_f1) for e in reported if e.macro_f1 is not None),
    )


def _describe(name: str, parameters: dict[str, Parameter], fixed: dict[str, Value]) -> str:
    if name in fixed:
        return f"fixed at {fixed[name]!r}"
    parameter = parameters.get(name)
    if parameter is None:
        return "absent"
    if isinstance(parameter, CategoricalParameter):
        words = f"one of {list(parameter.choices)}"
    else:
        assert isinstance(parameter, FloatParameter | IntParameter)
        log = "log " if isinstance(parameter, FloatParameter) and parameter.log else ""
        words = f"{log}[{parameter.low}, {parameter.high}]"
    condition = parameter.condition
    return words + (f" where {condition.parent} is one of {list(condition.values)}" if condition else "")

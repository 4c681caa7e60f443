"""Warm start: finished trials of another study of the same space, copied into this study for its samplers.

Only the samplers use them. ASHA's brackets and the device-time accounts start empty, because scores on other data would stop
the wrong trials. The copy makes the study independent of later changes to the other one.
"""

import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from search_spaces.errors import UserInputError
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, Parameter, SearchSpace
from study.spec.study_spec import StudySpec
from study.state.budget_extensions import extended_spec, launched_spec
from study.state.paths import WARM_START, open_study
from study.state.record_book import RecordBook
from study.state.sealed_files import read_sealed_json, write_sealed_json
from trainables.damaged_files import decoding
from trainables.records.record import TrialRecord, TrialState
from trainables.storage.store import Store


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EarlierTrial(_Strict):
    """One finished trial of another study, as it is reported to the sampler.

    Attributes:
        trial_id: its id in the other study.
        arm: its arm.
        hyperparameters: its searched and fixed hyperparameters.
        state: COMPLETE, PRUNED or FAILED.
        diverged: whether it failed because a metric was not finite.
        num_epochs: the number of epochs that it was trained for.
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
    """The content of warm_start.json.

    Attributes:
        study: name of the other study.
        root: its root.
        trials: its trials in the order in which they ended.
        note: why it was not checked whether the other study searched on this study's test images; "" if it was.
    """

    study: str
    root: str
    trials: tuple[EarlierTrial, ...]
    note: str = ""


def collect_warm_start(spec: StudySpec, storage: str | None) -> WarmStart | None:
    """Return the finished trials of the study that `search.warm_start` names.

    Trials that failed without diverging are left out. If the other study has another number of epochs, pruned trials are left
    out too, because their scores belong to another learning-rate schedule.

    Args:
        spec: the spec of the new study.
        storage: the storage root; None for the default.

    Returns:
        The trials; None if `search.warm_start` is not set.

    Raises:
        UserInputError: if the study does not exist, its search space differs, or none of its trials can be used.
    """
    if spec.search.warm_start is None:
        return None
    store = open_study(spec.search.warm_start, storage)
    other = extended_spec(store, launched_spec(store))
    difference = describe_difference(other, spec)
    if difference:
        raise UserInputError(f"search.warm_start must name a study of the same space, but in {store.root} {difference}")
    usable = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED}
    if {other.max_epochs(arm) for arm in other.arms()} != {spec.max_epochs(arm) for arm in spec.arms()}:
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
    """Return a description of the first difference between the search spaces of two specs; "" if they are equal."""
    theirs = {arm.name: arm.space for arm in other.arms()}
    ours = {arm.name: arm.space for arm in spec.arms()}
    if set(theirs) != set(ours):
        return f"the arms are {sorted(theirs)}, here {sorted(ours)}"
    for arm, space in ours.items():
        there, here = _describe_space(theirs[arm]), _describe_space(space)
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                return f"{name} is {there.get(name, 'absent')}, here {here.get(name, 'absent')}"
    return ""


def write_warm_start(store: Store, warm_start: WarmStart) -> None:
    """Write warm_start.json of a new study."""
    write_sealed_json(store, WARM_START, warm_start.model_dump(mode="json"))


def read_warm_start(store: Store) -> WarmStart | None:
    """Return the study's warm start, None if it has none; raise DamagedFileError if it cannot be read."""
    if not store.exists(WARM_START):
        return None
    with decoding(store.locate(WARM_START)):
        return WarmStart.model_validate_json(json.dumps(read_sealed_json(store, WARM_START)))


def earlier_trials(store: Store) -> Sequence[EarlierTrial]:
    """Return the trials from which the study's samplers start; none without a warm start."""
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


def _describe_space(space: SearchSpace) -> dict[str, str]:
    """Return what each parameter and setting of a space may be, in words."""
    fixed = {name: f"fixed at {value!r}" for name, value in space.fixed}
    return {parameter.name: _describe(parameter) for parameter in space.parameters} | fixed


def _describe(parameter: Parameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        words = f"one of {list(parameter.choices)}"
    else:
        assert isinstance(parameter, FloatParameter | IntParameter)
        log = "log " if isinstance(parameter, FloatParameter) and parameter.log else ""
        words = f"{log}[{parameter.low}, {parameter.high}]"
    condition = parameter.condition
    return words + (f" where {condition.parent} is one of {list(condition.values)}" if condition else "")

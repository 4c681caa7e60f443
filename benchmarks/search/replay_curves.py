"""The recorded learning curves, and configurations as points of the unit cube and as features of a regressor."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search_spaces.config import Value
from search_spaces.errors import UserInputError
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, Parameter, SearchSpace
from study.spec.reading import parse_spec
from study.spec.study_spec import StudySpec

CURVES = Path(__file__).parent / "curves"
PARQUET = CURVES / "cifar10_small.parquet"
MADE = b"abstudy.made"
FloatArray = NDArray[np.float64]
Hyperparameters = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The recorded curves of one arm.

    Attributes:
        hyperparameters: n dictionaries; a parameter that does not apply is absent.
        macro_f1: (n, E) on the search split, in [0, 1]; NaN from the epoch at which a trial diverged.
        cpu_seconds: (n, E) seconds per epoch of one thread, the first with the model's set-up; NaN after a trial's end.
    """

    hyperparameters: tuple[Hyperparameters, ...]
    macro_f1: FloatArray
    cpu_seconds: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file of recorded curves.

    Attributes:
        spec: of the trainings.
        arms: curves of every arm.
    """

    spec: StudySpec
    arms: Mapping[str, Curves]


def load_curves(path: Path = PARQUET) -> Recording:
    """Read a file of `benchmarks.search.record_curves.write_parquet`; raise UserInputError if it does not exist."""
    if not path.is_file():
        raise UserInputError(
            f"there are no curves at {path}; record them with python -m benchmarks.search.record_curves"
        )
    table = pq.read_table(path)
    made = json.loads(table.schema.metadata[MADE])
    spec = parse_spec(made["spec"], where=str(path))
    frame = table.to_pandas()
    names = spec.search_space().names
    arms = {arm.name: _curves_of(frame[frame["arm"] == arm.name], names) for arm in spec.arms()}
    return Recording(spec=spec, arms=arms)


def _curves_of(frame: pd.DataFrame, names: tuple[str, ...]) -> Curves:
    def by_epoch(column: str) -> FloatArray:
        return frame.pivot(index="trial", columns="epoch", values=column).to_numpy(dtype=np.float64)

    first = frame.sort_values(["trial", "epoch"]).drop_duplicates("trial")
    hyperparameters = tuple(
        {name: row[name] for name in names if pd.notna(row[name])} for row in first.to_dict(orient="records")
    )
    return Curves(hyperparameters=hyperparameters, macro_f1=by_epoch("macro_f1"), cpu_seconds=by_epoch("cpu_seconds"))


def encode(space: SearchSpace, hyperparameters: Hyperparameters) -> FloatArray:
    """Return the (d,) features, each in [0, 1], of one configuration of `space`."""
    columns: list[float] = []
    for parameter in space.parameters:
        value = hyperparameters.get(parameter.name)
        if isinstance(parameter, CategoricalParameter):
            columns += [float(value == choice) for choice in parameter.choices]
        else:
            columns.append(0.0 if value is None else _to_unit(parameter, float(value)))
    return np.array(columns)


def _to_unit(parameter: Parameter, value: float) -> float:
    assert not isinstance(parameter, CategoricalParameter)
    if getattr(parameter, "log", False):
        return float(np.log(value / parameter.low) / np.log(parameter.high / parameter.low))
    return (value - parameter.low) / (parameter.high - parameter.low)


def place_in_space(space: SearchSpace, point: FloatArray) -> dict[str, Value]:
    """Return the configuration at a point of the unit cube, which has one coordinate per parameter of `space`."""
    chosen: dict[str, Value] = dict(space.fixed)
    for parameter, u in zip(space.parameters, point, strict=True):
        if parameter.applies(chosen):
            chosen[parameter.name] = _quantile(parameter, float(u))
    return chosen


def _quantile(parameter: Parameter, u: float) -> Value:
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[min(int(u * len(parameter.choices)), len(parameter.choices) - 1)]
    if isinstance(parameter, IntParameter):
        return min(parameter.low + int(u * (parameter.high - parameter.low + 1)), parameter.high)
    assert isinstance(parameter, FloatParameter)
    if parameter.log:
        return math.exp(math.log(parameter.low) + u * math.log(parameter.high / parameter.low))
    return parameter.low + u * (parameter.high - parameter.low)

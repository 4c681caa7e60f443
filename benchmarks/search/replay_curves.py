"""The recorded learning curves, and configurations as points that a regressor can work on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.search.record_curves import MADE, PARQUET
from search_spaces.config import Value
from search_spaces.errors import UserInputError
from search_spaces.space import CategoricalParameter, Parameter, SearchSpace
from study.spec.reading import parse_spec
from study.spec.study_spec import StudySpec

FloatArray = NDArray[np.float64]
Hyperparameters = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The recorded curves of one arm.

    Attributes:
        hyperparameters: n dictionaries; a parameter that does not apply is absent.
        macro_f1: (n, E) on the search split, in [0, 1]; NaN from the epoch at which a trial diverged.
        cpu_seconds: (n, E) seconds per epoch of one thread, the first with the model's set-up; NaN where not run.
    """

    hyperparameters: tuple[Hyperparameters, ...]
    macro_f1: FloatArray
    cpu_seconds: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A file of recorded curves: the spec that they were trained under, and the curves of every arm."""

    spec: StudySpec
    arms: Mapping[str, Curves]


def load_curves(path: Path = PARQUET) -> Recording:
    """Read what `benchmarks.search.record_curves.write_parquet` wrote; raise UserInputError if it is not there."""
    if not path.is_file():
        raise UserInputError(
            f"there are no recorded curves at {path}; make them with python -m benchmarks.search.record_curves"
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


def encode_points(space: SearchSpace, points: FloatArray) -> FloatArray:
    """Return the (n, d) features of points (n, p) of the unit cube, one coordinate per parameter of `space`."""
    blocks: dict[str, FloatArray] = {}
    levels: dict[str, NDArray[np.int64]] = {}
    for parameter, column in zip(space.parameters, points.T, strict=True):
        if isinstance(parameter, CategoricalParameter):
            levels[parameter.name] = np.minimum(
                (column * len(parameter.choices)).astype(int), len(parameter.choices) - 1
            )
            block = np.eye(len(parameter.choices))[levels[parameter.name]]
        else:
            block = column[:, None]
        if parameter.condition is not None and parameter.condition.parent in levels:
            parent = space[parameter.condition.parent]
            assert isinstance(parent, CategoricalParameter)
            applies = np.array([choice in parameter.condition.values for choice in parent.choices])
            block = block * applies[levels[parent.name]][:, None]
        blocks[parameter.name] = block
    return np.hstack(list(blocks.values()))

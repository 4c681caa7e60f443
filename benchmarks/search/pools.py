"""Pools of recorded trainings as landscapes of a search, without any model of them.

A suggestion becomes the nearest recorded configuration that the search has not taken yet, by Euclidean distance over the unit
cube of the transformed space (logarithms of log parameters, a column per level of a categorical). Its curve is seen as recorded.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from benchmarks.search.replay_curves import CURVES, FloatArray, encode, load_curves
from search_spaces.config import Value
from search_spaces.designs import POOLED_ARM, Arm
from search_spaces.errors import UserInputError
from study.spec.study_spec import StudySpec

# A loss becomes the score 1 - min(loss, c) / c with this c: twice the loss of guessing one of two classes.
WORST_LOSS = 2 * math.log(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolArm:
    """The recorded configurations of one arm, in their order.

    Attributes:
        hyperparameters: n of them, with the values that the arm fixes and `max_epochs`, their own number of points.
        features: (n, d) in the unit cube.
        curves: n arrays of scores in [0, 1], one per point; NaN from the one at which a training diverged.
        seconds: n arrays of what each point costs, in units of the recording.
        truth: (n,) scores by which a choice is judged, 0 where the training diverged.
        guessing: the score of guessing; a training that does not end above it has failed.
    """

    hyperparameters: tuple[Mapping[str, Value], ...]
    features: FloatArray
    curves: tuple[FloatArray, ...]
    seconds: tuple[FloatArray, ...]
    truth: FloatArray
    guessing: float

    @property
    def full_seconds(self) -> float:
        """The mean cost of a training to its end."""
        return float(np.mean([seconds.sum() for seconds in self.seconds]))

    @property
    def failed_fraction(self) -> float:
        """Of the configurations whose training diverges or does not end above guessing."""
        return float(np.mean([not curve[-1] > self.guessing for curve in self.curves]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What one search can take its trials from.

    Attributes:
        name: of the pool.
        spec: of the trainings; only their space is read where others recorded them.
        arms_by_name: the arms.
        recorded_by: who, in words.
        trials: numbers of full trials per arm after which a choice is judged; the last one is the budget.
        use: whether the default was chosen on it, or it is kept to confirm the choice.
    """

    name: str
    spec: StudySpec
    arms_by_name: Mapping[str, PoolArm]
    recorded_by: str
    trials: tuple[int, ...]
    use: Literal["choosing", "kept"]

    @property
    def is_large(self) -> bool:
        """Whether it has 1,000 configurations, so that a search takes few of them."""
        return self.trials == LARGE

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""
        return tuple(self.arms_by_name)

    def seconds(self, arm: str) -> FloatArray:
        """Return the mean cost of a training of an arm, as an array of one."""
        return np.array([self.arms_by_name[arm].full_seconds])


MNLI, TASKSET = "Lourie, Cho and He 2023 (opda), CC BY-SA 4.0", "Metz et al. 2020 (TaskSet), as stored by DyHPO"
OURS = "this project"
LARGE, SMALL, SMALLEST = (10, 20, 40), (5, 10, 20), (3, 5, 10)
# Range of each parameter of DeBERTa: that from which it was drawn.
MNLI_SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": {"kind": "log", "low": 1e-6, "high": 1e-3},
    "warmup_fraction": {"kind": "float", "low": 0.0, "high": 0.6},
    "classifier_dropout": {"kind": "float", "low": 0.0, "high": 0.3},
    "batch_size": {"kind": "int", "low": 16, "high": 64},
    "num_epochs": {"kind": "int", "low": 1, "high": 4},
}
# TaskSet draws the distances of the betas to 1 log-uniformly.
TASKSET_COLUMNS = ("learning_rate", "beta1", "beta2", "epsilon", "l1", "l2", "linear_decay", "exponential_decay")


@cache
def load_pool(name: str) -> Pool:
    """Return a pool of `POOLS`; raise UserInputError if its file is not there."""
    recorded_by, file, trials, use = POOLS[name]
    others = Path(os.environ.get("STUDY_DATA", ".")) / "data" / "curves"
    path = (CURVES if recorded_by == OURS else others) / file
    if not path.is_file():
        raise UserInputError(f"there is no recording {path}; set STUDY_DATA to the folder that has data/curves")
    make = {MNLI: _read_mnli, TASKSET: _read_taskset, OURS: _read_own}[recorded_by]
    spec, arms = make(path)
    return Pool(name=name, spec=spec, arms_by_name=arms, recorded_by=recorded_by, trials=trials, use=use)


POOLS: dict[str, tuple[str, str, tuple[int, ...], Literal["choosing", "kept"]]] = {
    "deberta": (MNLI, "deberta_mnli.parquet", LARGE, "choosing"),
    "patch32": (TASKSET, "taskset_imdb_patch32_LSTM128_bs128.parquet", LARGE, "choosing"),
    "cifar10": (OURS, "cifar10_small.parquet", SMALL, "choosing"),
    "diverging": (OURS, "cifar10_diverging.parquet", SMALLEST, "choosing"),
    "patch128": (TASKSET, "taskset_imdb_patch128_LSTM128_embed128_bs64.parquet", LARGE, "kept"),
    "refuse": (OURS, "refuse_small.parquet", SMALL, "kept"),
}


def _read_mnli(path: Path) -> tuple[StudySpec, dict[str, PoolArm]]:
    """Read accuracies on `matched`, with those on `mismatched` as the truth; a point costs its steps times the batch size."""
    frame = pd.read_parquet(path).sort_values(["arm", "config", "step"])
    factor = {"arm": {"kind": "categorical", "choices": sorted(frame["arm"].unique())}}
    spec = _make_spec("deberta", {**factor, **MNLI_SPACE}, allocation="per_arm")
    arms = {}
    for arm in spec.arms():
        groups = [rows for _, rows in frame[frame["arm"] == arm.name].groupby("config")]
        arms[arm.name] = _make_arm(
            arm,
            [rows[list(MNLI_SPACE)].to_dict("records")[0] for rows in groups],
            curves=[rows["matched"].to_numpy() for rows in groups],
            seconds=[np.diff(rows["step"], prepend=0) * float(rows["batch_size"].iloc[0]) for rows in groups],
            truth=[rows["mismatched"].iloc[-1] for rows in groups],
            guessing=0.4,
        )
    return spec, arms


def _read_taskset(path: Path) -> tuple[StudySpec, dict[str, PoolArm]]:
    """Read validation losses, with test losses as the truth; every point costs the same."""
    frame = pd.read_parquet(path).sort_values(["config", "point"])
    frame[["beta1", "beta2"]] = 1 - frame[["beta1", "beta2"]]
    ends = frame[list(TASKSET_COLUMNS)].agg(["min", "max"])
    space = {name: {"kind": "log", "low": float(ends[name]["min"]), "high": float(ends[name]["max"])} for name in ends}
    spec = _make_spec("taskset", space, allocation="pooled")
    groups = [rows for _, rows in frame.groupby("config")]
    curves = [_to_scores(rows["valid_loss"]) for rows in groups]
    arm = _make_arm(
        spec.arms()[0],
        [rows[list(TASKSET_COLUMNS)].to_dict("records")[0] for rows in groups],
        curves=curves,
        seconds=[np.ones(len(curve)) for curve in curves],
        truth=[_to_scores(rows["test_loss"])[-1] for rows in groups],
        guessing=0.5,
    )
    return spec, {POOLED_ARM: arm}


def _to_scores(losses: "pd.Series[float]") -> FloatArray:
    values = losses.to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), 1 - np.minimum(values, WORST_LOSS) / WORST_LOSS, np.nan)


def _read_own(path: Path) -> tuple[StudySpec, dict[str, PoolArm]]:
    """Read macro-F1, which is the truth as well; an epoch costs the CPU-seconds of its training."""
    recording = load_curves(path)
    arms = {}
    for arm in recording.spec.arms():
        curves = recording.arms[arm.name]
        typical = np.nanmedian(curves.cpu_seconds, axis=0)
        seconds = np.where(np.isfinite(curves.cpu_seconds), curves.cpu_seconds, typical)
        own = [
            {name: value for name, value in one.items() if name in arm.space.names} for one in curves.hyperparameters
        ]
        truth, guessing = np.nan_to_num(curves.macro_f1[:, -1]), 0.1
        arms[arm.name] = _make_arm(arm, own, curves=curves.macro_f1, seconds=seconds, truth=truth, guessing=guessing)
    return recording.spec, arms


def _make_spec(name: str, space: Mapping[str, Any], *, allocation: str) -> StudySpec:
    search = {"factor": "arm", "allocation": allocation, "space": dict(space)}
    train = {"trainable": "recorded"}
    return StudySpec.model_validate({"name": name, "data": {"source": "planted"}, "train": train, "search": search})


def _make_arm(
    arm: Arm, searched: list[dict[str, Any]], *, curves: Any, seconds: Any, truth: Any, guessing: float
) -> PoolArm:
    hyperparameters = []
    for one, curve in zip(searched, curves, strict=True):
        values = {name: arm.space[name].check(value) for name, value in one.items()}
        hyperparameters.append({**dict(arm.space.fixed), **values, "max_epochs": len(curve)})
    return PoolArm(
        hyperparameters=tuple(hyperparameters),
        features=np.array([encode(arm.space, one) for one in hyperparameters]),
        curves=tuple(np.asarray(curve, dtype=np.float64) for curve in curves),
        seconds=tuple(np.asarray(one, dtype=np.float64) for one in seconds),
        truth=np.nan_to_num(np.asarray(truth, dtype=np.float64)),
        guessing=guessing,
    )

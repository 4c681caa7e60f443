"""One search of a pool of recorded trainings, by this product's director or by Ray's own classes, one trial at a time."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna

from benchmarks.search.pools import Pool, load_pool
from benchmarks.search.replay_curves import encode
from benchmarks.search.replay_sides import OurSide, Setting, StockSide, full_trial_seconds, make_asha
from benchmarks.search.replay_simulation import Side, Started
from search_spaces.config import Value
from search_spaces.designs import Arm
from search_spaces.distributions import to_distribution
from study.scheduling.sampler import ArmSampler
from study.scheduling.search_director import SearchDirector
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSearch:
    """A way to search a pool."""

    pool: str
    setting: Setting


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial of a search, in the order in which they ended.

    Attributes:
        arm: its arm.
        number: of its configuration in the arm's pool.
        num_points: after which it ended.
        seconds: that it cost, in the units of the pool.
        score: the last one; None where it was not finite.
        is_full: whether it ran to its end.
    """

    arm: str
    number: int
    num_points: int
    seconds: float
    score: float | None
    is_full: bool


class PoolEmptyError(Exception):
    """Every configuration of an arm was taken, which ends the search."""


class Taking:
    """The configurations that a search has taken from its pool.

    Attributes:
        taken: arm and number of the configuration of every trial.
    """

    def __init__(self, pool: Pool) -> None:
        """Take none yet."""
        self.taken: dict[str, tuple[str, int]] = {}
        self._pool = pool
        self._is_used = {name: np.zeros(len(arm.truth), dtype=bool) for name, arm in pool.arms_by_name.items()}

    def take(self, trial_id: str, arm: Arm, suggested: Mapping[str, Value]) -> dict[str, Value]:
        """Return the nearest configuration that was not taken yet, with the number of its points as `max_epochs`."""
        recorded = self._pool.arms_by_name[arm.name]
        if self._is_used[arm.name].all():
            raise PoolEmptyError
        distances = np.sum((recorded.features - encode(arm.space, suggested)) ** 2, axis=1)
        number = int(np.argmin(np.where(self._is_used[arm.name], np.inf, distances)))
        self._is_used[arm.name][number] = True
        self.taken[trial_id] = arm.name, number
        return dict(recorded.hyperparameters[number])


class _TakingSampler:
    """A sampler of the product that goes on from the configurations which are taken in place of its suggestions."""

    def __init__(self, sampler: ArmSampler, arm: Arm, taking: Taking) -> None:
        self._sampler, self._arm, self._taking = sampler, arm, taking

    def suggest(self, trial_id: str) -> dict[str, Value]:
        taken = self._taking.take(trial_id, self._arm, self._sampler.suggest(trial_id))
        self._sampler.go_on_from(trial_id, taken)
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


class PoolSide(Protocol):
    """A side of `benchmarks.search.replay_simulation` that takes its trials from a pool."""

    taking: Taking


class OurPoolSide(OurSide):
    """The product's search director."""

    def __init__(self, spec: StudySpec, pool: Pool) -> None:
        """Search by `spec.search`."""
        self.book, self.taking = MemoryBook(), Taking(pool)
        # What others recorded has no schedule of ours, and so no peak of the learning rate.
        fixed: dict[str, Value] = {"trainable": spec.train.trainable}
        self._director = SearchDirector(self.book, spec, fixed, full_trial_seconds=full_trial_seconds(pool))
        samplers: dict[str, Any] = self._director._samplers
        for arm in spec.arms():
            samplers[arm.name] = _TakingSampler(samplers[arm.name], arm, self.taking)


class StockPoolSide(StockSide):
    """Ray's `OptunaSearch` and `ASHAScheduler`."""

    def __init__(self, spec: StudySpec, pool: Pool, *, budget_seconds: float) -> None:
        """Search `spec`'s arms with `spec.seed`; a trial has as many points as its configuration."""
        super().__init__(spec, pool, budget_seconds=budget_seconds)
        self.taking = Taking(pool)

    def take(self, trial_id: str, arm: Arm, suggested: Mapping[str, Value]) -> Mapping[str, Value]:
        """Give the trial in Optuna's study the values of the configuration that is taken."""
        taken, search = self.taking.take(trial_id, arm, suggested), self.searches[arm.name]
        frozen = search._ot_study.get_trials(deepcopy=False)[search._ot_trials[trial_id].number]
        searched = [parameter for parameter in arm.space.parameters if parameter.name in taken]
        frozen.params = {parameter.name: taken[parameter.name] for parameter in searched}
        frozen.distributions = {parameter.name: to_distribution(parameter) for parameter in searched}
        return taken


def make_pool_spec(pool: Pool, setting: Setting, seed: int) -> StudySpec:
    """Return the spec of a search: its way to search, and a budget of the pool's full trials in every arm."""
    data = pool.spec.model_dump(exclude_none=True)
    search = {name: value for name, value in data["search"].items() if name not in ("num_trials", "start")}
    budget = pool.trials[-1] * sum(arm.full_seconds for arm in pool.arms_by_name.values())
    search |= {"device_seconds": budget, "max_epochs": max(map(len, _list_curves(pool)))}
    if not setting.has_portfolio:
        search["start"] = []
    if setting.side == "ours":
        search |= {"sampler": setting.sampler, **make_asha(search["asha"], setting)}
    return StudySpec.model_validate(data | {"seed": seed, "search": search})


def run_search(search: PoolSearch, seed: int) -> tuple[Trial, ...]:
    """Return the trials of one search; everything random in it derives from `seed`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pool = load_pool(search.pool)
    spec = make_pool_spec(pool, search.setting, seed)
    if search.setting.side == "ours":
        side: Any = OurPoolSide(spec, pool)
    else:
        side = StockPoolSide(spec, pool, budget_seconds=float(spec.search.device_seconds or 0))
    trials = []
    with suppress(PoolEmptyError):
        while (started := side.next_trial()) is not None:
            trials.append(_run_trial(side, started, pool))
    return tuple(trials)


def _run_trial(side: Side, started: Started, pool: Pool) -> Trial:
    arm, number = side.taking.taken[started.trial_id]
    recorded = pool.arms_by_name[arm]
    curve, seconds = recorded.curves[number], recorded.seconds[number]
    point = 0
    is_continued = True
    while is_continued and point < len(curve):
        is_continued = side.on_report(started.trial_id, point + 1, float(curve[point]), float(seconds[point]))
        point += 1
    last = float(curve[point - 1])
    spent = float(seconds[:point].sum())
    is_full = point == len(curve) and bool(np.isfinite(last))
    return Trial(arm, number, point, spent, last if np.isfinite(last) else None, is_full)


def _list_curves(pool: Pool) -> list[Any]:
    return [curve for arm in pool.arms_by_name.values() for curve in arm.curves]

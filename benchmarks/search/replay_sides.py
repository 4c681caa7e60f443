"""The two sides of the replay: this product's search director, and Ray Tune's OptunaSearch with ASHAScheduler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.search.curve_surrogate import CurveSurrogate
from benchmarks.search.replay_curves import Hyperparameters
from benchmarks.search.replay_simulation import Side, Started
from search_spaces.config import Value
from search_spaces.designs import POOLED_ARM, Arm
from search_spaces.distributions import suggest_hyperparameters
from search_spaces.space import SearchSpace
from study.scheduling.budget import DeviceTimeLedger
from study.scheduling.search_director import SearchDirector
from study.spec.reading import validate_spec
from study.spec.sections import SearchSpec
from study.spec.starts import list_starts
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from trainables.records.record import EpochReport, best_trials
from trainables.training.epoch_metrics import EpochMetrics

METRIC = "macro_f1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to search.

    Attributes:
        side: "ours", or "stock" for Ray's OptunaSearch and ASHAScheduler with their defaults.
        sampler, allocation: as in [search]; stock has Optuna's default TPE, in one study for all arms or in one per arm.
        asha: whether trials are pruned.
        has_portfolio: whether each arm first tries the published recipes of `search_spaces.portfolios`.
        prior: (parameter, center, width) of each prior.
        rung_part: of a full trial's epochs, after which ASHA's first rung lies; None for the default.
    """

    side: Literal["ours", "stock"]
    sampler: str
    allocation: str
    asha: bool
    has_portfolio: bool = False
    prior: tuple[tuple[str, float, float], ...] = ()
    rung_part: float | None = None


STOCK = Setting(side="stock", sampler="tpe", allocation="pooled", asha=True)
STOCK_PER_ARM = Setting(side="stock", sampler="tpe", allocation="per_arm", asha=True)
STOCK_WITH_PORTFOLIO = replace(STOCK, has_portfolio=True)


def full_trial_seconds(landscape: CurveSurrogate) -> dict[str, float]:
    """Return the device-seconds of a full trial of each arm, and their mean under the name of a pooled search's arm."""
    costs = {arm: float(landscape.seconds(arm).sum()) for arm in landscape.arms}
    return {**costs, POOLED_ARM: sum(costs.values()) / len(costs)}


def make_report(epoch: int, macro_f1: float, device_seconds: float, num_classes: int) -> EpochReport:
    """Return the report of one epoch; what the curves do not hold is made up."""
    made_up = dict.fromkeys(("train_loss", "search_loss", "train_images_per_second", "head_lr", "backbone_lr"), 1.0)
    metrics = EpochMetrics(
        **made_up,
        epoch=epoch,
        macro_f1=macro_f1,
        per_class_f1=(macro_f1,) * num_classes,
        train_seconds=device_seconds,
        evaluate_seconds=0.0,
        peak_memory_bytes=0,
    )
    return EpochReport(metrics=metrics, device_seconds=device_seconds)


class OurSide:
    """The product's own search director, with records in memory."""

    def __init__(self, spec: StudySpec, landscape: CurveSurrogate) -> None:
        """Search by `spec.search`."""
        self.book = MemoryBook()
        self._director = SearchDirector(
            self.book, spec, {"max_epochs": spec.search.max_epochs}, full_trial_seconds=full_trial_seconds(landscape)
        )

    def next_trial(self) -> Started | None:
        """Return the director's next trial."""
        record = self._director.next_trial()
        if record is None:
            return None
        return Started(trial_id=record.trial_id, hyperparameters=record.config.hyperparameters)

    def on_report(self, trial_id: str, epoch: int, macro_f1: float, device_seconds: float) -> bool:
        """Report one epoch to the director, in the form that a trial's actor sends."""
        return self._director.on_report(trial_id, make_report(epoch, macro_f1, device_seconds, num_classes=0))

    def choose(self) -> Hyperparameters | None:
        """Return the best of the trials that ran every epoch, over all arms."""
        records = self.book.of_stage("search")
        arms = {record.config.arm for record in records}
        best = [ranked[0] for arm in sorted(arms) if (ranked := best_trials(records, arm))]
        return max(best, key=lambda r: r.last_macro_f1 or 0.0).config.hyperparameters if best else None


@dataclass(frozen=True, slots=True)
class _TrialHandle:
    """The attribute of a Ray trial that ASHAScheduler reads."""

    trial_id: str


class StockSide:
    """OptunaSearch and ASHAScheduler with their defaults, called as Ray's TuneController calls them.

    `TuneController._process_trial_result` (Ray 2.60) asks the scheduler first. If the trial continues, the searcher gets the
    result; if it stops, `stop_trial` completes the trial in both with that result, which the searcher does not get as an
    intermediate value. The choice is that of `ResultGrid.get_best_result`: the first trial with the highest last value, stopped
    or not. Tune has no budget of device-seconds; the ledger is this product's. With `search.allocation = "per_arm"`, each arm
    has a searcher, a scheduler and an equal part of the budget, as in one Tune run per arm.
    """

    def __init__(self, spec: StudySpec, landscape: CurveSurrogate, *, budget_seconds: float) -> None:
        """Search `spec`'s arms with `spec.seed`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._arms = {arm.name: arm for arm in spec.arms()}
        points = {name: [start.hyperparameters for start in list_starts(spec, arm)] for name, arm in self._arms.items()}
        self.searches = {
            name: _make_stock_search(arm.space, spec.seed, points[name]) for name, arm in self._arms.items()
        }
        self.schedulers = {
            name: ASHAScheduler(metric=METRIC, mode="max", max_t=spec.search.max_epochs) for name in self._arms
        }
        self._costs, self._budget_seconds = full_trial_seconds(landscape), budget_seconds
        self._finished: dict[str, list[float]] = {name: [] for name in self._arms}
        self._arm_of: dict[str, str] = {}
        self._hyperparameters: dict[str, Hyperparameters] = {}
        self._last: dict[str, float] = {}
        self._spent: dict[str, float] = {}

    def next_trial(self) -> Started | None:
        """Return a configuration of a searcher, if the budget allows for a trial."""
        running = {name: [s for i, s in self._spent.items() if self._arm_of[i] == name] for name in self._arms}
        arm = DeviceTimeLedger(
            finished=self._finished, running=running, budget=self._budget_seconds, full_trial_seconds=self._costs
        ).choose()
        if arm is None:
            return None
        trial_id = f"{len(self._hyperparameters):05d}"
        suggested = self.searches[arm].suggest(trial_id)
        assert suggested is not None
        self._arm_of[trial_id] = arm
        chosen = {**dict(self._arms[arm].space.fixed), **suggested}
        self._hyperparameters[trial_id] = self.take(trial_id, self._arms[arm], chosen)
        self._spent[trial_id] = 0.0
        self.schedulers[arm].on_trial_add(None, _TrialHandle(trial_id))
        return Started(trial_id=trial_id, hyperparameters=self._hyperparameters[trial_id])

    def take(self, trial_id: str, arm: Arm, suggested: Hyperparameters) -> Hyperparameters:  # noqa: ARG002
        """Return the configuration that is trained in place of a suggestion: the same."""
        return suggested

    def on_report(self, trial_id: str, epoch: int, macro_f1: float, device_seconds: float) -> bool:
        """Pass one result on as TuneController does."""
        arm = self._arm_of[trial_id]
        search, scheduler = self.searches[arm], self.schedulers[arm]
        self._spent[trial_id] += device_seconds
        self._last[trial_id] = macro_f1
        result = {"training_iteration": epoch, METRIC: macro_f1}
        is_last = epoch == self._hyperparameters[trial_id].get("max_epochs")
        if not is_last and scheduler.on_trial_result(None, _TrialHandle(trial_id), result) != TrialScheduler.STOP:
            search.on_trial_result(trial_id, result)
            return True
        scheduler.on_trial_complete(None, _TrialHandle(trial_id), result)
        search.on_trial_complete(trial_id, result=result)
        self._finished[arm].append(self._spent.pop(trial_id))
        return False

    def choose(self) -> Hyperparameters | None:
        """Return the configuration of the trial with the highest finite last value."""
        finite = {trial_id: value for trial_id, value in self._last.items() if np.isfinite(value)}
        return self._hyperparameters[max(finite, key=lambda trial_id: finite[trial_id])] if finite else None


def _make_stock_search(space: SearchSpace, seed: int, points: Sequence[Mapping[str, Value]]) -> OptunaSearch:
    def define(trial: optuna.Trial) -> None:
        suggest_hyperparameters(space, trial)

    searched = [{name: value for name, value in point.items() if name in space.names} for point in points]
    return OptunaSearch(space=define, metric=METRIC, mode="max", seed=seed, points_to_evaluate=searched)


def make_spec(recorded: StudySpec, setting: Setting, *, budget_seconds: float, seed: int) -> StudySpec:
    """Return the recorded study's spec with another seed, budget and way to search."""
    data = recorded.model_dump(exclude_none=True)
    search = data["search"]
    search.pop("num_trials", None)
    search |= {"device_seconds": budget_seconds, "allocation": setting.allocation}
    search |= {"start": _list_portfolio(data) if setting.has_portfolio else []}
    search["prior"] = {name: {"center": center, "width": width} for name, center, width in setting.prior}
    if setting.side == "ours":
        search |= {"sampler": setting.sampler, **make_asha(search["asha"], setting)}
    return validate_spec(data | {"seed": seed}, where="replay")


def _list_portfolio(data: Mapping[str, Any]) -> list[dict[str, Value]]:
    """Return the recipes with which a search of today's defaults begins, so that one of earlier defaults begins with them too."""
    search = {name: value for name, value in data["search"].items() if name not in ("start", "asha")}
    spec = validate_spec({**data, "search": search}, where="replay")
    return [dict(start.hyperparameters) for arm in spec.arms() for start in list_starts(spec, arm)]


def make_asha(asha: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """Return what [search] says of pruning in a setting, given [search.asha] of the recorded trainings."""
    rung = {"first_rung": setting.rung_part} if setting.rung_part else {}
    return {"pruning": "asha" if setting.asha else "none", "asha": {**asha, **rung}}


def make_side(spec: StudySpec, landscape: CurveSurrogate, setting: Setting, *, budget_seconds: float) -> Side:
    """Return the search of a spec of `make_spec`."""
    if setting.side == "ours":
        return OurSide(spec, landscape)
    return StockSide(spec, landscape, budget_seconds=budget_seconds)


def default_setting() -> Setting:
    """Return the product's default way to search."""
    search = SearchSpec()
    has_asha = search.pruning == "asha"
    return Setting(side="ours", sampler=search.sampler, allocation=search.allocation, asha=has_asha, has_portfolio=True)

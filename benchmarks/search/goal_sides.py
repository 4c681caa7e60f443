"""The sides that `benchmarks.search.search_goals` compares, the landscapes that they search, and the seeds that each one has."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.parallel import run_parallel
from benchmarks.search.curve_surrogate import CurveSurrogate, RegressorKind
from benchmarks.search.replay_curves import CURVES, PARQUET, load_curves
from benchmarks.search.replay_sides import STOCK, STOCK_PER_ARM, STOCK_WITH_PORTFOLIO, Setting, default_setting
from benchmarks.search.watched_search import BUDGET_IN_FULL_TRIALS, EARLY_IN_FULL_TRIALS, Watched, watch_search
from study.spec.study_spec import StudySpec

# Landscapes beside that of the goals have a part of the seeds, and so have sides that no goal names.
PART_BESIDE, PART_OF_RIGHT_PRIOR, PART_OF_OTHERS = 15, 2, 32
MIN_SEEDS = 4
OURS, RANDOM, PLAIN_STOCK, STOCK_BY_ARM = "default", "random, portfolio", "stock", "stock, one per arm"
STOCK_PORTFOLIO = "stock, portfolio"
TPE = "tpe_multivariate"
AT_PEAK, NO_ASHA = "rungs from the peak of the learning rate on", "no ASHA"
NO_PORTFOLIO, PLAIN_RANDOM = "no portfolio", "random"
WRONG_PRIOR, RIGHT_PRIOR = "no portfolio, worst prior", "no portfolio, best prior"
# Sides of P7 and of the goals after 40 full trials; the others are simulated with `--whole` alone, in the landscape of the goals.
JUDGED = (OURS, TPE, RANDOM, PLAIN_STOCK, STOCK_BY_ARM, STOCK_PORTFOLIO)
# Sides that begin with nothing, of the goal of a wrong prior and of that against random search.
WITHOUT_PORTFOLIO = (NO_PORTFOLIO, PLAIN_RANDOM, WRONG_PRIOR)
# Sides of which the choices after 40 full trials are of interest alone, so that they end there.
CHOICES_ALONE = (STOCK_BY_ARM, STOCK_PORTFOLIO, AT_PEAK, NO_ASHA)
# Sides that are simulated where trials diverge, and there alone.
WITH_DIVERGENCE = (OURS, RANDOM, PLAIN_STOCK, TPE)
# Recorded curves of each landscape, and what models them. The first one is that of the goals. A Gaussian process is also a
# sampler, so that extra trees model the same curves beside it.
LANDSCAPES: dict[str, tuple[Path, RegressorKind]] = {
    "refuse": (CURVES / "refuse_small.parquet", "gaussian_process"),
    "refuse, extra trees": (CURVES / "refuse_small.parquet", "extra_trees"),
    "cifar10": (PARQUET, "gaussian_process"),
    "cifar10, diverging": (CURVES / "cifar10_diverging.parquet", "gaussian_process"),
}
RATES = ("max_lr", "backbone_lr_ratio")
PRIOR_WIDTH = 2.0
# Centers of the best prior that are tried, of each rate.
NUM_CENTERS = 12
Prior = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Landscape:
    """What searches are simulated on: a surrogate, the spec of the trainings, and whether goals are judged on it."""

    surrogate: CurveSurrogate
    spec: StudySpec
    has_goals: bool

    @property
    def has_divergence(self) -> bool:
        """Whether recorded trials diverged."""
        return any(quality.num_diverged for quality in self.surrogate.qualities.values())

    def count_seeds(self, side: str, num_seeds: int, *, is_whole: bool = False) -> int:
        """Return the number of searches of a side, given that of the default.

        Without `is_whole`, only those of `JUDGED` have any.
        """
        if self.has_divergence:
            is_simulated = side in WITH_DIVERGENCE and (is_whole or side in JUDGED)
            return min(num_seeds, max(MIN_SEEDS, num_seeds // PART_BESIDE)) if is_simulated else 0
        if side not in JUDGED and not (is_whole and self.has_goals):
            return 0
        parts = {**dict.fromkeys((*JUDGED, *WITHOUT_PORTFOLIO), 1), RIGHT_PRIOR: PART_OF_RIGHT_PRIOR}
        part = parts.get(side, PART_OF_OTHERS)
        return min(num_seeds, max(MIN_SEEDS, num_seeds // (part if self.has_goals else part * PART_BESIDE)))


@dataclass(frozen=True, slots=True)
class Call:
    """One search to simulate."""

    landscape: str
    side: str
    seed: int


def list_sides(worst: Prior = (), best: Prior = ()) -> dict[str, Setting]:
    """Return the sides by name; the priors are those of the sides with the worst and the best one."""
    ours = default_setting()
    plain = Setting(side="ours", sampler="random", allocation=ours.allocation, asha=False, has_portfolio=True)
    no_portfolio = replace(ours, has_portfolio=False)
    return {
        OURS: ours,
        TPE: replace(ours, sampler="tpe_multivariate"),
        RANDOM: plain,
        PLAIN_STOCK: STOCK,
        STOCK_BY_ARM: STOCK_PER_ARM,
        STOCK_PORTFOLIO: STOCK_WITH_PORTFOLIO,
        NO_PORTFOLIO: no_portfolio,
        PLAIN_RANDOM: replace(plain, has_portfolio=False),
        WRONG_PRIOR: replace(no_portfolio, prior=worst),
        RIGHT_PRIOR: replace(no_portfolio, prior=best),
        AT_PEAK: replace(ours, rung_part=0.3),
        NO_ASHA: replace(ours, asha=False),
    }


def find_worst_prior(landscape: CurveSurrogate, recorded: StudySpec) -> Prior:
    """Return priors of both learning rates where the landscape is worst: at the corner of their ranges with the lowest scores."""
    return _make_prior(min(itertools.product(*_rate_ends(recorded)), key=partial(_score_rates, landscape, recorded)))


def find_best_prior(landscape: CurveSurrogate, recorded: StudySpec) -> Prior:
    """Return priors of both learning rates where the landscape is best, of centers at equal factors from each other."""
    centers = [map(float, np.geomspace(low, high, NUM_CENTERS)) for low, high in _rate_ends(recorded)]
    return _make_prior(max(itertools.product(*centers), key=partial(_score_rates, landscape, recorded)))


def _rate_ends(recorded: StudySpec) -> list[tuple[float, float]]:
    space = recorded.arms()[0].space
    return [(float(low), float(high)) for low, high in (space.values_of(name) for name in RATES)]


def _score_rates(landscape: CurveSurrogate, recorded: StudySpec, values: tuple[float, ...]) -> float:
    """Return the sum over the arms of the last score with these learning rates, and the middle of everything else."""
    rates = dict(zip(RATES, values, strict=True))
    return sum(float(landscape.mean_curve({**arm.space.middle(), **rates})[-1]) for arm in recorded.arms())


def _make_prior(centers: tuple[float, ...]) -> Prior:
    return tuple((name, center, PRIOR_WIDTH) for name, center in zip(RATES, centers, strict=True))


def load_landscapes() -> dict[str, Landscape]:
    """Return the landscapes, each fitted in a process of its own."""
    recordings = {name: load_curves(path) for name, (path, _) in LANDSCAPES.items()}
    kinds = [(recordings[name], regressor) for name, (_, regressor) in LANDSCAPES.items()]
    surrogates = run_parallel(CurveSurrogate.fit, kinds)
    return {
        name: Landscape(surrogate, recording.spec, has_goals=place == 0)
        for place, ((name, recording), surrogate) in enumerate(zip(recordings.items(), surrogates, strict=True))
    }


def simulate_sides(
    landscapes: Mapping[str, Landscape], num_seeds: int, *, is_whole: bool = False
) -> dict[Call, Watched]:
    """Return what each side does in each landscape, by seed.

    Of some sides, and where trials diverge, the choice after 40 full trials is of interest alone, and that is the budget.
    """
    calls, options = [], []
    for name, landscape in landscapes.items():
        priors = [find(landscape.surrogate, landscape.spec) for find in (find_worst_prior, find_best_prior)]
        for side, setting in list_sides(*priors).items():
            is_short = side in CHOICES_ALONE or landscape.has_divergence
            budget = EARLY_IN_FULL_TRIALS if is_short else BUDGET_IN_FULL_TRIALS
            for seed in range(landscape.count_seeds(side, num_seeds, is_whole=is_whole)):
                calls.append(Call(name, side, seed))
                options.append((landscape.surrogate, landscape.spec, setting, seed, budget))
    return dict(zip(calls, run_parallel(watch_search, options), strict=True))

"""P7: device time until the choice of a search stays good enough, against random search without pruning and stock Ray Tune.

All sides search the recorded curves (`benchmarks.search.curve_surrogate`) with the same noise, costs and workers. Good enough is
a true macro-F1 of at most so many percentage points below the best of the landscape. The time counts after which the choice stays
good until the end of the budget: the first hit would reward a choice that flickers. A study that is not there at the end counts
with its whole budget, which leaves a median as it is while it concerns less than half of the studies. SEARCH.md compares the
choices at equal device time. Rungs that are complete schedules are measured beside the default. A prior where the landscape is
worst shows what a wrong one costs.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from benchmarks.parallel import run_parallel
from benchmarks.performance.ratios import NOT_JUDGED, Ratio
from benchmarks.search.curve_surrogate import CurveSurrogate
from benchmarks.search.replay_curves import Hyperparameters, load_curves
from benchmarks.search.replay_sides import (
    STOCK,
    STOCK_PER_ARM,
    STOCK_WITH_PORTFOLIO,
    Setting,
    full_trial_seconds,
    make_side,
    make_spec,
)
from benchmarks.search.replay_simulation import Side, Started, simulate
from benchmarks.search.search_replay import default_setting
from search_spaces.arms import POOLED_ARM
from study.spec.study_spec import StudySpec
from trainables.seeds import numpy_generator

NUM_SEEDS = 300
# Of the sides beside ours and random search: stock needs seconds for a study of hundreds of short trials.
NUM_OTHER_SEEDS = 100
NUM_WORKERS = 4
BUDGET_IN_FULL_TRIALS = 120.0
TOLERANCES_PP = (3.0, 2.0, 1.5)
NUM_RESAMPLES = 2000
# Where more than this share of studies is not there at the end, resampled medians are the budget itself. The row then stays open
# for the first side; for the second, the ratio is at most what is measured.
MAX_CENSORED = 0.45
RATES = ("max_lr", "backbone_lr_ratio")
PRIOR_WIDTH = 2.0
MOST_MEASURED = ("ours", "complete rungs", "random", "random, portfolio")
# One side, the other, the goal of the ratio, and the tolerances.
COMPARISONS = (
    ("ours", "random", "<= 0.4", TOLERANCES_PP),
    ("ours", "random, portfolio", "<= 0.6", (1.5,)),
    ("ours", "stock", "<= 0.25", (1.5,)),
    ("ours", "stock, portfolio", NOT_JUDGED, (1.5,)),
    ("ours", "stock, one per arm", NOT_JUDGED, (1.5,)),
    ("complete rungs", "ours", NOT_JUDGED, (2.0, 1.5)),
    ("complete rungs", "random, portfolio", "<= 0.6", (1.5,)),
    ("complete rungs", "stock", "<= 0.25", (1.5,)),
    ("no portfolio", "random", NOT_JUDGED, (1.5,)),
    ("no portfolio, worst prior", "no portfolio", "<= 1.5", (1.5,)),
)


class WatchedSide:
    """A search that records the device-seconds after which its choice stays good enough, by tolerance."""

    def __init__(self, side: Side, landscape: CurveSurrogate) -> None:
        """Watch `side`."""
        self.reached: dict[float, float] = {}
        self._side, self._landscape, self._spent = side, landscape, 0.0
        self._chosen: Hyperparameters | None = None

    def next_trial(self) -> Started | None:
        """Return the side's next trial."""
        return self._side.next_trial()

    def on_report(self, trial_id: str, epoch: int, macro_f1: float, device_seconds: float) -> bool:
        """Report one epoch; look at the choice when a trial has ended."""
        is_continued = self._side.on_report(trial_id, epoch, macro_f1, device_seconds)
        self._spent += device_seconds
        if not is_continued and (chosen := self.choose()) is not None and chosen != self._chosen:
            self._chosen = chosen
            true_value = float(self._landscape.mean_curve(chosen)[-1])
            missing = 100.0 * (max(self._landscape.true_best.values()) - true_value)
            for tolerance in TOLERANCES_PP:
                if missing <= tolerance:
                    self.reached.setdefault(tolerance, self._spent)
                else:
                    self.reached.pop(tolerance, None)
        return is_continued

    def choose(self) -> Hyperparameters | None:
        """Return the side's choice."""
        return self._side.choose()


def _measure_one(landscape: CurveSurrogate, recorded: StudySpec, setting: Setting, seed: int) -> list[float]:
    """Return for each tolerance the device-seconds until the search stays within it, at most its budget."""
    budget = BUDGET_IN_FULL_TRIALS * full_trial_seconds(landscape)[POOLED_ARM]
    spec = make_spec(recorded, setting, budget_seconds=budget, seed=seed)
    watched = WatchedSide(make_side(spec, landscape, setting, budget_seconds=budget), landscape)
    simulate(watched, landscape, num_workers=NUM_WORKERS, seed=seed)
    return [watched.reached.get(tolerance, budget) for tolerance in TOLERANCES_PP]


def measure_time_to_target() -> list[Ratio]:
    """Return the ratios of the median device times of this search and of others, by tolerance."""
    recording = load_curves()
    landscape = CurveSurrogate.fit(recording)
    ours = default_setting()
    plain = Setting(side="ours", sampler="random", allocation=ours.allocation, asha=False)
    sides = {
        "ours": ours,
        "complete rungs": replace(ours, rungs="complete"),
        "random": plain,
        "random, portfolio": replace(plain, has_portfolio=True),
        "stock": STOCK,
        "stock, portfolio": STOCK_WITH_PORTFOLIO,
        "stock, one per arm": STOCK_PER_ARM,
        "no portfolio": replace(ours, has_portfolio=False),
        "no portfolio, worst prior": replace(
            ours, has_portfolio=False, prior=find_worst_prior(landscape, recording.spec)
        ),
    }
    calls = [(name, seed) for name in sides for seed in range(NUM_SEEDS if name in MOST_MEASURED else NUM_OTHER_SEEDS)]
    measured = run_parallel(_measure_one, [(landscape, recording.spec, sides[name], seed) for name, seed in calls])
    found = dict(zip(calls, measured, strict=True))
    budget = BUDGET_IN_FULL_TRIALS * full_trial_seconds(landscape)[POOLED_ARM]
    rows = []
    for one, other, goal, tolerances in COMPARISONS:
        for tolerance in tolerances:
            number = TOLERANCES_PP.index(tolerance)
            seeds = [seed for seed in range(NUM_SEEDS) if {(one, seed), (other, seed)} <= set(found)]
            pair = {name: np.array([found[name, seed][number] for seed in seeds]) for name in (one, other)}
            rows.append(_compare(tolerance, pair, goal, budget))
    return rows


def find_worst_prior(landscape: CurveSurrogate, recorded: StudySpec) -> tuple[tuple[str, float, float], ...]:
    """Return priors of both learning rates where the landscape is worst: at the corner of their ranges with the lowest scores."""

    def score(corner: tuple[float, float]) -> float:
        rates = dict(zip(RATES, corner, strict=True))
        return sum(float(landscape.mean_curve({**arm.space.middle(), **rates})[-1]) for arm in recorded.arms())

    space = recorded.arms()[0].space
    ends = [(float(low), float(high)) for low, high in (space.values_of(name) for name in RATES)]
    worst = min(itertools.product(*ends), key=score)
    return tuple((name, center, PRIOR_WIDTH) for name, center in zip(RATES, worst, strict=True))


def _compare(tolerance: float, sides: Mapping[str, NDArray[np.float64]], goal: str, budget: float) -> Ratio:
    """Return the row of one tolerance, from the (seeds,) device-seconds of two sides, the first over the second."""
    (one, mine), (other, theirs) = sides.items()
    notes = [
        f"{name} {np.median(seconds):.0f} ({100 * (seconds >= budget).mean():.0f} % not there)"
        for name, seconds in sides.items()
    ]
    # The other side's median can only be larger than the budget that stands for it, so that the upper end holds all the same.
    low, high = compute_ratio_interval(mine, theirs)
    low = 0.0 if (theirs >= budget).mean() > MAX_CENSORED else low
    is_identified = (mine >= budget).mean() <= MAX_CENSORED
    return Ratio(
        "P7",
        f"device time until the choice stays within {tolerance:g} pp of the best: {one} / {other}, {len(mine)} seeds",
        goal,
        (float(np.median(mine) / np.median(theirs)),),
        f"median device-s: {', '.join(notes)}; budget {budget:.0f}",
        (low, high) if is_identified else (0.0, np.inf),
    )


def compute_ratio_interval(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bootstrap interval at 95 % of the ratio of the medians of two sides, over their common (n,) seeds."""

    def ratio(one: NDArray[np.float64], other: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(np.median(one, axis=axis) / np.median(other, axis=axis))

    found = bootstrap(
        (mine, theirs),
        ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=NUM_RESAMPLES,
        rng=numpy_generator(0, "P7"),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)

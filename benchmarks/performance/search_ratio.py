"""P7: device time until the choice of a search stays good enough, against random search without pruning and stock Ray Tune.

All sides search the recorded curves (`benchmarks.search.curve_surrogate`) with the same noise, costs and workers. Good enough is
a true macro-F1 of at most so many percentage points below the best of the landscape. The time counts after which the choice stays
good until the end of the budget: the first hit would reward a choice that flickers. A study that is not there at the end counts
with its whole budget, which leaves a median as it is while it concerns less than half of the studies. SEARCH.md has the goals of
the default with more seeds of stock. Rungs that are complete schedules are measured beside the default. A prior where the
landscape is worst shows what a wrong one costs.
"""

import itertools
from dataclasses import replace

import numpy as np

from benchmarks.parallel import run_parallel
from benchmarks.ratios import NOT_JUDGED, Ratio
from benchmarks.search.curve_surrogate import CurveSurrogate
from benchmarks.search.replay_curves import load_curves
from benchmarks.search.replay_sides import STOCK, STOCK_PER_ARM, STOCK_WITH_PORTFOLIO, Setting, full_trial_seconds
from benchmarks.search.search_replay import default_setting
from benchmarks.search.watched_search import BUDGET_IN_FULL_TRIALS, TOLERANCES_PP, compare_times, watch_search
from search_spaces.arms import POOLED_ARM
from study.spec.study_spec import StudySpec

NUM_SEEDS = 300
# Of the sides beside ours and random search: stock needs seconds for a study of hundreds of short trials.
NUM_OTHER_SEEDS = 100
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
    options = [(landscape, recording.spec, sides[name], seed, BUDGET_IN_FULL_TRIALS) for name, seed in calls]
    found = dict(zip(calls, run_parallel(watch_search, options), strict=True))
    budget = BUDGET_IN_FULL_TRIALS * full_trial_seconds(landscape)[POOLED_ARM]
    rows = []
    for one, other, goal, tolerances in COMPARISONS:
        for tolerance in tolerances:
            number = TOLERANCES_PP.index(tolerance)
            seeds = [seed for seed in range(NUM_SEEDS) if {(one, seed), (other, seed)} <= set(found)]
            pair = {name: np.array([found[name, seed].seconds[number] for seed in seeds]) for name in (one, other)}
            rows.append(compare_times(tolerance, pair, goal, budget))
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

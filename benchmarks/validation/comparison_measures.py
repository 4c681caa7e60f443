"""What is measured on one simulated comparison: intervals of several methods, verdicts, looks and power."""

import math
from dataclasses import replace

import numpy as np
from scipy import stats

from analysis.comparison.other_intervals import compute_anytime_interval, draw_image_weights
from analysis.comparison.paired_difference import compare_arms, compute_difference, compute_verdict
from analysis.comparison.values import Verdict
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.crossed_interval import CrossedEstimate, compute_t_quantile
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import compute_weighted_macro_f1
from analysis.statistics.variances import NO_GUARD
from benchmarks.validation.statistics_simulation import World, first_seeds
from trainables.seeds import numpy_generator

ALPHA, MARGIN = 0.05, 0.03
NUM_DRAWS = 200
LOOKS = (3, 6, 10)
PEEKS = (2, 3, 4, 5, 6, 8, 10, 14, 20)
DIFFERENT = {Verdict.BETTER, Verdict.WORSE}
PRODUCT = "crossed t (the product's)"
PLANNED, FULL_ALPHA = "planned looks (the product's)", "looks at the full alpha"
CLUSTERED = "clustered by group"
ANYTIME, EVERY_LOOK = "anytime (the product's)", "crossed t at every look"


def draw_pair(world: World, number: int, name: str) -> tuple[ArmPredictions, ArmPredictions]:
    """Return treatment and control of one comparison."""
    control, treatment = world.draw(numpy_generator(number, f"{name} {world}"))
    return treatment, control


def measure_interval(world: World, number: int) -> Interval:
    """Return the product's interval."""
    return compute_difference(*draw_pair(world, number, "interval"), 1 - ALPHA).interval


def measure_groups(world: World, number: int) -> dict[str, tuple[float, float]]:
    """Return the bounds of the interval with and without the groups of the images."""
    treatment, control = draw_pair(world, number, "groups")
    without = replace(treatment, groups=None), replace(control, groups=None)
    return {
        CLUSTERED: _bounds(compute_difference(treatment, control, 1 - ALPHA)),
        "images as if independent": _bounds(compute_difference(*without, 1 - ALPHA)),
    }


def measure_methods(world: World, number: int) -> dict[str, tuple[float, float]]:
    """Return the bounds of each method's interval."""
    treatment, control = draw_pair(world, number, "methods")
    found = compute_difference(treatment, control, 1 - ALPHA)
    d, s = found.interval.estimate, world.num_seeds
    generator = numpy_generator(number, f"bootstrap {world}")
    weights = draw_image_weights(control.labels, NUM_DRAWS, generator)
    both = np.concatenate([treatment.predicted, control.predicted])
    scores = compute_weighted_macro_f1(control.labels, both, weights, control.num_classes)
    by_seed = scores[:, :s] - scores[:, s:]
    crossed = np.take_along_axis(by_seed, generator.integers(s, size=(NUM_DRAWS, s)), axis=1).mean(axis=1)
    t_seeds = float(compute_t_quantile(1 - ALPHA, s - 1)) * math.sqrt(found.seed_variance)
    plain = replace(found, guard=NO_GUARD)
    t_crossed = plain.half_width * float(crossed.std(ddof=1)) / plain.standard_error
    return {
        PRODUCT: _bounds(found),
        "crossed bootstrap t (its cross-check)": (d - t_crossed, d + t_crossed),
        "crossed bootstrap percentile": _percentiles(crossed),
        "paired t over seeds": (d - t_seeds, d + t_seeds),
        "image bootstrap of the seeds' mean": _percentiles(by_seed.mean(axis=1)),
        "image bootstrap of one seed": _percentiles(by_seed[:, 0]),
    }


def measure_mcnemar(world: World, number: int) -> bool:
    """Return whether McNemar's exact test on one seed rejects at 5 %."""
    pair = draw_pair(world, number, "mcnemar")
    right = [arm.predicted[0] == arm.labels for arm in pair]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return bool(stats.binomtest(only[0], max(1, sum(only))).pvalue < ALPHA)


def measure_verdicts(world: World, number: int) -> tuple[bool, bool]:
    """Return whether a table of all arms against the first holds a BETTER or WORSE, and whether it holds an EQUIVALENT."""
    control, *treatments = world.draw(numpy_generator(number, f"verdicts {world}"))
    verdicts = {_judge(t, control, ALPHA / len(treatments)) for t in treatments}
    return bool(verdicts & DIFFERENT), Verdict.EQUIVALENT in verdicts


def measure_looks(world: World, number: int) -> dict[str, bool]:
    """Return whether the treatment is found different at some planned look, with alpha divided by the looks and without."""
    treatment, control = draw_pair(world, number, "looks")
    pairs = [(first_seeds(treatment, look), first_seeds(control, look)) for look in LOOKS]
    return {
        name: any(_judge(*pair, alpha) in DIFFERENT for pair in pairs)
        for name, alpha in ((PLANNED, ALPHA / len(LOOKS)), (FULL_ALPHA, ALPHA))
    }


def measure_peeking(world: World, number: int) -> dict[str, bool]:
    """Return whether the treatment is found different at some of many looks, by each kind of interval."""
    treatment, control = draw_pair(world, number, "peeking")
    found = {ANYTIME: False, EVERY_LOOK: False}
    for look in PEEKS:
        pair = first_seeds(treatment, look), first_seeds(control, look)
        found[EVERY_LOOK] |= _judge(*pair, ALPHA) in DIFFERENT
        found[ANYTIME] |= compute_verdict(compute_anytime_interval(*pair, 1 - ALPHA), MARGIN)[0] in DIFFERENT
    return found


def measure_power(world: World, number: int) -> tuple[bool, float]:
    """Return whether the treatment is found better by the product's interval, and the row's MDE."""
    pair = draw_pair(world, number, "power")
    row = compare_arms(*pair, margin=MARGIN, alpha=ALPHA, num_rows=1, cost_ratio=None)
    return row.effect.low > 0, row.minimum_detectable_effect


def _judge(treatment: ArmPredictions, control: ArmPredictions, alpha: float) -> Verdict:
    return compute_verdict(compute_difference(treatment, control, 1 - alpha).interval, MARGIN)[0]


def _bounds(found: CrossedEstimate) -> tuple[float, float]:
    return found.interval.low, found.interval.high


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)

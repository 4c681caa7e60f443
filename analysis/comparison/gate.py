"""The gate: is a change real? One comparison that may be looked at after every pair of seeds, alone or among those of a project.

A look at S pairs of seeds is the row of `compare_arms`, over seeds and images, with a share of the error rate. The shares of all
numbers of seeds sum to 1, so the probability that any look is wrong is at most the error rate, however the looks depend on each
other and whenever one stops: a spending function (Lan and DeMets 1983, Biometrika 70:659) with the union bound. It needs nothing
but intervals that hold at a fixed number of seeds. The confidence sequence of `other_intervals` holds at every number too, but
adds its parts for seeds and images in place of their squares, and decides later at few seeds.

In a project, comparison t has a share, rate_t, of the false discovery rate. Its e-value is 1 / (rate_t k), where P is its anytime
p-value and k the smallest number with P <= rate_t (6 / pi^2) (1 + 1/2 + ... + 1/k). That is a calibrator (Vovk and Wang 2021,
Ann. Stat. 49:1736): its integral over P is the sum of 6 / (pi k)^2, which is 1. e-LOND (Xu and Ramdas 2024, arXiv:2311.06412)
says yes where the e-value is at least 1 / (rate_t (R + 1)), with R yes before it. The false discovery rate then holds however the
e-values depend on each other, such as those of comparisons on the same images.
"""

import math

import numpy as np

from analysis.comparison.paired_difference import MAX_SEEDS, compare_arms, compute_difference, find_num_seeds, round_up
from analysis.comparison.values import ComparisonRow, GateAnswer, GateLook, ProjectPlace, Verdict
from analysis.statistics.arm_predictions import Side, describe_few_discordant, measure_discordance
from analysis.statistics.crossed_interval import CrossedEstimate
from analysis.statistics.metrics import FloatArray, IntArray

# Two pairs of seeds have one degree of freedom, which decides next to nothing; they have no share of the error rate.
FIRST_LOOK = 3
# Half of the error rate goes to so many looks, and half of the false discovery rate to so many comparisons, the first ones.
HALF_OF_LOOKS, HALF_OF_PROJECT = 5, 10
# How many times as many test images are considered.
GROWTHS = tuple(1.1**power for power in range(100))


def compute_share(number: IntArray | int, half: int) -> FloatArray:
    """Return the share that the number-th of infinitely many looks or comparisons has of their common error rate.

    It is h / ((n + h - 1) (n + h)); those of the first n sum to n / (n + h).

    Args:
        number: n, from 1, of any shape.
        half: h, how many have half of the error rate.
    """
    return np.asarray(half / ((number + half - 1.0) * (number + half)))


def compute_look_share(num_pairs: IntArray | int) -> FloatArray:
    """Return the share of the error rate that the look at so many pairs of seeds has, from `FIRST_LOOK` on."""
    return compute_share(np.maximum(np.asarray(num_pairs) - FIRST_LOOK, 0) + 1, HALF_OF_LOOKS)


def bound_p_values(place: ProjectPlace, count: int) -> FloatArray:
    """Return (count,) largest anytime p-values whose e-values are 1 / (rate_t k), for k from 1: a yes after k - 1 others."""
    rate = place.rate * float(compute_share(place.number, HALF_OF_PROJECT))
    return np.asarray(rate * 6 / math.pi**2 * np.cumsum(1 / np.arange(1, count + 1)))


def compute_e_values(place: ProjectPlace, p_value: float) -> tuple[float, float]:
    """Return the e-value of a comparison and that which a yes needs.

    Args:
        place: of the comparison.
        p_value: anytime-valid. Where no number of yes among the comparisons before it would suffice, the e-value is 0.
    """
    rate = place.rate * float(compute_share(place.number, HALF_OF_PROJECT))
    k = int(np.searchsorted(bound_p_values(place, place.number), p_value)) + 1
    return (1 / (rate * k) if k <= place.number else 0.0), 1 / (rate * (place.num_found + 1))


def measure_look(new: Side, old: Side, *, not_worse: bool, margin: float, alpha: float) -> tuple[ComparisonRow, float]:
    """Return the row of a look, and the smallest error rate at which this look says yes; `judge_look` has the arguments."""
    share = float(compute_look_share(len(new.seeds)))
    row = compare_arms(new, old, margin=margin, alpha=2 * alpha * share, num_rows=1, cost_ratio=None)
    assert row.p_value is not None
    assert row.p_noninferior is not None
    p_better = row.p_value / 2 if row.effect.estimate > 0 else 1 - row.p_value / 2
    p_value = (row.p_noninferior if not_worse else p_better) / share
    return row, min(1.0, p_value) if len(new.seeds) >= FIRST_LOOK else 1.0


def judge_look(
    new: Side, old: Side, *, not_worse: bool, margin: float, alpha: float, place: ProjectPlace | None = None
) -> GateLook:
    """Return what a gate answers at this look.

    Better is a yes where the row is BETTER, and a no where it is WORSE or EQUIVALENT. Not worse is a yes where the interval lies
    above minus the margin, and a no where it lies below. In a project, a yes also needs the e-value of its place.

    Args:
        new: with the same images as `old`, and its seeds as pairs.
        old: what `new` is compared with.
        not_worse: ask whether `new` is not worse by the margin, instead of whether it is better.
        margin: in macro-F1, a fraction in (0, 1).
        alpha: error rate of a yes, and of a no, over all looks, in (0, 1/2).
        place: in a project; None for a comparison that stands alone.

    Raises:
        UserInputError: as `compare_arms` does.
    """
    row, p_value = measure_look(new, old, not_worse=not_worse, margin=margin, alpha=alpha)
    bound, level = -margin if not_worse else 0.0, alpha
    if place is not None:
        p_value = min(p_value, place.smallest_p)
        level = min(alpha, float(bound_p_values(place, place.num_found + 1)[-1]))
    is_no = row.effect.high < bound if not_worse else row.verdict in (Verdict.WORSE, Verdict.EQUIVALENT)
    is_no = is_no and row.num_seeds >= FIRST_LOOK
    answer = GateAnswer.YES if p_value <= level else GateAnswer.NO if is_no else GateAnswer.UNDECIDED
    settles = _describe_what_decides(new, old, row, bound, level, alpha) if answer is GateAnswer.UNDECIDED else ""
    asked = {"not_worse": not_worse, "alpha": alpha, "place": place}
    return GateLook(row=row, answer=answer, p_value=p_value, settles=settles, **asked)  # type: ignore[arg-type]


def _describe_what_decides(new: Side, old: Side, row: ComparisonRow, bound: float, level: float, alpha: float) -> str:
    """Return the pairs of seeds, or the test images, with which the present difference and variances would decide."""
    effect = row.effect.estimate
    if row.num_seeds < FIRST_LOOK:
        return f"a claim about fresh seeds needs at least {FIRST_LOOK} pairs of seeds (now {row.num_seeds})"
    # What the half-width must fall below, and the error rate of the claim that it would allow.
    targets = [(effect - bound, level)] if effect > bound else [(bound - effect, alpha)]
    if bound == 0 and abs(effect) < row.margin:
        if few := describe_few_discordant(measure_discordance(new, old), effect, row.margin):
            return few
        targets.append((row.margin - abs(effect), alpha))
    found = compute_difference(new, old, row.confidence)
    by_growth = {growth: _find_num_pairs(found, targets, row.num_seeds, growth) for growth in GROWTHS}
    fewest = next(((pairs, growth) for growth, pairs in by_growth.items() if pairs is not None), None)
    if fewest is None:
        return f"more than {MAX_SEEDS:,} pairs of seeds would be needed at the present difference"
    images = [round_up(growth * row.num_images) for growth, pairs in by_growth.items() if pairs == row.num_seeds]
    more = f" with {round_up(fewest[1] * row.num_images):,} test images" if fewest[1] > 1 else ""
    ways = f"{fewest[0]} pairs of seeds{more}" + (f", or {images[0]:,} test images," if images else "")
    return f"about {ways} would decide it (now {row.num_seeds} and {row.num_images:,}), if the difference stays"


def _find_num_pairs(
    found: CrossedEstimate, targets: list[tuple[float, float]], num_pairs: int, growth: float
) -> int | None:
    """Return the fewest pairs of seeds that meet a target, with so many times as many images; None if above MAX_SEEDS."""
    shares = compute_look_share(np.arange(num_pairs, MAX_SEEDS + 1))
    numbers = [find_num_seeds(found, needed, 1 - 2 * level, num_pairs, growth, shares) for needed, level in targets]
    return min((number for number in numbers if number is not None), default=None)

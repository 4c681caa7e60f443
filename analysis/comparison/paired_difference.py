"""Comparison of two sides over paired seeds and the same test images: difference, interval, verdict, seeds still needed."""

import math
from dataclasses import replace

import numpy as np
from scipy import special

from analysis.comparison.values import ComparisonRow, Question, Verdict
from analysis.statistics import crossed_interval
from analysis.statistics.arm_predictions import (
    MIN_DISCORDANT,
    ArmPredictions,
    Side,
    average_members,
    check_paired,
    check_same_images,
    describe_few_discordant,
    measure_discordance,
)
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, compute_macro_f1, compute_macro_f1_influence
from analysis.statistics.moderated_variances import SharedVariance
from analysis.statistics.variances import PSEUDO_DIFFERENCES, guard_image_variance
from search_spaces.errors import UserInputError

POWER = 0.8
MAX_SEEDS = 1000


def compute_seed_differences(treatment: Side, control: Side) -> FloatArray:
    """Return (S,) macro-F1 of treatment minus control per paired seed, a fraction; one seed is enough.

    Raises:
        UserInputError: naming the first seed, image or label in which the sides differ.
    """
    check_paired(treatment, control)
    return np.asarray(average_members(treatment, _macro_f1) - average_members(control, _macro_f1))


def compute_difference(
    treatment: Side, control: Side, confidence: float, shared: SharedVariance | None = None
) -> crossed_interval.CrossedEstimate:
    """Return treatment minus control in macro-F1, a fraction, with its interval for new seeds and new images.

    Args:
        treatment: with S >= 2 seeds.
        control: with the same seeds and images.
        confidence: two-sided, in (0, 1).
        shared: the variance between seeds, with what other rows say about it; None for that of these sides alone.

    Raises:
        UserInputError: for sides that do not pair, and for one seed.
    """
    check_paired(treatment, control)
    return _cross(treatment, control, confidence, shared)


def compare_arms(
    treatment: Side,
    control: Side,
    *,
    margin: float,
    alpha: float,
    num_rows: int,
    cost_ratio: float | None,
    look: int = 1,
    num_looks: int = 1,
    shared: SharedVariance | None = None,
) -> ComparisonRow:
    """Return the row of the A/B table for treatment against control.

    With two seeds or more of each side, the verdict is about the recipe: new seeds and new images. With one seed, it is about
    these very models: new images alone; one seed says nothing about the variation between seeds. Sides with the same seeds are
    compared seed by seed, others without pairs of seeds.

    Args:
        treatment: with S >= 1 seeds.
        control: with the same images.
        margin: equivalence margin, the largest difference of macro-F1 that is negligible; a fraction in (0, 1).
        alpha: family-wise error rate over all rows and looks.
        num_rows: rows of the table.
        cost_ratio: device-seconds per confirmation trial, treatment / control; None where not measured.
        look: number of this look, from 1.
        num_looks: planned looks; the interval's confidence is 1 - alpha / (num_rows * num_looks).
        shared: the variance between seeds, with what other rows say about it; None for a row that stands alone.

    Raises:
        UserInputError: for settings out of range, and for sides that do not pair.
    """
    _check_settings(margin, alpha, num_rows, cost_ratio)
    num_intervals = num_rows * num_looks
    confidence = 1 - alpha / num_intervals
    is_paired = treatment.seeds == control.seeds
    num_seeds, num_images = min(len(side.seeds) for side in (treatment, control)), len(treatment.labels)
    discordance = measure_discordance(treatment, control)
    crossed = _cross(treatment, control, confidence, shared, copies=2 if num_seeds == 1 else 1)
    found, models = None if num_seeds == 1 else crossed, _fix_seeds(crossed)
    decisive = found or models
    effect, models_effect = (clip_to_range(e.interval, treatment, control) for e in (decisive, models))
    verdict, materiality = compute_verdict(effect, margin, discordance.number)
    settles = ""
    if verdict is Verdict.UNDECIDED:
        settles = describe_few_discordant(discordance, effect.estimate, margin) or (
            _describe_images_needed(models, margin, num_images)
            if found is None
            else describe_what_settles(found, margin, confidence, num_seeds, num_images)
        )
    df, error = decisive.degrees_of_freedom, decisive.standard_error
    quantile = float(crossed_interval.compute_t_quantile(confidence, df))
    detectable = error * (quantile + float(special.stdtrit(df, POWER)))
    p_value = crossed_interval.compute_p_value(decisive)
    return ComparisonRow(
        treatment=treatment.name,
        control=control.name,
        effect=effect,
        standard_error=error,
        degrees_of_freedom=df,
        seed_variance=None if found is None else found.seed_variance,
        image_variance=models.image_variance,
        seed_image_variance=None if found is None else found.seed_image_variance,
        confidence=confidence,
        margin=margin,
        verdict=verdict,
        materiality=materiality,
        settles=settles,
        num_seeds=len(treatment.seeds),
        num_control_seeds=None if is_paired else len(control.seeds),
        num_images=num_images,
        # Bloom 1995, Evaluation Review 19:547: (t of the interval + t of the power) standard errors.
        minimum_detectable_effect=min(detectable, _find_reach(treatment, control)),
        p_value=p_value,
        seed_differences=tuple(compute_seed_differences(treatment, control).tolist()) if is_paired else (),
        cost_ratio=cost_ratio,
        look=look,
        num_looks=num_looks,
        question=Question.MODELS if found is None else Question.RECIPE,
        models_effect=models_effect,
        models_verdict=compute_verdict(models_effect, margin, discordance.number)[0],
        p_adjusted=min(1.0, p_value * num_intervals),
        p_noninferior=crossed_interval.compute_one_sided_p_value(decisive, -margin),
        intervals="planned" if found is None or shared is None else "moderated",
    )


def clip_to_range(interval: Interval, treatment: Side, control: Side) -> Interval:
    """Return the part of an interval that a difference of the two sides in macro-F1 can take: [-1, 1], times their scale."""
    reach = _find_reach(treatment, control)
    return Interval(estimate=interval.estimate, low=max(interval.low, -reach), high=min(interval.high, reach))


def _find_reach(treatment: Side, control: Side) -> float:
    """Return the largest possible difference of the two sides in macro-F1."""
    return max(treatment.scale, control.scale)


def compute_verdict(effect: Interval, margin: float, num_discordant: float = math.inf) -> tuple[Verdict, str]:
    """Return the verdict and its materiality ("material", "negligible" or "") for an interval and a margin > 0.

    EQUIVALENT needs `MIN_DISCORDANT` images on which the sides differ.
    """
    if effect.low > 0:
        word = "material" if effect.low > margin else "negligible" if effect.high < margin else ""
        return Verdict.BETTER, word
    if effect.high < 0:
        word = "material" if effect.high < -margin else "negligible" if effect.low > -margin else ""
        return Verdict.WORSE, word
    if -margin < effect.low and effect.high < margin and num_discordant >= MIN_DISCORDANT:
        return Verdict.EQUIVALENT, ""
    return Verdict.UNDECIDED, ""


def describe_what_settles(
    found: crossed_interval.CrossedEstimate, margin: float, confidence: float, num_seeds: int, num_images: int
) -> str:
    """Return a sentence with the number of seeds or test images that would decide an UNDECIDED row.

    The projection uses the present estimates of the difference and its variances: the variance of seeds decreases with the
    number of seeds, that of images with the number of images, and the seed x image noise with both.

    Args:
        found: the difference.
        margin: the equivalence margin, a fraction.
        confidence: of the interval.
        num_seeds: S.
        num_images: N.
    """
    effect = abs(found.interval.estimate)
    needed = max(effect, margin - effect)
    seeds = find_num_seeds(found, needed, confidence, num_seeds, 1.0)
    if seeds is not None:
        return f"about {seeds} seeds would settle it (now {num_seeds}), if the difference stays"
    only_images = max(found.image_variance - found.seed_image_variance, 0.0)
    quantile = float(crossed_interval.compute_t_quantile(confidence, found.image_freedom))
    if quantile**2 * float(guard_image_variance(only_images, found.guard, quantile)) < needed**2:
        return f"more than {MAX_SEEDS} seeds would be needed at the present difference"
    # The images that infinitely many seeds would need for half of the squared error, so that the other half is left to the seeds.
    images = round_up(_find_growth(found, only_images, needed / math.sqrt(2)) * num_images)
    seeds = find_num_seeds(found, needed, confidence, num_seeds, images / num_images)
    with_seeds = f"{seeds} seeds" if seeds is not None else f"more than {MAX_SEEDS} seeds"
    return f"more seeds cannot settle this; more test images are needed (about {images:,} with {with_seeds})"


def _cross(
    treatment: Side, control: Side, confidence: float, shared: SharedVariance | None, copies: int = 1
) -> crossed_interval.CrossedEstimate:
    """Return the estimate, from so many copies of a single seed, of which two have no variance between seeds."""
    check_same_images(treatment, control)
    sides = [_measure(side, copies if len(side.seeds) == 1 else 1) for side in (treatment, control)]
    guard = measure_discordance(treatment, control).guard
    images = treatment.labels, treatment.num_classes, confidence, treatment.groups
    if treatment.seeds != control.seeds:
        return crossed_interval.compute_unpaired_interval(sides[0], sides[1], *images, guard)
    values, influence = (one - other for one, other in zip(*sides, strict=True))
    return crossed_interval.compute_crossed_interval(values, influence, *images, shared, guard)


def _measure(side: Side, copies: int) -> tuple[FloatArray, FloatArray]:
    """Return (S,) macro-F1 of each seed, and the (S, N) influence of each image on it, so many times each."""
    values, influence = average_members(side, _macro_f1), average_members(side, _macro_f1_influence)
    return np.repeat(values, copies), np.repeat(influence, copies, axis=0)


def _fix_seeds(found: crossed_interval.CrossedEstimate) -> crossed_interval.CrossedEstimate:
    """Return the estimate for these very models, with its interval for new images: t_{N-1} sqrt(V_I)."""
    freedom = float(found.image_freedom)
    fixed = replace(found, seed_variance=0.0, seed_image_variance=0.0, seed_freedom=freedom)
    estimate = found.interval.estimate
    half_width = float(crossed_interval.compute_t_quantile(found.confidence, freedom)) * fixed.standard_error
    return replace(fixed, interval=Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width))


def _describe_images_needed(models: crossed_interval.CrossedEstimate, margin: float, num_images: int) -> str:
    """Return a sentence with the number of test images that would decide an UNDECIDED row about these very models."""
    effect = abs(models.interval.estimate)
    images = round_up(_find_growth(models, models.image_variance, max(effect, margin - effect)) * num_images)
    return (
        f"about {images:,} test images would settle it for these models (now {num_images:,}), if the difference stays; "
        "only more seeds can settle it for the recipe"
    )


def _find_growth(found: crossed_interval.CrossedEstimate, image_variance: float, needed: float) -> float:
    """Return how many times as many images give a half-width of `needed` with infinitely many seeds.

    The variance decreases with the images, and what the pseudo-observations add to it with their square.
    """
    squared_quantile = float(special.ndtri(0.5 + found.confidence / 2)) ** 2
    half = squared_quantile * image_variance / needed**2 / 2
    pseudo = found.guard.reach * squared_quantile / (found.guard.size * needed)
    return half + math.sqrt(half**2 + 2 * PSEUDO_DIFFERENCES * pseudo**2)


def _macro_f1(arm: ArmPredictions) -> FloatArray:
    return compute_macro_f1(arm.labels, arm.predicted, arm.num_classes)


def _macro_f1_influence(arm: ArmPredictions) -> FloatArray:
    return compute_macro_f1_influence(arm.labels, arm.predicted, arm.num_classes)


def find_num_seeds(
    found: crossed_interval.CrossedEstimate,
    needed: float,
    confidence: float,
    num_seeds: int,
    growth: float,
    shares: FloatArray | float = 1.0,
) -> int | None:
    """Return the smallest number of seeds at which the half-width falls below `needed`, None if above MAX_SEEDS.

    Args:
        found: the difference, with S >= 2 seeds.
        needed: half-width, a fraction.
        confidence: of the interval.
        num_seeds: S.
        growth: the test images, and the groups that they belong to, are so many times as many as now.
        shares: (MAX_SEEDS + 1 - S,) share of the error rate 1 - confidence that each number of seeds from S on has; 1 for all.
    """
    seeds = np.arange(num_seeds, MAX_SEEDS + 1)
    both_s = min(found.seed_image_variance, found.seed_variance)
    both_i = min(found.seed_image_variance, found.image_variance)
    shrink = num_seeds / seeds
    v_s = (found.seed_variance - both_s + both_s / growth) * shrink
    v_i = (found.image_variance - both_i) / growth + both_i / growth * shrink
    v_si = found.seed_image_variance / growth * shrink
    # What other rows say about the variance between seeds grows with the seeds as what the row itself says does.
    freedom = found.seed_freedom * (seeds - 1) / (num_seeds - 1)
    # Each stratum loses a degree of freedom, now as then.
    image_freedom = round(growth * found.num_units) - (found.num_units - found.image_freedom)
    guard, alpha = found.guard._replace(size=growth * found.guard.size), (1 - confidence) * shares
    half_width = crossed_interval.compute_half_width(
        v_s, v_i, v_si, seed_freedom=freedom, image_freedom=image_freedom, alpha=alpha, guard=guard
    )
    enough = np.flatnonzero(half_width < needed)
    return int(seeds[enough[0]]) if len(enough) else None


def round_up(number: float) -> int:
    """Round up to two significant digits."""
    unit = int(10 ** max(math.floor(math.log10(number)) - 1, 0))
    return math.ceil(number / unit) * unit


def _check_settings(margin: float, alpha: float, num_rows: int, cost_ratio: float | None) -> None:
    if not 0.0 < margin < 1.0:
        raise UserInputError(
            f"`0 < margin < 1` must hold (0.005 is half a percentage point of macro-F1), but got {margin}"
        )
    if num_rows < 1:
        raise UserInputError(f"`num_rows >= 1` must hold, but got {num_rows}")
    if not 0.0 < alpha < 1.0:
        raise UserInputError(f"`0 < alpha < 1` must hold, but got {alpha}; 0.05 is usual")
    if cost_ratio is not None and not (math.isfinite(cost_ratio) and cost_ratio > 0):
        raise UserInputError(f"`cost_ratio > 0` must hold, but got {cost_ratio}; leave it out where not measured")

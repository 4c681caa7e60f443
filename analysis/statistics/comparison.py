"""Comparison of two sides over paired seeds and the same test images: difference, interval, verdict, seeds still needed."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from analysis.findings.comparison_findings import ComparisonRow, Verdict
from analysis.findings.interval import Interval
from analysis.statistics.arm_predictions import ArmPredictions, Side, average_members, check_paired
from analysis.statistics.crossed_interval import (
    CrossedEstimate,
    compute_crossed_interval,
    compute_half_width,
    compute_p_value,
    compute_t_quantile,
)
from analysis.statistics.influence import compute_macro_f1_influence
from analysis.statistics.metrics import FloatArray, compute_macro_f1
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


def compute_difference(treatment: Side, control: Side, confidence: float) -> CrossedEstimate:
    """Return treatment minus control in macro-F1, a fraction, with its interval for new seeds and new images.

    Args:
        treatment: with S >= 2 seeds.
        control: with the same seeds and images.
        confidence: two-sided, in (0, 1).

    Raises:
        UserInputError: for sides that do not pair, and for one seed.
    """
    differences = compute_seed_differences(treatment, control)
    labels, num_classes = treatment.labels, treatment.num_classes
    influence = average_members(treatment, _macro_f1_influence) - average_members(control, _macro_f1_influence)
    return compute_crossed_interval(differences, influence, labels, num_classes, confidence)


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
) -> ComparisonRow:
    """Return the row of the A/B table for treatment against control.

    Args:
        treatment: with S >= 2 seeds.
        control: with the same seeds and images.
        margin: equivalence margin, the largest difference of macro-F1 that is negligible; a fraction in (0, 1).
        alpha: family-wise error rate over all rows and looks.
        num_rows: rows of the table.
        cost_ratio: device-seconds per confirmation trial, treatment / control; None where not measured.
        look: number of this look, from 1.
        num_looks: planned looks; the interval's confidence is 1 - alpha / (num_rows * num_looks).

    Raises:
        UserInputError: for settings out of range, for sides that do not pair, and for one seed.
    """
    _check_settings(margin, alpha, num_rows, cost_ratio)
    confidence = 1 - alpha / (num_rows * num_looks)
    found = compute_difference(treatment, control, confidence)
    verdict, materiality = compute_verdict(found.interval, margin)
    num_seeds, num_images = len(treatment.seeds), len(treatment.labels)
    df, error = found.degrees_of_freedom, found.standard_error
    detectable = float(compute_t_quantile(confidence, df)) + float(special.stdtrit(df, POWER))
    settles = ""
    if verdict is Verdict.UNDECIDED:
        settles = describe_what_settles(found, margin, confidence, num_seeds, num_images)
    return ComparisonRow(
        treatment=treatment.name,
        control=control.name,
        effect=found.interval,
        standard_error=error,
        degrees_of_freedom=df,
        seed_variance=found.seed_variance,
        image_variance=found.image_variance,
        seed_image_variance=found.seed_image_variance,
        confidence=confidence,
        margin=margin,
        verdict=verdict,
        materiality=materiality,
        settles=settles,
        num_seeds=num_seeds,
        num_images=num_images,
        # Bloom 1995, Evaluation Review 19:547: (t of the interval + t of the power) standard errors.
        minimum_detectable_effect=detectable * error,
        p_value=compute_p_value(found),
        seed_differences=tuple(compute_seed_differences(treatment, control).tolist()),
        cost_ratio=cost_ratio,
        look=look,
        num_looks=num_looks,
    )


def compute_verdict(effect: Interval, margin: float) -> tuple[Verdict, str]:
    """Return the verdict and its materiality ("material", "negligible" or "") for an interval and a margin > 0."""
    if effect.low > 0:
        word = "material" if effect.low > margin else "negligible" if effect.high < margin else ""
        return Verdict.BETTER, word
    if effect.high < 0:
        word = "material" if effect.high < -margin else "negligible" if effect.low > -margin else ""
        return Verdict.WORSE, word
    if -margin < effect.low and effect.high < margin:
        return Verdict.EQUIVALENT, ""
    return Verdict.UNDECIDED, ""


def compute_holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's step-down adjusted p-values, in the order given (Holm 1979, Scand. J. Statist. 6:65)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return tuple(adjusted.tolist())


def describe_what_settles(
    found: CrossedEstimate, margin: float, confidence: float, num_seeds: int, num_images: int
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
    seeds = _find_num_seeds(found, needed, confidence, num_seeds, 1.0, num_images)
    if seeds is not None:
        return f"about {seeds} seeds would settle it (now {num_seeds}), if the difference stays"
    only_images = max(found.image_variance - found.seed_image_variance, 0.0)
    squared_quantile = float(special.ndtri(0.5 + confidence / 2)) ** 2
    if squared_quantile * only_images < needed**2:
        return f"more than {MAX_SEEDS} seeds would be needed at the present difference"
    # Twice the images that infinitely many seeds would need, so that half of the squared error is left to the seeds.
    growth = 2 * squared_quantile * only_images / needed**2
    images = _round_up(growth * num_images)
    seeds = _find_num_seeds(found, needed, confidence, num_seeds, images / num_images, images)
    with_seeds = f"{seeds} seeds" if seeds is not None else f"more than {MAX_SEEDS} seeds"
    return f"more seeds cannot settle this; more test images are needed (about {images:,} with {with_seeds})"


def _macro_f1(arm: ArmPredictions) -> FloatArray:
    return compute_macro_f1(arm.labels, arm.predicted, arm.num_classes)


def _macro_f1_influence(arm: ArmPredictions) -> FloatArray:
    return compute_macro_f1_influence(arm.labels, arm.predicted, arm.num_classes)


def _find_num_seeds(
    found: CrossedEstimate, needed: float, confidence: float, num_seeds: int, growth: float, num_images: int
) -> int | None:
    """Return the smallest number of seeds at which the half-width falls below `needed`, None if above MAX_SEEDS."""
    seeds = np.arange(num_seeds, MAX_SEEDS + 1)
    both_s = min(found.seed_image_variance, found.seed_variance)
    both_i = min(found.seed_image_variance, found.image_variance)
    shrink = num_seeds / seeds
    v_s = (found.seed_variance - both_s + both_s / growth) * shrink
    v_i = (found.image_variance - both_i) / growth + both_i / growth * shrink
    v_si = found.seed_image_variance / growth * shrink
    half_width = compute_half_width(v_s, v_i, v_si, num_seeds=seeds, num_images=num_images, confidence=confidence)
    enough = np.flatnonzero(half_width < needed)
    return int(seeds[enough[0]]) if len(enough) else None


def _round_up(number: float) -> int:
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

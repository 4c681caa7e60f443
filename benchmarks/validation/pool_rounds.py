"""Comparisons that are drawn from a pool of predictions, and what the product says of each, judged by the pool.

A round draws images with replacement within each class, or groups of them, in the proportions of the pool, and models without
replacement. So the truth of the recipe is the mean over the pool's models on the pool's images, and that of these models is the
mean over those that were drawn. Both arms of a round have the same seeds, unless they are the same recipe: then their seeds
differ, and no arm is better. The variance of a mean over S of R models is 1 - S / R of that over new seeds, at most 10 % smaller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import special

from analysis.comparison.exploratory import compute_class_differences, compute_side_metrics
from analysis.comparison.paired_difference import compare_arms, compute_verdict
from analysis.comparison.values import ComparisonRow, Question, Verdict
from analysis.confusions.class_scores import compute_class_scores
from analysis.confusions.rates import compute_directed_confusions
from analysis.statistics.arm_predictions import ArmPredictions, measure_discordance
from analysis.statistics.crossed_interval import compute_half_width
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import FloatArray, IntArray, divide_or_zero
from analysis.statistics.variances import find_sampling_units
from benchmarks.validation.prediction_pools import Pool, load_pool
from trainables.seeds import numpy_generator
from trainables.training.predictions import Predictions

ALPHA = 0.05
# Where no arm is better; else the margin is the true difference, where a wrong EQUIVALENT is most likely.
NULL_MARGIN = 0.01
# Discordant images from which on the guards against few of them should hardly withhold a verdict.
MANY_DISCORDANT = 30
ROUNDING = 1e-12
DIFFERENT = (Verdict.BETTER, Verdict.WORSE)
WRONG_CLAIM, WRONG_EQUIVALENT, WITHHELD = "wrong BETTER or WORSE", "wrong EQUIVALENT", "withheld"
DECIDED, FLAGGED = "decided", "a class is flagged"


class Kind(StrEnum):
    """What is judged."""

    ROW = "the row of macro-F1"
    CLASSES = "families of classes"
    CONFUSIONS = "directed confusions"
    SIDE_METRICS = "metrics beside macro-F1"


class Arms(StrEnum):
    """The two arms of a comparison."""

    APART = "two recipes"
    SAME = "one recipe, other seeds"
    IDENTICAL = "identical predictions"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCell:
    """A kind of comparison that is drawn many times.

    Attributes:
        kind: what is judged.
        pool: its file.
        arms: of the comparison; of confusions and class scores, the second arm of the pool is judged alone.
        num_images, num_seeds: N and S.
        num_rounds: of a block.
    """

    kind: Kind
    pool: Path
    arms: Arms
    num_images: int
    num_seeds: int
    num_rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An interval, or a family of them, in one round.

    Attributes:
        covered: whether it contains the truth, of a family whether all do.
        width: half-width over the normal quantile of its confidence, mean over the family.
        square: squared error of the estimate, mean over the family.
    """

    covered: bool
    width: float
    square: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What the product says in one round.

    Attributes:
        found: intervals by what they are about and the question, such as "macro-F1, recipe".
        flags: verdicts and whether they are wrong; without those that the round says nothing about.
    """

    found: dict[str, Found]
    flags: dict[str, bool]


@dataclass(frozen=True, slots=True, eq=False)
class _Draw:
    """Drawn images with their labels and groups, and for each side (treatment, control) the arm and the (S,) models."""

    images: IntArray
    labels: IntArray
    groups: IntArray | None
    sides: tuple[tuple[int, IntArray], tuple[int, IntArray]]


def draw_round(pool: Pool, cell: PoolCell, generator: np.random.Generator) -> _Draw:
    """Return the images and models of a round; a class gets its share of N, which must be a whole number."""
    size = 1 if pool.groups is None else int((pool.groups == pool.groups[0]).sum())
    units = np.arange(len(pool.labels)).reshape(-1, size)
    unit_labels, drawn = pool.labels[units[:, 0]], []
    for label in range(pool.num_classes):
        own = np.flatnonzero(unit_labels == label)
        number, rest = divmod(len(own) * cell.num_images, len(pool.labels))
        assert number > rest == 0, f"{cell.num_images} images have no whole share of each class of {cell.pool.name}"
        drawn.append(generator.choice(own, size=number))
    chosen = units[np.concatenate(drawn)]
    images = chosen.ravel()
    groups = None if size == 1 else np.repeat(np.arange(len(chosen)), size)
    models = generator.permutation(pool.predicted.shape[1])
    own, other = models[: cell.num_seeds], models[cell.num_seeds : 2 * cell.num_seeds]
    sides = {Arms.APART: ((1, own), (0, own)), Arms.SAME: ((1, own), (1, other)), Arms.IDENTICAL: ((1, own), (1, own))}[
        cell.arms
    ]
    return _Draw(images, pool.labels[images], groups, sides)


def stack_arm(pool: Pool, draw: _Draw, side: int) -> ArmPredictions:
    """Return the predictions of a side; an image that was drawn several times counts as several images."""
    arm, models = draw.sides[side]
    return ArmPredictions(
        name=("treatment", "control")[side],
        seeds=tuple(range(len(models))),
        labels=draw.labels,
        sample_ids=np.arange(len(draw.labels)),
        predicted=pool.predicted[arm][models][:, draw.images].astype(np.int64),
        num_classes=pool.num_classes,
        groups=draw.groups,
    )


def find_truths(values: FloatArray, draw: _Draw, *, is_difference: bool = True) -> tuple[FloatArray, FloatArray]:
    """Return the truth for these models and for the recipe, of a difference or of the treatment alone.

    Args:
        values: (2, R, ...) of each arm and model on the whole pool.
        draw: of the round.
        is_difference: treatment minus control.
    """
    (own_arm, own), (other_arm, other) = draw.sides
    models, recipe = values[own_arm, own].mean(axis=0), values[own_arm].mean(axis=0)
    if is_difference:
        models, recipe = models - values[other_arm, other].mean(axis=0), recipe - values[other_arm].mean(axis=0)
    return models, recipe


@lru_cache(maxsize=2)
def score_pool(file: Path) -> FloatArray:
    """Return (2, R, K, 3) precision, recall and F1 of each class on the whole pool."""
    pool = load_pool(file)
    sizes = np.bincount(pool.labels)

    def score(predicted: IntArray) -> FloatArray:
        hits = np.bincount(pool.labels[predicted == pool.labels], minlength=len(sizes))
        called = np.bincount(predicted, minlength=len(sizes))
        parts = [divide_or_zero(hits, called), divide_or_zero(hits, sizes), divide_or_zero(2 * hits, called + sizes)]
        return np.stack(parts, axis=-1)

    return np.stack([[score(predicted) for predicted in arm] for arm in pool.predicted])


@lru_cache(maxsize=2)
def measure_side_metrics(file: Path) -> tuple[tuple[str, ...], FloatArray]:
    """Return the names of the metrics beside macro-F1, and their (2, R, ...) values on the whole pool."""
    pool = load_pool(file)
    assert pool.logits is not None
    everything = np.arange(len(pool.labels))
    found = [
        [compute_side_metrics([[p]], [[p]], _names(pool), {}) for p in _predict(pool, arm, models, everything, None)]
        for arm, models in enumerate(np.tile(np.arange(pool.predicted.shape[1]), (2, 1)))
    ]
    values = np.array([[[metric.treatment for metric in metrics] for metrics in arm] for arm in found])
    return tuple(metric.name for metric in found[0][0]), values


def measure_block(cell: PoolCell, block: int) -> tuple[Round, ...]:
    """Return the rounds of a block; its number seeds the draws."""
    measure = {
        Kind.ROW: _measure_row,
        Kind.CLASSES: _measure_classes,
        Kind.CONFUSIONS: _measure_confusions,
        Kind.SIDE_METRICS: _measure_side_metrics,
    }[cell.kind]
    pool = load_pool(cell.pool)
    generators = (
        numpy_generator(number, "round", cell.pool.name, cell.kind, cell.arms, cell.num_images, cell.num_seeds)
        for number in range(block * cell.num_rounds, (block + 1) * cell.num_rounds)
    )
    return tuple(measure(cell, pool, draw_round(pool, cell, generator), generator) for generator in generators)


def _measure_row(cell: PoolCell, pool: Pool, draw: _Draw, _generator: np.random.Generator) -> Round:
    treatment, control = stack_arm(pool, draw, 0), stack_arm(pool, draw, 1)
    models_truth, recipe_truth = map(float, find_truths(score_pool(cell.pool)[..., 2].mean(axis=2), draw))
    margin = abs(recipe_truth) or NULL_MARGIN
    row = compare_arms(treatment, control, margin=margin, alpha=ALPHA, num_rows=1, cost_ratio=None)
    is_recipe = row.question is Question.RECIPE
    truth = recipe_truth if is_recipe else models_truth
    found = {"macro-F1, models": _judge(row.models_effect, models_truth)}
    if is_recipe:
        found["macro-F1, recipe"] = _judge(row.effect, recipe_truth)
    flags = {
        WRONG_CLAIM: row.verdict in DIFFERENT and bool(truth * row.effect.estimate <= 0),
        DECIDED: row.verdict is not Verdict.UNDECIDED,
    }
    if cell.arms is Arms.APART:
        flags[WRONG_EQUIVALENT] = row.verdict is Verdict.EQUIVALENT and abs(truth) >= margin
    num_discordant = measure_discordance(treatment, control).number
    if num_discordant >= MANY_DISCORDANT and _is_decided_without_guards(row, draw):
        flags[WITHHELD] = row.verdict is Verdict.UNDECIDED
    return Round(found=found, flags=flags)


def _is_decided_without_guards(row: ComparisonRow, draw: _Draw) -> bool:
    """Return whether the interval without pseudo-observations decides the row, however few images are discordant."""
    freedom = find_sampling_units(draw.labels, draw.groups).freedom
    half_width = float(
        compute_half_width(
            row.seed_variance or 0.0,
            row.image_variance,
            row.seed_image_variance or 0.0,
            seed_freedom=max(row.num_seeds - 1, 1),
            image_freedom=freedom,
            alpha=1 - row.confidence,
        )
    )
    estimate = row.effect.estimate
    interval = Interval(estimate=estimate, low=estimate - half_width, high=estimate + half_width)
    return compute_verdict(interval, row.margin)[0] is not Verdict.UNDECIDED


def _measure_classes(cell: PoolCell, pool: Pool, draw: _Draw, generator: np.random.Generator) -> Round:
    """Judge the families of the treatment's classes together, and the difference of one class, drawn at random, alone."""
    names, scores = _names(pool), score_pool(cell.pool)
    treatment = stack_arm(pool, draw, 0)
    models, recipe = find_truths(scores, draw, is_difference=False)
    confidence = 1 - ALPHA / pool.num_classes
    judged = compute_class_scores(treatment, names, confidence)
    found: dict[str, Found] = {}
    for i, name in enumerate(("precision", "recall", "F1")):
        found |= _judge_both(
            name, [getattr(one, name.lower()) for one in judged], models[:, i], recipe[:, i], confidence
        )
    flags: dict[str, bool] = {}
    if differences := compute_class_differences(treatment, stack_arm(pool, draw, 1), names):
        models, recipe = find_truths(scores[..., 2], draw)
        label = int(generator.integers(pool.num_classes))
        both = TwoIntervals(models=differences[label].models_effect, recipe=differences[label].effect)
        found |= _judge_both("difference of one class", [both], models[[label]], recipe[[label]])
        if cell.arms is Arms.SAME:
            flags[FLAGGED] = any(one.is_flagged for one in differences)
    return Round(found=found, flags=flags)


def _measure_confusions(_cell: PoolCell, pool: Pool, draw: _Draw, _generator: np.random.Generator) -> Round:
    names = _names(pool)
    listed, num_cells = compute_directed_confusions(stack_arm(pool, draw, 0), names)
    arm, drawn = draw.sides[0]
    images = {one.true_class: np.flatnonzero(pool.labels == int(one.true_class)) for one in listed}
    rates = [
        (pool.predicted[arm][:, images[one.true_class]] == int(one.predicted_class)).mean(axis=1) for one in listed
    ]
    models, recipe = np.array([[rate[drawn].mean(), rate.mean()] for rate in rates]).reshape(-1, 2).T
    found = _judge_both("rates", [one.rate for one in listed], models, recipe, 1 - ALPHA / num_cells) if listed else {}
    return Round(found=found, flags={})


def _measure_side_metrics(cell: PoolCell, pool: Pool, draw: _Draw, _generator: np.random.Generator) -> Round:
    names, values = measure_side_metrics(cell.pool)
    models, recipe = find_truths(values, draw)
    sides = [[_predict(pool, arm, drawn, draw.images, draw.groups)] for arm, drawn in draw.sides]
    found: dict[str, Found] = {}
    metrics = compute_side_metrics(sides[0], sides[1], _names(pool), {})
    for i, (name, metric) in enumerate(zip(names, metrics, strict=True)):
        found |= _judge_both(name, [metric.difference], models[[i]], recipe[[i]])
    return Round(found=found, flags={})


def _predict(pool: Pool, arm: int, models: IntArray, images: IntArray, groups: IntArray | None) -> list[Predictions]:
    assert pool.logits is not None
    return [
        Predictions(
            sample_ids=np.arange(len(images)),
            labels=pool.labels[images],
            logits=pool.logits[arm, model][images].astype(np.float32),
            split="test",
            groups=groups,
        )
        for model in models
    ]


def _names(pool: Pool) -> tuple[str, ...]:
    return tuple(map(str, range(pool.num_classes)))


def _judge(interval: Interval, truth: float, confidence: float = 1 - ALPHA) -> Found:
    return Found(
        covered=bool(interval.low - ROUNDING <= truth <= interval.high + ROUNDING),
        width=float((interval.high - interval.low) / 2 / special.ndtri(0.5 + confidence / 2)),
        square=float(interval.estimate - truth) ** 2,
    )


def _judge_both(
    name: str, family: Sequence[TwoIntervals], models: FloatArray, recipe: FloatArray, confidence: float = 1 - ALPHA
) -> dict[str, Found]:
    """Return what was found of a family for each question that has intervals; (C,) truths, and the confidence of each alone."""
    found = {}
    for question, truths in (("models", models), ("recipe", recipe)):
        intervals = [getattr(both, question) for both in family]
        if intervals[0] is None:
            continue
        each = [_judge(interval, float(truth), confidence) for interval, truth in zip(intervals, truths, strict=True)]
        found[f"{name}, {question}"] = Found(
            covered=all(one.covered for one in each),
            width=float(np.mean([one.width for one in each])),
            square=float(np.mean([one.square for one in each])),
        )
    return found

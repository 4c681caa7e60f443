"""Projects of many candidates that are drawn from a pool of predictions: an agent gates each, and keeps the best so far.

A candidate is trained with ten seeds, which are models of one recipe of the pool; those of the candidate and of the best so far
are different models. It has the recipe of the best so far, so it is as good, unless it is one with an effect. The agent looks at
the first three pairs of seeds, then after each further pair, until ten or a yes of its log. It keeps the candidate if its mean
macro-F1 on the project's images is higher, whatever the gate says, or never, so that one baseline, lucky or not, meets all
candidates. All candidates have the same images, which are drawn from the
pool with replacement within each class.

Candidates without an effect are of two kinds. Some err as the best so far does, up to their seeds. Others have predictions that
are exchanged between pool images of a class, for a third of the images: they are exactly as good on the pool, and err on other
images.

An effect repairs errors: on a random part of the pool's images, the same for all seeds, every model predicts the label. The part
is as large as the effect needs on the pool. Its unit is the noise that an agent sees: the standard deviation of the difference
between two candidates without an effect, with one seed each, on the project's images.

The gate is asked only at looks whose seeds alone would say yes in a t test: its interval is at least as wide.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.comparison.gate import FIRST_LOOK, bound_p_values, compute_look_share, measure_look
from analysis.comparison.other_intervals import compute_anytime_interval
from analysis.comparison.values import ProjectPlace
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import FloatArray, IntArray, compute_macro_f1
from benchmarks.validation.prediction_pools import Pool, load_pool
from trainables.seeds import numpy_generator

MARGIN, ALPHA, RATE, NUM_SEEDS = 0.005, 0.05, 0.1, 10
EXCHANGED_SHARE, BISECTIONS = 1 / 3, 12
# Of the models of the pool, those on which an effect is measured.
SCORED_EVERY = 5
# The recipe of the pool whose models are drawn.
ARM = 1


class Errors(StrEnum):
    """Where candidates without an effect err."""

    SAME = "the same images"
    OTHER = "other images, in a third"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateProject:
    """A kind of project.

    Attributes:
        pool: its file.
        num_images: N, of the project.
        errors: where candidates without an effect err.
        num_candidates: that are gated, after the first one, which is the best at the start.
        effect: of some candidates, in standard deviations of the noise.
        first, every: numbers of the candidates with an effect: `first`, and each `every` ones after it; none for 0.
        keeps_best: whether the agent keeps the best so far; else all candidates are gated against the first one.
    """

    pool: Path
    num_images: int
    errors: Errors
    num_candidates: int
    effect: float = 0.0
    first: int = 0
    every: int = 0
    keeps_best: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedCandidate:
    """What a gate said of a candidate.

    Attributes:
        is_real: whether it has an effect.
        is_yes: at a look, at the error rate of the comparison alone.
        is_logged_yes: at a look, in the log as well.
        is_sequence_yes: whether the confidence sequence of `other_intervals` lies above 0 at a look; False without an effect.
        num_pairs: of seeds at the look that is a yes in the log; else ten.
    """

    is_real: bool
    is_yes: bool
    is_logged_yes: bool
    is_sequence_yes: bool
    num_pairs: int


@dataclass(frozen=True, slots=True, eq=False)
class _Recipe:
    """A recipe: pool image whose prediction each pool image has, and where errors are repaired, (M,) each."""

    sources: IntArray
    repaired: NDArray[np.bool_]

    def predict(self, pool: Pool, models: IntArray, images: IntArray | slice) -> IntArray:
        """Return (S, N) predictions of models on pool images."""
        found = pool.predicted[ARM][models][:, self.sources[images]]
        return np.where(self.repaired[images], pool.labels[images], found).astype(np.int64)


def gate_project(project: GateProject, number: int) -> tuple[GatedCandidate, ...]:
    """Return what the gate says of each candidate of a project; its number seeds the draws."""
    pool = load_pool(project.pool)
    generator = numpy_generator(
        number, "gate", project.pool.name, project.num_images, project.errors, project.effect, project.first
    )
    images = _draw_images(pool, project.num_images, generator)
    size, everyone = len(pool.labels), np.arange(pool.predicted.shape[1])
    best = _Recipe(np.arange(size), np.zeros(size, dtype=bool))
    noise = measure_noise(pool, best, images, project, generator) if project.effect else 0.0
    old_models = generator.choice(everyone, NUM_SEEDS, replace=False)
    old, found, num_found = best.predict(pool, old_models, images), [], 0
    for t in range(1, project.num_candidates + 1):
        models = generator.choice(np.setdiff1d(everyone, old_models), NUM_SEEDS, replace=False)
        since = t - project.first
        is_real = bool(project.first) and (
            since == 0 or (since > 0 and bool(project.every) and since % project.every == 0)
        )
        recipe = _change(pool, best, project, generator)
        recipe = _improve(pool, recipe, project.effect * noise, generator) if is_real else recipe
        new = recipe.predict(pool, models, images)
        place = ProjectPlace(rate=RATE, number=t, num_found=num_found)
        gains = _score(pool, new, images) - _score(pool, old, images)
        one = _gate(pool, images, new, old, gains, place, is_real=is_real)
        found.append(one)
        num_found += one.is_logged_yes
        if gains.mean() > 0 and project.keeps_best:
            best, old, old_models = recipe, new, models
    return tuple(found)


def measure_noise(
    pool: Pool, best: "_Recipe", images: IntArray, project: GateProject, generator: np.random.Generator
) -> float:
    """Return the standard deviation of the difference between two candidates without an effect, with one seed each."""
    scores = [
        float(_score(pool, _change(pool, best, project, generator).predict(pool, np.array([model]), images), images)[0])
        for model in range(pool.predicted.shape[1])
    ]
    return float(np.sqrt(2) * np.std(scores, ddof=1))


def _draw_images(pool: Pool, num_images: int, generator: np.random.Generator) -> IntArray:
    """Return (N,) pool images, as many of each class as its share, or one more or less."""
    shares = np.bincount(pool.labels) * num_images / len(pool.labels)
    counts = np.diff(np.round(np.cumsum(np.append(0.0, shares))).astype(np.int64))
    return np.concatenate([generator.choice(np.flatnonzero(pool.labels == c), n) for c, n in enumerate(counts)])


def _change(pool: Pool, best: _Recipe, project: GateProject, generator: np.random.Generator) -> _Recipe:
    """Return a recipe that is as good as the best so far."""
    if project.errors is Errors.SAME:
        return best
    sources = np.arange(len(pool.labels))
    for label in range(pool.num_classes):
        own = np.flatnonzero((pool.labels == label) & (generator.random(len(sources)) < EXCHANGED_SHARE))
        sources[own] = generator.permutation(own)
    return _Recipe(sources, best.repaired)


def _improve(pool: Pool, recipe: _Recipe, effect: float, generator: np.random.Generator) -> _Recipe:
    """Return a recipe whose mean macro-F1 on the pool is higher by `effect`, or as high as it can be."""
    order, some = generator.random(len(pool.labels)), np.arange(0, pool.predicted.shape[1], SCORED_EVERY)

    def repair(share: float) -> _Recipe:
        return _Recipe(recipe.sources, recipe.repaired | (order < share))

    def score(share: float) -> float:
        return float(_score(pool, repair(share).predict(pool, some, slice(None)), slice(None)).mean())

    goal, low, high = score(0.0) + effect, 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if score(middle) >= goal else (middle, high)
    return repair(high)


def _gate(
    pool: Pool, images: IntArray, new: IntArray, old: IntArray, gains: FloatArray, place: ProjectPlace, *, is_real: bool
) -> GatedCandidate:
    """Return what the gate says of a candidate with predictions (10, N) against those of the best so far, and (10,) gains."""
    level, smallest = min(ALPHA, float(bound_p_values(place, place.num_found + 1)[-1])), 1.0
    is_sequence_yes, num_pairs = False, NUM_SEEDS
    for number in range(FIRST_LOOK, NUM_SEEDS + 1):
        quantile = special.stdtrit(number - 1, 1 - ALPHA * float(compute_look_share(number)))
        may_be_yes = gains[:number].mean() > quantile * gains[:number].std(ddof=1) / np.sqrt(number)
        if not (may_be_yes or is_real):
            continue
        sides = [_stack(pool, images, side[:number], name) for name, side in (("new", new), ("old", old))]
        if may_be_yes:
            p_value = measure_look(sides[0], sides[1], not_worse=False, margin=MARGIN, alpha=ALPHA)[1]
            smallest = min(smallest, p_value)
        if is_real and not is_sequence_yes:
            is_sequence_yes = compute_anytime_interval(sides[0], sides[1], 1 - 2 * ALPHA).low > 0
        if smallest <= level and num_pairs == NUM_SEEDS:
            num_pairs = number
    return GatedCandidate(
        is_real=is_real,
        is_yes=smallest <= ALPHA,
        is_logged_yes=smallest <= level,
        is_sequence_yes=is_sequence_yes,
        num_pairs=num_pairs,
    )


def _stack(pool: Pool, images: IntArray, predicted: IntArray, name: str) -> ArmPredictions:
    return ArmPredictions(
        name=name,
        seeds=tuple(range(len(predicted))),
        labels=pool.labels[images],
        sample_ids=np.arange(len(images)),
        predicted=predicted,
        num_classes=pool.num_classes,
    )


def _score(pool: Pool, predicted: IntArray, images: IntArray | slice) -> FloatArray:
    """Return (S,) macro-F1."""
    return compute_macro_f1(pool.labels[images], predicted, pool.num_classes)

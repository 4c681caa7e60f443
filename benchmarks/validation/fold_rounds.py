"""Comparisons on small sets, cut into folds or with one test split; the sets are drawn from frozen features of CIFAR-10.

Models are ridge regressions on a part of the features, which is another one for every seed: thousands of trainings take seconds,
and the truth is known, the mean over fresh sets.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.values import Verdict
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import compute_macro_f1
from benchmarks.validation.prediction_pools import read_cifar10
from trainables.data.stratified import choose_groups, choose_stratified, cut_folds
from trainables.seeds import derive_seed, numpy_generator

Features = NDArray[np.float64]
IntArray = NDArray[np.int64]

NUM_COMPONENTS, PENALTY = 128, 30.0
# Parts of the components that the models of an arm see: of a good one, and of one that is worse.
GOOD, WORSE = 96, {2: 40, 10: 80}
ALPHA, NULL_MARGIN, JITTER = 0.05, 0.01, 0.3
NUM_ROUNDS, NUM_TRUTH_SEEDS, NUM_TRUTH_SETS = 20, 16, 20


class Design(StrEnum):
    """How a set is used."""

    FOLDS = "7 seeds x 2 folds of a half"
    FIVE = "3 seeds x 5 folds of a half"
    SPLIT = "15 seeds, one split of a fifth"


SHAPES = {Design.FOLDS: (7, 2, 0.5), Design.FIVE: (3, 5, 0.5), Design.SPLIT: (15, 1, 0.2)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldWorld:
    """What is drawn and how it is judged.

    Attributes:
        features: file of the pool.
        num_classes: the first so many classes of CIFAR-10; of two, cats and dogs.
        num_images: N of a set.
        design: seeds and folds.
        control, treatment: components that the models of an arm see.
        group_size: near-duplicates of each image, itself included.
    """

    features: Path
    num_classes: int
    num_images: int
    design: Design
    control: int = GOOD
    treatment: int = GOOD
    group_size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRound:
    """One comparison: its estimate and interval (fractions), its verdict, and the truth for these images."""

    estimate: float
    low: float
    high: float
    verdict: Verdict
    truth_here: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallSet:
    """(N, D) features, (N,) labels and groups of a drawn set, and the pool that it was drawn from."""

    features: Features
    labels: IntArray
    groups: IntArray | None
    rest: Features
    rest_labels: IntArray


@lru_cache(maxsize=2)
def load_features(file: Path, num_classes: int) -> tuple[Features, IntArray]:
    """Return the principal components of the pool's features, and labels, of the first classes or of cats and dogs."""
    with np.load(file) as stored:
        features, labels = stored["features"].astype(np.float64), stored["labels"]
    classes = np.array([3, 5]) if num_classes == 2 else np.arange(num_classes)
    chosen = np.isin(labels, classes)
    return features[chosen], np.searchsorted(classes, labels[chosen])


def make_features(_: str, file: Path) -> None:
    """Write the first principal components of the frozen features of 20,000 images, scaled alike, and the labels."""
    train, train_labels, test, test_labels, _ = read_cifar10()
    both = np.concatenate([train, test]).astype(np.float64)
    components = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)[2][:NUM_COMPONENTS]
    scores = (both - both.mean(axis=0)) @ components.T
    scores /= scores.std()
    with file.open("wb") as stream:
        np.savez(stream, features=scores.astype(np.float32), labels=np.concatenate([train_labels, test_labels]))


def draw_set(world: FoldWorld, generator: np.random.Generator) -> SmallSet:
    """Return a stratified set from the pool."""
    features, labels = load_features(world.features, world.num_classes)
    chosen = choose_stratified(labels, world.num_images // world.group_size, generator)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    own, groups = np.repeat(chosen, world.group_size), None
    drawn = features[own]
    if world.group_size > 1:
        groups = np.repeat(np.arange(len(chosen)), world.group_size)
        drawn = (
            drawn
            + JITTER * generator.standard_normal(drawn.shape) * (np.arange(len(own)) % world.group_size > 0)[:, None]
        )
    return SmallSet(features=drawn, labels=labels[own], groups=groups, rest=features[rest], rest_labels=labels[rest])


def predict(
    train: Features, labels: IntArray, tests: Features, size: int, seed: int, num_classes: int, arm: str
) -> IntArray:
    """Return the classes that a ridge regression predicts, of a model that sees `size` components, drawn by its seed."""
    seen = numpy_generator(seed, "components", arm).permutation(train.shape[1])[:size]
    inputs, targets = train[:, seen], np.eye(num_classes)[labels] - 1 / num_classes
    mean = inputs.mean(axis=0)
    inputs = inputs - mean
    weights = np.linalg.solve(inputs.T @ inputs + PENALTY * np.eye(size), inputs.T @ targets)
    return np.asarray(((tests[:, seen] - mean) @ weights + targets.mean(axis=0)).argmax(axis=1), dtype=np.int64)


def _judge_seed(world: FoldWorld, found: SmallSet, judged: IntArray, seed: int) -> NDArray[np.int64]:
    """Return (2, J) classes of the judged images, by models that have not seen them: of the control and of the treatment."""
    _, num_folds, _ = SHAPES[world.design]
    groups = None if found.groups is None else found.groups[judged]
    folds = (
        np.ones(len(judged), dtype=np.int64)
        if num_folds == 1
        else cut_folds(found.labels[judged], groups, num_folds, seed)
    )
    predicted = np.zeros((2, len(judged)), dtype=np.int64)
    for fold in range(1, num_folds + 1):
        held_out = judged[folds == fold]
        train = np.setdiff1d(np.arange(len(found.labels)), held_out)
        for arm, size in enumerate((world.control, world.treatment)):
            predicted[arm, folds == fold] = predict(
                found.features[train],
                found.labels[train],
                found.features[held_out],
                size,
                seed,
                world.num_classes,
                f"{arm}",
            )
    return predicted


def measure_block(world: FoldWorld, block: int) -> list[FoldRound]:
    """Return the rounds of a block: sets are drawn, judged as the design says, and compared by the product's row."""
    return [_measure_round(world, number) for number in range(block * NUM_ROUNDS, (block + 1) * NUM_ROUNDS)]


def _measure_round(world: FoldWorld, number: int) -> FoldRound:
    num_seeds, _, share = SHAPES[world.design]
    generator = numpy_generator(number, "set", str(world.num_images), str(world.group_size))
    found = draw_set(world, generator)
    count = round(share * len(found.labels))
    judged = (
        choose_stratified(found.labels, count, generator)
        if found.groups is None
        else choose_groups(found.labels, found.groups, count, generator)
    )
    labels = found.labels[judged]
    seeds = [derive_seed(number, "seed", i) % 2**31 for i in range(num_seeds + NUM_TRUTH_SEEDS)]
    by_seed = np.stack([_judge_seed(world, found, judged, seed) for seed in seeds])
    scores = np.array([[compute_macro_f1(labels, arm, world.num_classes) for arm in one] for one in by_seed])
    control, treatment = (
        ArmPredictions(
            name=name,
            seeds=tuple(range(num_seeds)),
            labels=labels,
            sample_ids=judged,
            predicted=by_seed[:num_seeds, arm],
            num_classes=world.num_classes,
            groups=None if found.groups is None else found.groups[judged],
        )
        for arm, name in enumerate(("control", "treatment"))
    )
    margin = NULL_MARGIN if world.treatment == world.control else _find_margin(world)
    row = compare_arms(treatment, control, margin=margin, alpha=ALPHA, num_rows=1, cost_ratio=None)
    return FoldRound(
        estimate=row.effect.estimate,
        low=row.effect.low,
        high=row.effect.high,
        verdict=row.verdict,
        truth_here=float(np.diff(scores[num_seeds:].mean(axis=0))[0]),
    )


@lru_cache(maxsize=32)
def _find_margin(world: FoldWorld) -> float:
    """Return the true difference, at which EQUIVALENT is wrong; by a few fresh sets, since the truth needs more."""
    return max(abs(float(np.mean([measure_truth(world, block) for block in range(4)]))), NULL_MARGIN / 10)


def measure_truth(world: FoldWorld, block: int) -> float:
    """Return treatment minus control in macro-F1 over fresh training sets, tested on the rest of the pool.

    Two equal arms differ by nothing.
    """
    if world.treatment == world.control:
        return 0.0
    _, num_folds, share = SHAPES[world.design]
    size = round(world.num_images * (1 - share / num_folds))
    differences = []
    for number in range(block * NUM_TRUTH_SETS, (block + 1) * NUM_TRUTH_SETS):
        found = draw_set(world, numpy_generator(number, "fresh set", str(world.num_images)))
        units = np.arange(len(found.labels)) if found.groups is None else found.groups
        order = numpy_generator(number, "kept").permutation(np.unique(units))
        kept = np.flatnonzero(np.isin(units, order[: round(size / world.group_size)]))
        scores = [
            compute_macro_f1(
                found.rest_labels,
                predict(
                    found.features[kept], found.labels[kept], found.rest, seen, number, world.num_classes, f"{arm}"
                ),
                world.num_classes,
            )
            for arm, seen in enumerate((world.control, world.treatment))
        ]
        differences.append(scores[1] - scores[0])
    return float(np.mean(differences))

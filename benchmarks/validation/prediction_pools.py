"""Pools of predictions: 100 models of each of two arms on the same images, of which the truth is known because it is the pool.

An arm is a recipe: networks that are trained on the same images and differ in their initial weights and the order of their
batches. They are linear heads on the frozen features of a ResNet18, and networks of one hidden layer on scikit-learn's digits.
Only the pool of 1,000 classes has no trained network; it is drawn from a model that is fitted to the pool of 100 classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special, stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.performance.reference_recipe import make_config
from benchmarks.quality.drawn_sets import find_data
from trainables.data.sources import load_image_set
from trainables.seeds import numpy_generator, torch_generator
from trainables.training.frozen_features import FrozenBackbone, digest_images

IntArray = NDArray[np.int64]

NUM_MODELS = 100
# Models that are trained at once, and images per step of each.
AT_ONCE, BATCH = 25, 32
IMAGE_SIZE, NUM_CIFAR10_TRAINING = 32, 10_000
NUM_DIGITS_TRAINING, GROUP_SIZE = 60, 5
# Of the fit of a correlation: nodes of the quadrature, and its upper limit.
NUM_NODES, MOST_CORRELATED = 80, 0.98
NUMBERS_PER_CLASS, NUM_FITTED_CLASSES, FITTED_PER_CLASS = 50, 1000, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the networks of an arm are trained.

    Attributes:
        hidden: units of the hidden layer; 0 for a linear head.
        per_class: training images of each class.
        steps: batches.
        rate: learning rate at the start; it falls to 0 linearly.
    """

    hidden: int
    per_class: int
    steps: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Images and the predictions of two arms, by the models' seeds.

    Attributes:
        labels: (M,) classes in [0, K), each with at least one image.
        predicted: (2, R, M) classes.
        logits: (2, R, M, K) float16; None where they are not kept.
        groups: (M,) number of the group of each image, whose images are successive, alike in number and of one class; None
            where images are independent.
    """

    labels: IntArray
    predicted: NDArray[np.int16]
    logits: NDArray[np.float16] | None = None
    groups: IntArray | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.labels.max()) + 1

    def take(self, images: IntArray) -> "Pool":
        """Return the pool of some of the images."""
        logits = None if self.logits is None else self.logits[:, :, images]
        groups = None if self.groups is None else self.groups[images]
        return Pool(labels=self.labels[images], predicted=self.predicted[:, :, images], logits=logits, groups=groups)

    def save(self, file: Path) -> None:
        """Write the pool."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with file.open("wb") as stream:
            np.savez(stream, **{name: values for name, values in arrays.items() if values is not None})


@lru_cache(maxsize=2)
def load_pool(file: Path) -> Pool:
    """Return the pool of a file of `Pool.save`."""
    with np.load(file) as arrays:
        return Pool(**dict(arrays))


# Features (n, D) and labels (n,) to train on, features and labels of the pool, and the groups of the pool's images.
Material = tuple[NDArray[np.float32], IntArray, NDArray[np.float32], IntArray, IntArray | None]


def train_pool(material: Material, recipes: tuple[Recipe, Recipe], *, keeps_logits: bool) -> Pool:
    """Return the pool of two recipes, with `NUM_MODELS` models of each."""
    inputs, labels, tests, test_labels, groups = material
    num_classes = int(labels.max()) + 1
    arms = []
    for recipe in recipes:
        own = np.concatenate([np.flatnonzero(labels == c)[: recipe.per_class] for c in range(num_classes)])
        parts = (
            _train(torch.from_numpy(inputs[own]), torch.from_numpy(labels[own]), torch.from_numpy(tests), recipe, first)
            for first in range(0, NUM_MODELS, AT_ONCE)
        )
        arms.append(np.concatenate([part if keeps_logits else part.argmax(axis=2).astype(np.int16) for part in parts]))
    both = np.stack(arms)
    predicted, logits = (both.argmax(axis=3).astype(np.int16), both) if keeps_logits else (both, None)
    return Pool(labels=test_labels, predicted=predicted, logits=logits, groups=groups)


def _train(inputs: Tensor, labels: Tensor, tests: Tensor, recipe: Recipe, first: int) -> NDArray[np.float16]:
    """Return (`AT_ONCE`, M, K) logits of the models with the seeds from `first` on, which are trained at once."""
    generator = torch_generator(first, "pool", str(recipe))
    sizes = [inputs.shape[1], *([recipe.hidden] if recipe.hidden else []), int(labels.max()) + 1]
    weights = [torch.randn(AT_ONCE, a, b, generator=generator) / a**0.5 for a, b in pairwise(sizes)]
    biases = [torch.zeros(AT_ONCE, 1, b) for b in sizes[1:]]
    parameters = [parameter.requires_grad_() for parameter in (*weights, *biases)]

    def forward(images: Tensor) -> Tensor:
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            images = torch.relu(torch.baddbmm(bias, images, weight))
        return torch.baddbmm(biases[-1], images, weights[-1])

    optimizer = torch.optim.SGD(parameters, lr=recipe.rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=recipe.steps)
    for _ in range(recipe.steps):
        batch = torch.randint(len(inputs), (AT_ONCE, BATCH), generator=generator)
        logits = forward(inputs[batch]).flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, labels[batch].flatten(), reduction="sum") / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return np.asarray(forward(tests.expand(AT_ONCE, -1, -1)).half().numpy())


def read_cifar10(classes: tuple[int, ...] = tuple(range(10))) -> Material:
    """Return standardized features of some classes' images; the pool has as many test images of each class."""
    data = find_data()
    found = load_image_set("parquet", data / "data" / "cifar10", num_images=NUM_CIFAR10_TRAINING)
    assert found.official_test is not None
    weights = str(data / "weights" / "resnet18.pt")
    backbone = FrozenBackbone.build(make_config("resnet18", IMAGE_SIZE), weights, torch.device("cpu"))
    images = np.asarray(found.images)
    features = np.array(backbone.compute(images, digest_images(images)))
    is_test, chosen = found.official_test, np.isin(found.labels, classes)
    features = (features - features[~is_test].mean(axis=0)) / features[~is_test].std(axis=0)
    labels = np.searchsorted(classes, found.labels)
    train, test = np.flatnonzero(chosen & ~is_test), np.flatnonzero(chosen & is_test)
    smallest = np.bincount(labels[test]).min()
    test = np.concatenate([test[labels[test] == label][:smallest] for label in range(len(classes))])
    return features[train], labels[train], features[test], labels[test], None


def read_digits(classes: tuple[int, ...] = tuple(range(10)), *, is_grouped: bool = False) -> Material:
    """Return digits; in groups, the pool has each image and its four shifts by one pixel, such as the frames of a video."""
    images, labels = load_digits(return_X_y=True)
    order = numpy_generator(0, "digits").permutation(len(labels))
    images, labels = images[order].astype(np.float32).reshape(-1, 8, 8) / 16, labels[order]
    own = [np.flatnonzero(labels == c) for c in classes]
    smallest = min(map(len, own))
    train, test = (
        np.concatenate([o[part] for o in own])
        for part in (slice(NUM_DIGITS_TRAINING), slice(NUM_DIGITS_TRAINING, smallest))
    )
    labels = np.searchsorted(classes, labels).astype(np.int64)
    if not is_grouped:
        return images[train].reshape(-1, 64), labels[train], images[test].reshape(-1, 64), labels[test], None
    shifts = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    frames = np.stack([np.roll(images[test], shift, axis=(1, 2)) for shift in shifts], axis=1)
    groups = np.repeat(np.arange(len(test)), GROUP_SIZE)
    tests, test_labels = frames.reshape(-1, 64), np.repeat(labels[test], GROUP_SIZE)
    return images[train].reshape(-1, 64), labels[train], tests, test_labels, groups


def read_numbers() -> Material:
    """Return two digits side by side, numbers from 0 to 99; those of the pool are made of digits that were not trained on."""
    inputs, labels, tests, test_labels, _ = read_digits()
    generator = numpy_generator(0, "numbers")

    def pair(images: NDArray[np.float32], digits: IntArray, per_class: int) -> tuple[NDArray[np.float32], IntArray]:
        numbers = np.repeat(np.arange(100), per_class)
        tens, ones = (
            np.array([generator.choice(np.flatnonzero(digits == digit)) for digit in part])
            for part in (numbers // 10, numbers % 10)
        )
        return np.concatenate([images[tens], images[ones]], axis=1), numbers

    return *pair(inputs, labels, NUM_DIGITS_TRAINING), *pair(tests, test_labels, NUMBERS_PER_CLASS), None


def keep_easy(pool: Pool, accuracy: float) -> Pool:
    """Return the pool of the easiest images, as many of each class, on which the mean accuracy of all models is `accuracy`."""
    ease = (pool.predicted == pool.labels).mean(axis=(0, 1))
    ordered = np.stack(
        [own[np.argsort(-ease[own], kind="stable")] for own in map(partial(_find, pool), range(pool.num_classes))]
    )
    reached = np.cumsum(ease[ordered].mean(axis=0)) / np.arange(1, ordered.shape[1] + 1)
    return pool.take(np.sort(ordered[:, : int((reached >= accuracy).sum())].ravel()))


def make_unequal(pool: Pool) -> Pool:
    """Return a pool of 400 images with classes of 4 to 108."""
    sizes = 4 * np.array([1, 1, 2, 4, 6, 9, 13, 17, 20, 27])
    return pool.take(np.concatenate([_find(pool, c)[:size] for c, size in enumerate(sizes)]))


def _find(pool: Pool, label: int) -> IntArray:
    return np.flatnonzero(pool.labels == label)


def draw_fitted(source: Pool, num_classes: int, per_class: int) -> Pool:
    """Return a pool that is drawn from a model of confusions fitted to another pool.

    A model of an arm is right where threshold + image + arm x image + seed + noise > 0, normal with a total variance of 1. The
    shares of the parts follow from how often two models of an arm, and of both, are right on the same image, and from the
    variance of the models' accuracies. Each class is confused with 99 others as often as the ranks of the source's
    confusions say, and an image has a usual wrong class, which models agree on as often as those of the source.
    """
    arms, models, images = source.predicted.shape
    hits = source.predicted == source.labels
    shares, accuracies = hits.mean(axis=1), hits.mean(axis=2)
    thresholds = special.ndtri(accuracies.mean(axis=1))
    pairs = (
        (0, 0, ((shares[0] * models - 1) * shares[0]).mean() / (models - 1)),
        (0, 1, (shares[0] * shares[1]).mean()),
    )
    within, between = (_find_correlation(thresholds[a], thresholds[b], p) for a, b, p in pairs)
    noise = float((shares * (1 - shares)).mean()) / images
    spread = max(float(accuracies.var(axis=1, ddof=1).mean()) - noise, 0.0) / stats.norm.pdf(thresholds).mean() ** 2
    profile, usual_share = _fit_wrong_classes(source)
    generator = numpy_generator(0, "fitted confusions")
    labels = np.repeat(np.arange(num_classes), per_class)
    others = np.stack(
        [(c + 1 + generator.permutation(num_classes - 1)[: len(profile)]) % num_classes for c in range(num_classes)]
    )
    usual = generator.choice(len(profile), size=len(labels), p=profile)
    common = np.sqrt(between) * generator.standard_normal(len(labels))
    predicted = np.empty((arms, models, len(labels)), dtype=np.int16)
    for arm in range(arms):
        own = common + np.sqrt(max(within - between, 0.0)) * generator.standard_normal(len(labels))
        for model in range(models):
            latent = thresholds[arm] + own + np.sqrt(spread) * generator.standard_normal()
            latent = latent + np.sqrt(1 - within - spread) * generator.standard_normal(len(labels))
            fresh = generator.choice(len(profile), size=len(labels), p=profile)
            ranks = np.where(generator.random(len(labels)) < usual_share, usual, fresh)
            predicted[arm, model] = np.where(latent > 0, labels, others[labels, ranks])
    return Pool(labels=labels, predicted=predicted)


def _find_correlation(one: float, other: float, share: float) -> float:
    """Return the correlation with which two normal latents lie below `one` and `other` together with probability `share`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)

    def excess(correlation: float) -> float:
        scale, common = np.sqrt(1 - correlation), np.sqrt(correlation) * nodes
        together = special.ndtr((one + common) / scale) * special.ndtr((other + common) / scale)
        return float(weights @ together / weights.sum()) - share

    return float(optimize.brentq(excess, 0.0, MOST_CORRELATED))


def _fit_wrong_classes(source: Pool) -> tuple[NDArray[np.float64], float]:
    """Return the shares of a class's wrong classes by rank, and how often a model predicts the usual one of an image."""
    num_classes, images = source.num_classes, np.arange(len(source.labels))
    votes = np.zeros((len(images), num_classes))
    for predicted in source.predicted.reshape(-1, len(images)):
        np.add.at(votes, (images, predicted), predicted != source.labels)
    by_class = np.stack([votes[source.labels == c].sum(axis=0) for c in range(num_classes)])
    ranked = -np.sort(-by_class, axis=1)[:, :-1]
    profile = ranked.sum(axis=0) / ranked.sum()
    totals = votes.sum(axis=1)
    agreement = (votes * (votes - 1)).sum() / (totals * (totals - 1)).sum()
    by_chance = float((profile**2).sum())
    return profile, float(np.sqrt(max(agreement - by_chance, 0.0) / (1 - by_chance)))


def _head(per_class: int, rate: float) -> Recipe:
    return Recipe(hidden=0, per_class=per_class, steps=300, rate=rate)


def _network(hidden: int, per_class: int = NUM_DIGITS_TRAINING, steps: int = 300, rate: float = 0.05) -> Recipe:
    return Recipe(hidden=hidden, per_class=per_class, steps=steps, rate=rate)


@cache
def _make_numbers() -> Pool:
    return train_pool(read_numbers(), (_network(32, steps=600), _network(64, steps=600)), keeps_logits=False)


CIFAR10, CATS_AND_DOGS = "CIFAR-10, heads", "cat or dog, heads"
DIGITS, EASY_DIGITS, ONES_AND_EIGHTS = "digits", "digits, the easiest", "one or eight"
GROUPED, UNEQUAL, NUMBERS, FITTED = (
    "digits in groups of 5",
    "unequal digits",
    "numbers, 100 classes",
    "1,000 classes, fitted",
)

SMALL_NETWORKS = _network(12, per_class=20), _network(24, per_class=20)
POOLS: Mapping[str, Callable[[], Pool]] = {
    NUMBERS: _make_numbers,
    FITTED: lambda: draw_fitted(_make_numbers(), NUM_FITTED_CLASSES, FITTED_PER_CLASS),
    CIFAR10: lambda: train_pool(read_cifar10(), (_head(100, 0.002), _head(200, 0.002)), keeps_logits=True),
    CATS_AND_DOGS: lambda: train_pool(read_cifar10((3, 5)), (_head(100, 0.002), _head(500, 0.002)), keeps_logits=True),
    DIGITS: lambda: train_pool(read_digits(), SMALL_NETWORKS, keeps_logits=True),
    EASY_DIGITS: lambda: keep_easy(
        train_pool(read_digits(), (_network(24), _network(64)), keeps_logits=True), accuracy=0.995
    ),
    ONES_AND_EIGHTS: lambda: train_pool(
        read_digits((1, 8)), (_network(4, per_class=10), _network(16, per_class=40)), keeps_logits=True
    ),
    GROUPED: lambda: train_pool(read_digits(is_grouped=True), SMALL_NETWORKS, keeps_logits=True),
    UNEQUAL: lambda: make_unequal(train_pool(read_digits(), SMALL_NETWORKS, keeps_logits=True)),
}


def make_pool_file(name: str, file: Path) -> None:
    """Write the pool of a name."""
    POOLS[name]().save(file)


POOL_MAKERS: Mapping[str, Callable[[str, Path], Any]] = dict.fromkeys(POOLS, make_pool_file)

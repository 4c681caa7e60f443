"""A linear probe: how well a linear classifier on fixed features separates the classes, out of fold.

It also shows the semantic gap: which classes a frozen backbone cannot tell apart, and what smaller images lose.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from analysis.images.values import PairLoss, PairSeparability, Rung
from analysis.statistics import metrics
from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray
from analysis.statistics.variances import compute_variances, find_sampling_units
from trainables.seeds import derive_seed, numpy_generator

NUM_FOLDS = 5
# Regularization of standardized features. On 5,000 images of CIFAR-10 and 512 features of an ImageNet backbone, macro-F1 is
# 62.5 % with 0.001, 64.1 % with 0.003, 63.8 % with 0.01 and 60.6 % with 0.1.
STRENGTH = 0.003
TOLERANCE = 1e-3
MAX_ITERATIONS = 300
CONFIDENCE = 0.95
SMALLEST_PROBABILITY = 1e-12
# The variance of a separability over that of its influence. The scores of out-of-fold probes also vary with the images that the
# probes are trained on: over simulated samples of 60 to 250 images per class with 20 or 60 features, the standard deviation of
# an area was 1.18 to 1.28 times, and that of a paired difference 1.11 to 1.18 times, what the influence alone gives. Macro-F1
# needs no factor: its intervals covered 95 %, and 5 to 7 % of the paired differences of equally good features excluded 0.
AREA_VARIANCE_FACTOR = 1.5

Fold = tuple[IntArray, IntArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeImages:
    """The images of a probe, with the folds that all probes share, so that they can be paired.

    Attributes:
        sample_ids: (N,) ascending.
        labels: (N,) in [0, K), classes of the probe.
        classes: (K,) the image set's index of each class of the probe.
        groups: (N,) number of the group of each image; None where images are independent.
        folds: training and test positions of every fold.
    """

    sample_ids: IntArray
    labels: IntArray
    classes: IntArray
    groups: IntArray | None
    folds: tuple[Fold, ...]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    def draw_part(self, num_images: int, seed: int) -> "ProbeImages":
        """Return a stratified part of about `num_images` images with folds of its own; all of them if there are no more."""
        if num_images >= len(self.sample_ids):
            return self
        keep = np.isin(self.sample_ids, _draw_stratified(self.sample_ids, self.labels, num_images, seed))
        groups = None if self.groups is None else self.groups[keep]
        return _make_images(self.sample_ids[keep], self.classes[self.labels[keep]], groups, seed) or self


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Out-of-fold predictions of a linear probe.

    Attributes:
        images: the images.
        probabilities: (N, K) float64 of the model that was not trained on the image.
        macro_f1: with its interval over images, for these probes.
        influence: (N,) of each image on macro-F1.
    """

    images: ProbeImages
    probabilities: FloatArray
    macro_f1: Interval
    influence: FloatArray

    @property
    def predicted(self) -> IntArray:
        """(N,) classes of the probe."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def log_probabilities(self) -> FloatArray:
        """(N, K) float64, finite."""
        return np.log(np.maximum(self.probabilities, SMALLEST_PROBABILITY))


def choose_images(
    candidates: IntArray, labels: IntArray, groups: IntArray | None, *, num_images: int, seed: int
) -> ProbeImages | None:
    """Return a stratified sample of images with folds; None if fewer than two classes have two images (or groups of images).

    Args:
        candidates: (M,) sample ids that may be used.
        labels: (N,) classes of all images.
        groups: (N,) number of the group of each image, which folds keep together; None where images are independent.
        num_images: most images that are drawn.
        seed: of the draw and of the folds.
    """
    candidates = np.sort(candidates)
    if len(candidates) > num_images:
        candidates = _draw_stratified(candidates, labels[candidates], num_images, seed)
    own_groups = None if groups is None else groups[candidates]
    return _make_images(candidates, labels[candidates], own_groups, seed)


def fit_probe(features: NDArray[np.floating], images: ProbeImages, strength: float = STRENGTH) -> Probe:
    """Return the out-of-fold predictions of a logistic regression on standardized features.

    Args:
        features: (N, D), of the probe's images.
        images: the images and their folds.
        strength: inverse strength of the regularization (scikit-learn's C).
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=TOLERANCE, max_iter=MAX_ITERATIONS))
    # Two OpenMP threads on a shared core wait for each other: 5,000 images took 0.7 s with one thread and 13 s with two.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class whose images are all in one fold, and the limit of iterations
        probabilities = cross_val_predict(
            model, features.astype(np.float32), images.labels, cv=images.folds, method="predict_proba"
        )
    predicted = np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    score = metrics.compute_macro_f1(images.labels, predicted[None], images.num_classes)
    influence = metrics.compute_macro_f1_influence(images.labels, predicted[None], images.num_classes)[0]
    return Probe(
        images=images,
        probabilities=np.asarray(probabilities, dtype=np.float64),
        macro_f1=compute_image_interval(float(score[0]), influence, images, low=0.0, high=1.0),
        influence=influence,
    )


def compute_image_interval(
    estimate: float,
    influence: FloatArray,
    images: ProbeImages,
    *,
    confidence: float = CONFIDENCE,
    low: float = -1.0,
    high: float = 1.0,
    variance_factor: float = 1.0,
) -> Interval:
    """Return an estimate with its interval for new images, from the influence of each image; stratified by class.

    Args:
        estimate: the statistic.
        influence: (N,) of each image on it; for a paired difference, the difference of the influences.
        images: the images, for classes and groups.
        confidence: two-sided, in (0, 1).
        low: lower bound of the statistic.
        high: upper bound.
        variance_factor: of the variance, for what the influence does not see.
    """
    units = find_sampling_units(images.labels, images.groups)
    variance = variance_factor * compute_variances(np.array([estimate]), influence[None], units).images
    half_width = float(compute_t_quantile(confidence, float(units.freedom))) * variance**0.5
    return Interval(estimate=estimate, low=max(estimate - half_width, low), high=min(estimate + half_width, high))


def compute_probe_difference(treatment: Probe, control: Probe, confidence: float = CONFIDENCE) -> Interval:
    """Return the paired difference in macro-F1 of two probes on the same images and folds, with its interval for new images."""
    estimate = treatment.macro_f1.estimate - control.macro_f1.estimate
    influence = treatment.influence - control.influence
    return compute_image_interval(estimate, influence, treatment.images, confidence=confidence)


def compute_chance_macro_f1(probe: Probe) -> float:
    """Return the macro-F1 expected if the probe's predictions were independent of the labels, as often of each class as they are.

    For shares p of the images and q of the predictions, the F1 of a class is 2 p q / (p + q).
    """
    num_classes = probe.images.num_classes
    true = np.bincount(probe.images.labels, minlength=num_classes) / len(probe.images.labels)
    called = np.bincount(probe.predicted, minlength=num_classes) / len(probe.images.labels)
    return float(np.mean(2 * true * called / (true + called)))


def compute_pair_auc(probe: Probe, first: int, second: int) -> tuple[float, FloatArray]:
    """Return the separability of two classes, and the influence of each image on it.

    It is the area under the ROC curve of log p_first - log p_second on the images of the two classes (Hand and Till 2001, Mach.
    Learn. 45:171): the probability that the probe orders an image of each rightly. 1/2 is chance. The influence is that of DeLong
    et al. (1988, Biometrics 44:837).

    The variance of the area is `AREA_VARIANCE_FACTOR` times that of its influence.

    Args:
        probe: over N images.
        first: class of the probe.
        second: another one.

    Returns:
        The area in [0, 1], and (N,) float64 that sum to 0 over the images of each class.
    """
    labels, logs = probe.images.labels, probe.log_probabilities
    above, below = np.flatnonzero(labels == first), np.flatnonzero(labels == second)
    scores = logs[:, first] - logs[:, second]
    ranks = rankdata(np.concatenate([scores[above], scores[below]]))
    wins = (ranks[: len(above)] - rankdata(scores[above])) / len(below)
    losses = 1 - (ranks[len(above) :] - rankdata(scores[below])) / len(above)
    area = float(wins.mean())
    influence = np.zeros(len(labels))
    influence[above] = (wins - area) * len(labels) / len(above)
    influence[below] = (losses - area) * len(labels) / len(below)
    return area, influence


def _draw_stratified(ids: IntArray, labels: IntArray, num_images: int, seed: int) -> IntArray:
    """Return about `num_images` ids, of each class its share and at least two, ascending."""
    generator = numpy_generator(seed, "probe-images")
    share = num_images / len(ids)
    chosen = []
    for label in np.unique(labels):
        members = ids[labels == label]
        count = min(len(members), max(2, round(share * len(members))))
        chosen.append(generator.choice(members, size=count, replace=False))
    return np.sort(np.concatenate(chosen))


def _make_images(ids: IntArray, labels: IntArray, groups: IntArray | None, seed: int) -> ProbeImages | None:
    """Return the images of the classes with two images (or groups of images) or more; None for fewer than two such classes."""
    members = ids if groups is None else groups
    keep = np.isin(labels, [k for k in np.unique(labels) if len(np.unique(members[labels == k])) >= 2])
    ids, labels, groups = ids[keep], labels[keep], None if groups is None else groups[keep]
    classes, own = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return None
    random_state = derive_seed(seed, "probe-folds") % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with fewer images than folds
        if groups is None:
            num_folds = min(NUM_FOLDS, int(np.bincount(own).max()))
            folds = list(StratifiedKFold(num_folds, shuffle=True, random_state=random_state).split(ids, own))
        else:
            num_folds = min(NUM_FOLDS, len(np.unique(groups)))
            splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=random_state)
            folds = list(splitter.split(ids, own, groups))
    return ProbeImages(sample_ids=ids, labels=own, classes=classes, groups=groups, folds=tuple(folds))


LADDER = (8, 16, 24, 32, 64, 128, 256, 512)
# With more pairs of classes, those that the probe confuses most are compared.
MAX_PAIRS = 1000
NUM_LOST_PAIRS, NUM_WEAKEST_PAIRS = 3, 10


def list_sides(native: int, image_size: int) -> tuple[int, ...]:
    """Return the sides of the ladder, descending: the native one, and those of `LADDER` below it and below the model's input."""
    return (native, *(side for side in reversed(LADDER) if side < min(native, image_size)))


def choose_pairs(probe: Probe) -> tuple[tuple[int, int], ...]:
    """Return the pairs of the probe's classes that are compared: all, or the `MAX_PAIRS` most confused ones."""
    pairs = list(itertools.combinations(range(probe.images.num_classes), 2))
    if len(pairs) <= MAX_PAIRS:
        return tuple(pairs)
    rates = _confusion_rates(probe)
    order = np.argsort([-rates[pair] for pair in pairs], kind="stable")
    return tuple(pairs[i] for i in order[:MAX_PAIRS])


def rank_pairs(probe: Probe, pairs: Sequence[tuple[int, int]]) -> tuple[PairSeparability, ...]:
    """Return the separability of pairs of the probe's classes, the least separable first."""
    rates, classes = _confusion_rates(probe), probe.images.classes
    found = []
    for first, second in pairs:
        area, influence = compute_pair_auc(probe, first, second)
        interval = compute_image_interval(area, influence, probe.images, low=0.0, variance_factor=AREA_VARIANCE_FACTOR)
        found.append(
            PairSeparability(
                first=int(classes[first]),
                second=int(classes[second]),
                area=interval,
                confusion_rate=float(rates[first, second]),
            )
        )
    return tuple(sorted(found, key=lambda p: p.area.estimate))


def climb_down(
    compute: Callable[[int], NDArray[np.floating]], images: ProbeImages, sides: Sequence[int]
) -> tuple[Rung, ...]:
    """Return the rungs of the ladder: a probe at each side, on the same images and folds, and what each step loses.

    Args:
        compute: returns (N, D) features of the probe's images at a side.
        images: of all probes.
        sides: descending.
    """
    rungs: list[Rung] = []
    larger: Probe | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    for side in sides:
        probe = fit_probe(compute(side), images)
        pairs = pairs or choose_pairs(probe)
        rungs.append(
            Rung(
                side=side,
                macro_f1=probe.macro_f1,
                loss=None if larger is None else compute_probe_difference(larger, probe),
                weakest=rank_pairs(probe, pairs)[:NUM_WEAKEST_PAIRS],
                lost_pairs=() if larger is None else _find_lost_pairs(larger, probe, pairs),
            )
        )
        larger = probe
    return tuple(rungs)


def _find_lost_pairs(larger: Probe, smaller: Probe, pairs: Sequence[tuple[int, int]]) -> tuple[PairLoss, ...]:
    classes = larger.images.classes
    confidence = 1 - (1 - CONFIDENCE) / len(pairs)
    found = []
    for first, second in pairs:
        before, before_influence = compute_pair_auc(larger, first, second)
        after, after_influence = compute_pair_auc(smaller, first, second)
        influence = before_influence - after_influence
        loss = compute_image_interval(
            before - after, influence, larger.images, confidence=confidence, variance_factor=AREA_VARIANCE_FACTOR
        )
        found.append(PairLoss(first=int(classes[first]), second=int(classes[second]), loss=loss))
    return tuple(sorted(found, key=lambda p: -p.loss.estimate)[:NUM_LOST_PAIRS])


def _confusion_rates(probe: Probe) -> FloatArray:
    """Return (K, K), symmetric: the share of two classes' images that are predicted as the other one."""
    counts = metrics.compute_confusion_counts(probe.images.labels, probe.predicted, probe.images.num_classes)
    sizes = counts.sum(axis=1)
    return np.asarray((counts + counts.T) / (sizes[:, None] + sizes[None]), dtype=np.float64)

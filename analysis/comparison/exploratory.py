"""What stands beside the verdict of a row, exploratory: other metrics of both sides, and their F1 class by class.

Accuracy, log loss, Brier score, calibration error and the worst class are paired differences. Each metric is computed per seed
with the influence of every image, for all images and for those of named groups of classes. Their intervals are pointwise, and
macro-F1 alone decides. Metrics that count images have pseudo-observations (`families`); log loss and Brier score, which hardly
ever agree on an image, have none. The differences class by class are tested with control of the false discovery rate.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats
from scipy.special import log_softmax

from analysis.comparison.values import LOSSES, ClassDifference, SideMetric
from analysis.confusions.class_scores import check_class_names
from analysis.statistics import metrics
from analysis.statistics.arm_predictions import ArmPredictions, Side, average_members, check_paired
from analysis.statistics.families import Cell, Scale, compute_family, compute_recipe_p_values, compute_two_intervals
from analysis.statistics.metrics import FloatArray, IntArray
from search_spaces.errors import UserInputError, list_some
from trainables.training.predictions import Predictions

CONFIDENCE = 0.95
NUM_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """One model's predictions: labels (N,), log probabilities (N, K), chosen classes (N,), and the classes of the group."""

    labels: IntArray
    logs: FloatArray
    predicted: IntArray
    classes: tuple[int, ...]


# A metric returns its value and the (N,) influence of the images, which has a mean of zero over the images that it counts: those
# of the group, or all of them.
_Metric = Callable[[_Scores], tuple[float, FloatArray]]


def compute_side_metrics(
    treatment: Sequence[Sequence[Predictions]],
    control: Sequence[Sequence[Predictions]],
    class_names: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    *,
    has_scores: bool = True,
) -> tuple[SideMetric, ...]:
    """Return every metric for all images, and for the images of each group of classes.

    Args:
        treatment: for each of its arms, the predictions of S seeds.
        control: the same for the control, with the same seeds in the same order, and the same images.
        class_names: K names.
        groups: names of classes, by the name of the group.
        has_scores: whether the logits are those of the models; False where they only mark the predicted class, which says nothing
            about losses and calibration.

    Raises:
        UserInputError: if the sides differ in seeds or images, or a group has an unknown class.
    """
    first = treatment[0][0]
    models = [p for side in (treatment, control) for arm in side for p in arm]
    if len({len(arm) for side in (treatment, control) for arm in side}) > 1:
        raise UserInputError("both sides need the same seeds")
    if any(not np.array_equal(p.sample_ids, first.sample_ids) for p in models):
        raise UserInputError("both sides need the same images")
    unknown = sorted({name for names in groups.values() for name in names} - set(class_names))
    if unknown:
        raise UserInputError(f"a group has classes that do not exist: {list_some(unknown)}")
    found = []
    for group, names in {"": tuple(class_names), **groups}.items():
        classes = tuple(class_names.index(name) for name in names)
        images = np.flatnonzero(np.isin(first.labels, classes))
        if not len(images):
            continue
        for name, metric in METRICS.items():
            if not has_scores and name in NEED_SCORES:
                continue
            scale = Scale.UNBOUNDED if name in LOSSES else Scale.DIFFERENCE
            sides = [_measure_side(side, metric, classes) for side in (treatment, control)]
            (values_a, influence_a), (values_b, influence_b) = sides
            sampled = np.arange(len(first.labels)) if name in COUNT_ALL_IMAGES else images
            cell = Cell(
                values=values_a - values_b,
                influence=(influence_a - influence_b)[:, sampled],
                labels=first.labels[sampled],
                num_observations=_count_observations(name, models, classes, len(sampled)),
                groups=None if first.groups is None else first.groups[sampled],
            )
            found.append(
                SideMetric(
                    name=name,
                    group=group,
                    treatment=float(values_a.mean()),
                    control=float(values_b.mean()),
                    difference=compute_two_intervals(cell, scale=scale, confidence=CONFIDENCE),
                )
            )
    return tuple(found)


def _count_observations(name: str, models: Sequence[Predictions], classes: tuple[int, ...], number: int) -> float:
    """Return how many images a metric rests on, the mean over the models: `number`, unless it weighs images unequally."""
    count = OBSERVATIONS.get(name)
    return float(number if count is None else np.mean([count(_score(model, classes)) for model in models]))


def _measure_side(
    side: Sequence[Sequence[Predictions]], metric: _Metric, classes: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Return (S,) values and (S, N) influences, the means over the arms of a side."""
    measured = [[metric(_score(p, classes)) for p in arm] for arm in side]
    values = np.mean([[value for value, _ in arm] for arm in measured], axis=0)
    return values, np.mean([[influence for _, influence in arm] for arm in measured], axis=0)


def _score(predictions: Predictions, classes: tuple[int, ...]) -> _Scores:
    logs = np.asarray(log_softmax(predictions.logits.astype(np.float64), axis=1))
    return _Scores(labels=predictions.labels, logs=logs, predicted=predictions.predicted, classes=classes)


def _mean(losses: FloatArray, scores: _Scores) -> tuple[float, FloatArray]:
    """Return the mean over the group's images; the influence of other images is zero."""
    inside = np.isin(scores.labels, scores.classes)
    value = float(losses[inside].mean())
    return value, np.where(inside, losses - value, 0.0)


def _accuracy(scores: _Scores) -> tuple[float, FloatArray]:
    return _mean((scores.predicted == scores.labels).astype(np.float64), scores)


def _balanced_accuracy(scores: _Scores) -> tuple[float, FloatArray]:
    inside = np.isin(scores.labels, scores.classes)
    sizes = np.bincount(scores.labels, minlength=max(scores.classes) + 1)
    weights = np.where(inside, inside.sum() / (len(scores.classes) * np.maximum(sizes[scores.labels], 1)), 0.0)
    hits = (scores.predicted == scores.labels).astype(np.float64)
    value = float((weights * hits)[inside].mean())
    recall = np.bincount(scores.labels, weights=hits, minlength=len(sizes)) / np.maximum(sizes, 1)
    return value, weights * (hits - recall[scores.labels])


def _count_balanced(scores: _Scores) -> float:
    """Return the effective number of the group's images (Kish 1965), each weighted by one over the size of its class."""
    sizes = np.bincount(scores.labels, minlength=max(scores.classes) + 1)[list(scores.classes)]
    return float(len(scores.classes) ** 2 / (1 / np.maximum(sizes, 1)).sum())


def _log_loss(scores: _Scores) -> tuple[float, FloatArray]:
    return _mean(-scores.logs[np.arange(len(scores.labels)), scores.labels], scores)


def _brier(scores: _Scores) -> tuple[float, FloatArray]:
    errors = np.exp(scores.logs)
    errors[np.arange(len(scores.labels)), scores.labels] -= 1.0
    return _mean((errors**2).sum(axis=1), scores)


def _calibration_error(scores: _Scores) -> tuple[float, FloatArray]:
    """Return the expected calibration error over `NUM_BINS` bins of equal width (Guo et al. 2017, ICML)."""
    inside = np.isin(scores.labels, scores.classes)
    confidence = np.exp(scores.logs.max(axis=1))
    gaps = np.where(inside, confidence - (scores.predicted == scores.labels), 0.0)
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    signs = np.sign(np.bincount(bins, weights=gaps, minlength=NUM_BINS))
    value = float((signs[bins] * gaps).sum() / inside.sum())
    return value, np.where(inside, signs[bins] * gaps - value, 0.0)


def _worst_f1(scores: _Scores) -> tuple[float, FloatArray]:
    """Return the F1 of the group's worst class, among all images; its influence is that of this class's F1."""
    worst, f1, _ = _find_worst(scores)
    return f1, metrics.compute_f1_influence(scores.labels, scores.predicted[None], worst)[0]


def _find_worst(scores: _Scores) -> tuple[int, float, float]:
    """Return the group's class with the lowest F1 among all images, this F1, and the images of the class or predicted as it."""
    counts = metrics.compute_confusion_counts(scores.labels, scores.predicted[None], scores.logs.shape[1])
    f1 = metrics.compute_f1_from_confusion(counts)[0]
    worst = min(scores.classes, key=lambda c: float(f1[c]))
    either = counts[0, worst].sum() + counts[0, :, worst].sum() - counts[0, worst, worst]
    return worst, float(f1[worst]), float(either)


METRICS: Mapping[str, _Metric] = {
    "accuracy": _accuracy,
    "balanced accuracy": _balanced_accuracy,
    "log loss": _log_loss,
    "Brier score": _brier,
    "calibration error": _calibration_error,
    "worst class's F1": _worst_f1,
}
# Metrics of the probabilities; the others need the predicted classes alone.
NEED_SCORES = frozenset({"log loss", "Brier score", "calibration error"})
# An image of another class that is predicted as one of the group's is an error of these metrics too.
COUNT_ALL_IMAGES = frozenset({"worst class's F1"})
# Images behind a metric of which not every image says the same.
OBSERVATIONS: Mapping[str, Callable[[_Scores], float]] = {
    "balanced accuracy": _count_balanced,
    "worst class's F1": lambda scores: _find_worst(scores)[2],
}


FALSE_DISCOVERY_RATE = 0.10


def compute_class_differences(
    treatment: Side, control: Side, class_names: Sequence[str]
) -> tuple[ClassDifference, ...]:
    """Return treatment minus control in F1, class by class, with 95 % intervals and adjusted p-values.

    The classes are one family with moderated variances between seeds (`analysis.statistics.families`); each p-value is the
    inverse of the class's interval for new seeds. A class is flagged if its adjusted p-value is at most
    `FALSE_DISCOVERY_RATE` (Benjamini and Hochberg 1995, JRSS B 57:289).

    Args:
        treatment: of S seeds.
        control: with the same seeds and images.
        class_names: K names; a class indexes them.

    Returns:
        One per class, in the order of the names; none for one seed, where a difference for new seeds is not defined.

    Raises:
        UserInputError: for sides that do not pair, or names that do not fit.
    """
    check_paired(treatment, control)
    check_class_names(treatment, class_names)
    if len(treatment.seeds) < 2:
        return ()
    cells = make_class_cells(treatment, control, range(treatment.num_classes))
    found = compute_family(cells, scale=Scale.DIFFERENCE, confidence=CONFIDENCE)
    p_values = compute_recipe_p_values(cells, scale=Scale.DIFFERENCE)
    adjusted = stats.false_discovery_control(p_values, method="bh")
    differences = []
    for name, both, p_value, p_adjusted in zip(class_names, found, p_values.tolist(), adjusted.tolist(), strict=True):
        assert both.recipe is not None
        difference = ClassDifference(
            class_name=name,
            effect=both.recipe,
            p_value=p_value,
            p_adjusted=p_adjusted,
            is_flagged=p_adjusted <= FALSE_DISCOVERY_RATE,
            models_effect=both.models,
        )
        differences.append(difference)
    return tuple(differences)


def make_class_cells(treatment: Side, control: Side, classes: Iterable[int]) -> list[Cell]:
    """Return the difference in F1 of each class, treatment minus control, as one family.

    Args:
        treatment: of S seeds.
        control: with the same seeds and images.
        classes: in [0, K).
    """

    def subtract(compute: Callable[[ArmPredictions], FloatArray]) -> FloatArray:
        return average_members(treatment, compute) - average_members(control, compute)

    f1 = subtract(_class_f1)
    sizes = (average_members(treatment, _class_sizes) + average_members(control, _class_sizes)) / 2
    return [
        Cell(
            values=np.ascontiguousarray(f1[:, index]),
            influence=subtract(partial(_class_f1_influence, index=index)),
            labels=treatment.labels,
            num_observations=float(sizes[index]),
            groups=treatment.groups,
        )
        for index in classes
    ]


def _class_f1(arm: ArmPredictions) -> FloatArray:
    """Return (S, K) F1 of each class."""
    counts = metrics.compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes)
    return metrics.compute_f1_from_confusion(counts)


def _class_sizes(arm: ArmPredictions) -> FloatArray:
    """Return (K,) images that are of the class or predicted as it, the mean over seeds."""
    counts = metrics.compute_confusion_counts(arm.labels, arm.predicted, arm.num_classes)
    either = counts.sum(axis=-1) + counts.sum(axis=-2) - np.diagonal(counts, axis1=-2, axis2=-1)
    return np.asarray(either.mean(axis=0))


def _class_f1_influence(arm: ArmPredictions, index: int) -> FloatArray:
    return metrics.compute_f1_influence(arm.labels, arm.predicted, index)

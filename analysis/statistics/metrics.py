"""Confusion counts, precision, recall and F1 over arrays, and the influence of each image on them.

Undefined values are 0, as with zero_division=0 in scikit-learn.

The influence of image i is the derivative of the statistic when i's share of the image weights grows, scaled so that the
statistic's sampling variance is the variance of the influence over N (Hampel 1974, JASA 69:383). It sums to 0 over the images.
"""

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def compute_confusion_counts(labels: IntArray, predicted: IntArray, num_classes: int) -> IntArray:
    """Return how many images of each true class were predicted as each class.

    Args:
        labels: (N,) integers in [0, K).
        predicted: (..., N) integers in [0, K).
        num_classes: K.

    Returns:
        (..., K, K) int64; row = true class, column = predicted class.

    Raises:
        UserInputError: if the shapes do not fit or a class lies outside [0, K).
    """
    if predicted.shape[-1:] != labels.shape:
        raise UserInputError(
            f"labels (N,) and predicted (..., N) need the same N, but are {labels.shape} and {predicted.shape}"
        )
    for name, classes in (("labels", labels), ("predicted classes", predicted)):
        if classes.size and (classes.min() < 0 or classes.max() >= num_classes):
            raise UserInputError(
                f"{name} must lie in [0, {num_classes}), but reach from {classes.min()} to {classes.max()}"
            )
    leading = predicted.shape[:-1]
    num_cells = num_classes * num_classes
    cells = (labels * num_classes + predicted).reshape(-1, len(labels))
    offsets = np.arange(len(cells))[:, None] * num_cells
    counts = np.bincount((cells + offsets).ravel(), minlength=len(cells) * num_cells)
    return counts.reshape(*leading, num_classes, num_classes).astype(np.int64)


def divide_or_zero(numerator: NDArray[np.number], denominator: NDArray[np.number]) -> FloatArray:
    """Return numerator / denominator as float64, broadcast; 0 where the denominator is 0."""
    above = np.asarray(numerator, dtype=np.float64)
    below = np.asarray(denominator, dtype=np.float64)
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.zeros(shape), where=below != 0)


def compute_f1_from_confusion(counts: NDArray[np.number]) -> FloatArray:
    """Return (..., K) F1 per class from (..., K, K) counts; 0 for a class neither present nor predicted."""
    true_positives = np.diagonal(counts, axis1=-2, axis2=-1)
    return divide_or_zero(2 * true_positives, counts.sum(axis=-1) + counts.sum(axis=-2))


def compute_precision_from_confusion(counts: NDArray[np.number]) -> FloatArray:
    """Return (..., K) precision per class from (..., K, K) counts; 0 for a class never predicted."""
    return divide_or_zero(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-2))


def compute_macro_f1(labels: IntArray, predicted: IntArray, num_classes: int) -> FloatArray:
    """Return (...) macro-F1, the plain mean of F1 over all K classes, from labels (N,) and predicted (..., N)."""
    counts = compute_confusion_counts(labels, predicted, num_classes)
    return np.asarray(compute_f1_from_confusion(counts).mean(axis=-1))


def compute_weighted_macro_f1(
    labels: IntArray, predicted: IntArray, weights: NDArray[np.floating], num_classes: int
) -> FloatArray:
    """Return macro-F1 of every model under every weighting of the images, by matrix products.

    Args:
        labels: (N,) integers in [0, K).
        predicted: (M, N) integers in [0, K), one row per model.
        weights: (B, N) image weights >= 0. Sums run in their dtype; float32 is exact for whole-number weights
            whose sum stays below 2**24.
        num_classes: K.

    Returns:
        (B, M) float64.
    """
    num_models = len(predicted)
    shape = (len(weights), num_models, num_classes)
    true_positives, denominators = np.zeros(shape), np.zeros(shape)
    for true_class in range(num_classes):
        images = np.flatnonzero(labels == true_class)
        if not len(images):
            continue
        one_hot = predicted[:, images].T[:, :, None] == np.arange(num_classes)
        cells = weights[:, images] @ one_hot.reshape(len(images), -1).astype(weights.dtype)
        row = cells.reshape(shape).astype(np.float64)
        true_positives[:, :, true_class] = row[:, :, true_class]
        denominators += row
        denominators[:, :, true_class] += row.sum(axis=-1)
    return np.asarray(divide_or_zero(2 * true_positives, denominators).mean(axis=-1))


def compute_macro_f1_influence(labels: IntArray, predicted: IntArray, num_classes: int) -> FloatArray:
    """Return the influence of each image on macro-F1.

    With n_c true and m_c predicted images of class c and F_c its F1, psi_i = (N / K) * sum over c of
    [2 * 1(y_i = c and yhat_i = c) - F_c * (1(y_i = c) + 1(yhat_i = c))] / (n_c + m_c).

    Args:
        labels: (N,) integers in [0, K).
        predicted: (S, N) integers in [0, K), one row per seed.
        num_classes: K.

    Returns:
        (S, N) float64, each row summing to 0.
    """
    counts = compute_confusion_counts(labels, predicted, num_classes)
    inverse = divide_or_zero(np.ones(1), counts.sum(axis=-1) + counts.sum(axis=-2))
    share = compute_f1_from_confusion(counts) * inverse
    hits = 2.0 * (predicted == labels) * inverse[:, labels]
    psi = hits - share[:, labels] - np.take_along_axis(share, predicted, axis=1)
    return np.asarray(psi * (len(labels) / num_classes))


def compute_f1_influence(labels: IntArray, predicted: IntArray, class_index: int) -> FloatArray:
    """Return (S, N) influence on the F1 of one class, from labels (N,) and predicted (S, N)."""
    true, guess = labels == class_index, predicted == class_index
    return _compute_ratio_influence(2.0 * (true & guess), true.astype(np.float64) + guess)


def compute_precision_influence(labels: IntArray, predicted: IntArray, class_index: int) -> FloatArray:
    """Return (S, N) influence on the precision of one class, from labels (N,) and predicted (S, N)."""
    guess = predicted == class_index
    return _compute_ratio_influence((guess & (labels == class_index)).astype(np.float64), guess.astype(np.float64))


def _compute_ratio_influence(hits: FloatArray, marks: FloatArray) -> FloatArray:
    """Return (S, N) influence on the sum of (S, N) hits over that of marks; 0 where the second sum is 0."""
    size = marks.sum(axis=1, keepdims=True)
    ratio = divide_or_zero(hits.sum(axis=1, keepdims=True), size)
    return np.asarray(hits.shape[1] * divide_or_zero(hits - ratio * marks, size))

"""Influence of each image on macro-F1, and on the F1 and precision of a class.

The influence of image i is the derivative of the statistic when i's share of the image weights grows, scaled so that
the statistic's sampling variance is the variance of the influence over N (Hampel 1974, JASA 69:383). It sums to 0
over the images.
"""

import numpy as np

from analysis.statistics.metrics import (
    FloatArray,
    IntArray,
    compute_confusion_counts,
    compute_f1_from_confusion,
    divide_or_zero,
)


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
    hit = true & guess
    size = (true.sum() + guess.sum(axis=1))[:, None]
    f1 = divide_or_zero(2 * hit.sum(axis=1, keepdims=True), size)
    marks = true.astype(np.float64) + guess
    return len(labels) * divide_or_zero(2.0 * hit - f1 * marks, size)


def compute_precision_influence(labels: IntArray, predicted: IntArray, class_index: int) -> FloatArray:
    """Return (S, N) influence on the precision of one class, from labels (N,) and predicted (S, N)."""
    guess = predicted == class_index
    hit = guess & (labels == class_index)
    size = guess.sum(axis=1, keepdims=True)
    precision = divide_or_zero(hit.sum(axis=1, keepdims=True), size)
    return len(labels) * divide_or_zero(hit - precision * guess, size)

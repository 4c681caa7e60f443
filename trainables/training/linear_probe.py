"""A linear probe on the features of a frozen backbone: as a baseline, and as the first head of a trial (LP-FT)."""

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import nn

from search_spaces.config import TrialConfig
from trainables.data.stratified import choose_stratified
from trainables.models.heads import Head, find_head
from trainables.seeds import numpy_generator
from trainables.training.evaluation import compute_mean_f1
from trainables.training.frozen_features import Features, FrozenBackbone, borrow_backbone
from trainables.training.trial_data import PlacedImages, TrialData

# Inverse strengths of the regularization of standardized features, of which the best on the search split is chosen.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
# Strengths after the best one so far that are tried; the score has one peak.
PATIENCE = 2
MAX_IMAGES = 20_000
MAX_ITERATIONS, TOLERANCE = 300, 1e-3
# Below this ratio of the largest class to the smallest, balanced class weights change little.
MAX_BALANCED_RATIO = 1.2
# The least scale of a feature, as a share of the mean scale: a feature that hardly varies in the training images may vary later.
MIN_SCALE = 0.1
# Bias of a class without training images.
ABSENT = -30.0
# Norm of the features of a head that is trained alone: with it, the rates and the steps of a first study regularize as the
# strengths above do. With norm 1, the lower rates hardly leave the start.
FEATURE_NORM = 8.0

Labels = NDArray[np.int64]
Scale = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """A fitted probe: logits = weight @ ((features - mean) / scale) + bias.

    Attributes:
        weight: (K, D) float32.
        bias: (K,) float32.
        mean, scale: (D,) float32, of the training features.
        strength: scikit-learn's C.
        is_balanced: whether the classes are weighted by inverse frequency.
        macro_f1: on the search split, on which strength and weights were chosen.
        num_images: that it was fitted on.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    strength: float
    is_balanced: bool
    macro_f1: float
    num_images: int

    def compute_logits(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return (N, K) logits of (N, D) features."""
        return np.asarray(((features - self.mean) / self.scale) @ self.weight.T + self.bias, dtype=np.float32)


def draw_sample(indices: Labels, labels: Labels, most: int) -> Labels:
    """Return the indices, or a stratified sample of at most `most` of them, ascending; `labels` are those of all images."""
    if len(indices) <= most:
        return indices
    return np.sort(indices[choose_stratified(labels[indices], most, numpy_generator(0, "linear probe"))])


class Sample(NamedTuple):
    """Features (N, D) of images, their labels (N,) in [0, K), and their weights (N,); None for 1."""

    features: NDArray[np.floating]
    labels: Labels
    weights: NDArray[np.float64] | None = None


def fit_linear_probe(train: Sample, search: Sample, num_classes: int) -> LinearProbe:
    """Return the probe with the best macro-F1 on the search split; ties go to the stronger regularization.

    Classes are weighted by inverse frequency or not at all, where they are unequal; else they are not, and not beside weights of
    the images.

    Args:
        train: Training images.
        search: Images of the search split.
        num_classes: K.
    """
    standardized = _standardize(train)
    counts = np.bincount(train.labels, minlength=num_classes)
    present = counts[counts > 0]
    is_unequal = train.weights is None and present.max() >= MAX_BALANCED_RATIO * present.min()
    fitted: list[LinearProbe] = []
    for is_balanced in (False, True) if is_unequal else (False,):
        best, num_worse = -1.0, 0
        for strength in STRENGTHS:
            probe = _fit(*standardized, num_classes, strength, is_balanced)
            predicted = probe.compute_logits(search.features).argmax(axis=1).astype(np.int64)
            score = compute_mean_f1(search.labels, predicted, num_classes, search.weights)
            fitted.append(replace(probe, macro_f1=score))
            best, num_worse = max(best, score), 0 if score > best else num_worse + 1
            if num_worse > PATIENCE:
                break
    return max(fitted, key=lambda probe: probe.macro_f1)


def fit_again(train: Sample, num_classes: int, strength: float, *, is_balanced: bool) -> LinearProbe:
    """Return a probe fitted on other images, by a strength and weights of the classes that were chosen before.

    Its macro-F1 on the search split is not known (NaN).
    """
    return _fit(*_standardize(train), num_classes, strength, is_balanced)


def measure_scale(features: NDArray[np.floating]) -> Scale:
    """Return mean and scale (D,) of features; the scale is their standard deviation, but at least `MIN_SCALE` times its mean."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.maximum(scale, max(MIN_SCALE * float(scale.mean()), 1e-6))
    return mean.astype(np.float32), scale.astype(np.float32)


def _standardize(train: Sample) -> tuple[Sample, Scale]:
    mean, scale = measure_scale(train.features)
    return train._replace(features=((train.features - mean) / scale).astype(np.float64)), (mean, scale)


def _fit(train: Sample, scale: Scale, num_classes: int, strength: float, is_balanced: bool) -> LinearProbe:
    """Return the probe of standardized features, not scored yet; one class alone is predicted always."""
    classes = np.unique(train.labels)
    weight, bias = np.zeros((num_classes, train.features.shape[1])), np.full(num_classes, ABSENT)
    bias[classes] = 0.0
    if len(classes) > 1:
        model = LogisticRegression(
            C=strength, class_weight="balanced" if is_balanced else None, max_iter=MAX_ITERATIONS, tol=TOLERANCE
        )
        # Two OpenMP threads on a shared core wait for each other.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit of iterations
            model.fit(train.features, train.labels, sample_weight=train.weights)
        # Of two classes, scikit-learn returns the logit of the second.
        halves = len(classes) == 2
        weight[classes] = np.concatenate([-model.coef_, model.coef_]) / 2 if halves else model.coef_
        bias[classes] = np.concatenate([-model.intercept_, model.intercept_]) / 2 if halves else model.intercept_
    return LinearProbe(
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
        mean=scale[0],
        scale=scale[1],
        strength=strength,
        is_balanced=is_balanced,
        macro_f1=float("nan"),
        num_images=len(train.labels),
    )


PROBE = "probe"


def prepare_head(
    model: nn.Module,
    config: TrialConfig,
    data: TrialData,
    images: PlacedImages,
    device: torch.device,
    *,
    is_restored: bool,
) -> None:
    """Let the head standardize its inputs and start from a linear probe, where the configuration says so.

    With `head_init = "probe"`, head and frozen backbone together are the probe before the first step (Kumar et al. 2022,
    Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR). A head that is trained alone
    standardizes its inputs in any case, and scales them to a norm of about `FEATURE_NORM`.

    Args:
        model: Placed model of `build_model`.
        config: Reads `tuning` and `head_init`, and what the features depend on.
        data: Images and splits.
        images: Those of `data`, placed.
        device: Of the model.
        is_restored: Whether a checkpoint replaces all values of the head.
    """
    if config["tuning"] != PROBE and config["head_init"] != PROBE:
        return
    _, head = find_head(model)
    if is_restored:
        head.standardize(torch.zeros(head.in_features), torch.ones(head.in_features))
        return
    factor = head.in_features**0.5 / FEATURE_NORM if config["tuning"] == PROBE else 1.0
    with borrow_backbone(model, config, device) as backbone:
        if config["head_init"] == PROBE:
            probe = measure_probe(backbone, data, images)
            mean, scale = probe.mean, probe.scale
            set_head(head, probe, factor)
        else:
            mean, scale = measure_scale(compute_split(backbone, data, images, "train"))
    head.standardize(torch.tensor(mean), factor * torch.tensor(scale))


def set_head(head: Head, probe: LinearProbe, factor: float = 1.0) -> None:
    """Give a head the weight of a probe, times `factor`, and its bias."""
    with torch.no_grad():
        head.weight.copy_(factor * torch.tensor(probe.weight))
        if head.bias is not None:
            head.bias.copy_(torch.tensor(probe.bias))


def measure_probe(
    backbone: FrozenBackbone, data: TrialData, images: PlacedImages, most: int = MAX_IMAGES
) -> LinearProbe:
    """Return the linear probe of a backbone, fitted on the training split or on a stratified sample of `most` of its images."""
    splits = data.splits
    # A trial of a fold trains on the search split too, on which the probe is chosen.
    parts = np.setdiff1d(splits.train, splits.search), splits.search
    chosen = [draw_sample(part, data.labels, most) for part in parts]
    digest = identify_images(data)
    train, search = (Sample(backbone.compute_part(images, rows, digest), data.labels[rows]) for rows in chosen)
    return fit_linear_probe(train, search, len(data.class_names))


def compute_split(
    backbone: FrozenBackbone, data: TrialData, images: PlacedImages, split: str, view: int = 0
) -> Features:
    """Return (N, D) features of a split, see `FrozenBackbone.compute_part`."""
    return backbone.compute_part(images, getattr(data.splits, split), identify_images(data), view=view)


def identify_images(data: TrialData) -> str:
    """Return what distinguishes the images of a study from others, for keys of the cache."""
    return f"{data.splits.data_fingerprint} {data.images.shape}"

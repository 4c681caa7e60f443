"""A classification layer that is fitted anew after the last epoch, on features of images that the network was not trained on.

Deep feature reweighting: a network that relies on a shortcut has learned other features too, and a new classification layer uses
them if the groups in which the shortcut misleads weigh as much as the others (Kirichenko et al. 2023, Last Layer Re-Training is
Sufficient for Robustness to Spurious Correlations, ICLR). For rings, the groups are made: images with rings of other classes.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, list_some, refuse_any
from trainables.data.augmentation.mixing import RING_FRACTIONS, measure_ring, swap_rings
from trainables.data.stratified import choose_stratified
from trainables.models.heads import MEAN, Head, find_head, fold
from trainables.seeds import numpy_generator, torch_generator
from trainables.training import linear_probe
from trainables.training.evaluation import compute_logits
from trainables.training.frozen_features import Features, borrow_backbone, digest_images
from trainables.training.linear_probe import Labels, LinearProbe, Sample
from trainables.training.trial_data import PlacedImages, TrialData

# The choices of `head_refit`.
NONE, RING_SWAPS, GROUPS, BALANCED = "none", "ring_swaps", "groups", "balanced"
# Copies of each image with rings of other classes.
NUM_SWAPS = 4
# One to fit on and one to choose the regularization on.
MIN_PER_CLASS = 2
# Mean number of images of one group and class from which on weights per group are a remedy to try.
MIN_GROUP_SIZE = 2


def list_refits(data: TrialData) -> tuple[str, ...]:
    """Return the choices of `head_refit` that these data allow, and that weigh their images in another way than they are."""
    rows = data.splits.search
    labels = data.labels[rows]
    counts = np.bincount(labels, minlength=len(data.class_names))
    is_unequal = counts.max() >= linear_probe.MAX_BALANCED_RATIO * counts.min()
    # Groups of about one image each, as those of a few near-duplicates, leave the weights about as they are.
    groups = np.zeros_like(labels) if data.groups is None else data.groups[rows]
    is_grouped = MIN_GROUP_SIZE * np.unique([labels, groups], axis=1).shape[1] <= len(rows)
    kinds = (RING_SWAPS, *([GROUPS] if is_grouped else []), *([BALANCED] if is_unequal else []))
    return tuple(kind for kind in kinds if not list_refit_problems(kind, data))


def list_refit_problems(kind: str, data: TrialData, *, has_folds: bool = False) -> list[str]:
    """Return a message for each reason why a classification layer cannot be fitted anew.

    Args:
        kind: `head_refit`.
        data: images and splits of the study.
        has_folds: whether the trials are those of folds.
    """
    if kind == NONE:
        return []
    problems, name, rows = [], f'model.head_refit = "{kind}"', data.splits.search
    labels = data.labels[rows]
    if has_folds:
        used = "images of the split search, on which networks of folds train"
        problems.append(f"{name} needs {used}; set confirm.folds to 0")
    counts = np.bincount(labels, minlength=len(data.class_names))
    few = [found for found, count in zip(data.class_names, counts, strict=True) if count < MIN_PER_CLASS]
    if few:
        problems.append(
            f"{name} needs {MIN_PER_CLASS} images of each class in the split search, but {list_some(few)} "
            f"{'has' if len(few) == 1 else 'have'} fewer; raise data.search_fraction"
        )
    if kind == GROUPS and data.groups is None:
        problems.append(f"{name} needs groups of images, but the source gives none; see data.groups")
    if kind == GROUPS and data.groups is not None:
        groups = data.groups[rows]
        single = [data.class_names[k] for k in np.unique(labels) if len(np.unique(groups[labels == k])) == 1]
        if single:
            problems.append(f"{name} weighs the groups of a class alike, but {list_some(single)} has one group alone")
    if kind == RING_SWAPS:
        try:
            measure_ring(data.images.shape[1], data.images.shape[2], RING_FRACTIONS[-1])
        except UserInputError as error:
            problems.append(f"{name}: {error}")
    return problems


def check_head(
    model: nn.Module, config: TrialConfig, data: TrialData, images: PlacedImages, device: torch.device
) -> None:
    """Raise UserInputError listing all that keeps the head of a model from being fitted anew; arguments as `refit_head`."""
    kind, name = config.word("head_refit"), config.word("backbone")
    problems = list_refit_problems(kind, data, has_folds=bool(config.fold))
    if kind != NONE:
        head = find_head(model)[1]
        with borrow_backbone(model, config, device, identity=NONE) as backbone:
            found = compute_logits(backbone.model, images, data.splits.train[:2], config, device, 2).shape[1:]
        if found != (head.in_features,) or head.bias is None:
            problems.append(
                f"{name} has no linear head with a bias at its end, which head_refit could fit anew: its last linear layer takes "
                f"{head.in_features} features, and without it the network returns {found} for an image"
            )
    refuse_any(problems)


def refit_head(
    model: nn.Module, config: TrialConfig, data: TrialData, images: PlacedImages, device: torch.device
) -> None:
    """Replace weight and bias of a model's head by those of a logistic regression on the features of the split `search`.

    One half of the images fits and the other chooses the regularization; then all fit. Features are cached. A network that has
    diverged is left as it is.

    Args:
        model: placed, and trained.
        config: reads `head_refit`, and what the features depend on.
        data: images and splits.
        images: those of `data`, placed.
        device: of the model.
    """
    kind, head = config.word("head_refit"), find_head(model)[1]
    views = 1 + NUM_SWAPS * (kind == RING_SWAPS)
    rows = linear_probe.draw_sample(data.splits.search, data.labels, linear_probe.MAX_IMAGES // views)
    labels = data.labels[rows]
    with borrow_backbone(model, config, device) as backbone:
        features = [backbone.compute_part(images, rows, linear_probe.identify_images(data))]
        if kind == RING_SWAPS:
            features += [backbone.compute(swapped, digest_images(swapped)) for swapped in _swap_rings(data, rows)]
    if all(np.isfinite(found).all() for found in features):
        groups = data.groups[rows] if kind == GROUPS and data.groups is not None else np.zeros_like(labels)
        _set_probe(head, _fit(features, labels, groups, kind == RING_SWAPS, len(data.class_names)))


def _swap_rings(data: TrialData, rows: Labels) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of some rows, each time with rings of other images of other classes."""
    images, labels = torch.from_numpy(np.array(data.images[rows])), torch.from_numpy(data.labels[rows])
    for number in range(NUM_SWAPS):
        yield swap_rings(images, labels, 1.0, torch_generator(0, "head refit", number)).numpy()


def _fit(features: list[Features], labels: Labels, groups: Labels, is_swapped: bool, num_classes: int) -> LinearProbe:
    """Return the regression on views of n images, (n, D) each, of which the first shows the images as they are."""
    weights = weigh_alike(labels, groups) if not is_swapped else np.ones(len(labels))
    shares = [1.0]
    if is_swapped:
        # A ring says nothing about the class if the ring of each class is as frequent: the own ring in one of K.
        shares = [1 / num_classes, *(len(features) - 1) * [(1 - 1 / num_classes) / (len(features) - 1)]]
    half = choose_stratified(labels, len(labels) // 2, numpy_generator(0, "refit"), 1)
    is_fitted = np.isin(np.arange(len(labels)), half)

    def stack(chosen: NDArray[np.bool_]) -> Sample:
        return Sample(
            np.concatenate([found[chosen] for found in features]),
            np.tile(labels[chosen], len(features)),
            np.concatenate([share * weights[chosen] for share in shares]),
        )

    chosen = linear_probe.fit_linear_probe(stack(is_fitted), stack(~is_fitted), num_classes)
    return linear_probe.fit_again(stack(np.ones_like(is_fitted)), num_classes, chosen.strength, is_balanced=False)


def weigh_alike(labels: Labels, groups: Labels) -> NDArray[np.float64]:
    """Return (N,) weights of images, on average 1, with which all classes weigh alike, and in each class its groups."""
    pairs, member, counts = np.unique(np.stack([labels, groups]), axis=1, return_inverse=True, return_counts=True)
    classes, owner, numbers = np.unique(pairs[0], return_inverse=True, return_counts=True)
    each = len(labels) / (len(classes) * numbers[owner] * counts)
    return np.asarray(each[member.ravel()], dtype=np.float64)


def _set_probe(head: Head, probe: LinearProbe) -> None:
    """Give a head the weight and bias of a regression on standardized features, which it does not standardize itself."""
    weight, bias = fold(*map(torch.tensor, (probe.weight, probe.bias, probe.mean, probe.scale)))
    assert bias is not None
    linear_probe.set_head(head, replace(probe, weight=weight.numpy(), bias=bias.numpy()))
    if MEAN in dict(head.named_buffers()):
        head.standardize(torch.zeros(head.in_features), torch.ones(head.in_features))

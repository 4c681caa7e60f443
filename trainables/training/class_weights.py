"""Class weights, and the cross-entropy that uses them with soft targets."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, check_choice, list_some

CLASS_WEIGHTINGS = ("none", "inverse_frequency", "group")


def compute_class_weights(
    config: TrialConfig,
    train_labels: NDArray[np.int64],
    class_names: Sequence[str],
    class_groups: Mapping[str, Sequence[str]],
) -> Tensor:
    """Return (K,) float32 weights with mean 1.

    Args:
        config: Reads `class_weighting` and, if it applies, `class_weight_strength` s and `weighted_group`.
            "none": all weights are 1. "inverse_frequency": count^-s, so that s = 0 changes nothing and s = 1 gives all
            classes the same total weight. "group": classes of the group weigh 1 + s times as much as the others.
        train_labels: (N,) int64 in [0, K), labels of the training split.
        class_names: K names.
        class_groups: Named groups of class names.

    Raises:
        UserInputError: For an unknown weighting, group or class, a class without training images, or a strength that leaves a
            class no positive weight.
    """
    weighting = config.word("class_weighting")
    check_choice("there is no class_weighting", weighting, CLASS_WEIGHTINGS)
    if weighting == "none":
        return torch.ones(len(class_names))
    strength = config.number("class_weight_strength")
    if weighting == "inverse_frequency":
        counts = np.bincount(train_labels, minlength=len(class_names))
        for name, count in zip(class_names, counts, strict=True):
            if not count:
                raise UserInputError(
                    f"inverse_frequency needs a training image of each class, but {name!r} has none; "
                    "drop the class or use another class_weighting"
                )
        weights = counts.astype(np.float64) ** -strength
    else:
        members = _group_members(config.word("weighted_group"), class_names, class_groups)
        weights = np.where([name in members for name in class_names], 1.0 + strength, 1.0)
    relative = (weights / weights.mean()).astype(np.float32)
    without = [name for name, weight in zip(class_names, relative, strict=True) if not weight > 0]
    if without:
        raise UserInputError(
            f"class_weight_strength = {strength:g} leaves {list_some(map(repr, without))} no positive weight; "
            "use a value in [0, 1]"
        )
    return torch.from_numpy(relative)


def compute_weighted_cross_entropy(
    logits: Tensor, targets: Tensor, class_weights: Tensor, label_smoothing: float
) -> Tensor:
    """Return the scalar mean cross-entropy in nats.

    The loss of an image is sum_k w_k t_k (-log p_k) with smoothed targets t. The mean divides by the total weight of the
    targets, so that weights do not change the step size. For hard targets it equals
    `torch.nn.functional.cross_entropy(logits, labels, weight, label_smoothing=...)`.

    Args:
        logits: (B, K).
        targets: (B, K) float32; rows sum to 1.
        class_weights: (K,) float32.
        label_smoothing: In [0, 1).
    """
    log_probabilities = torch.log_softmax(logits.float(), dim=1)
    smoothed = targets * (1.0 - label_smoothing) + label_smoothing / targets.shape[1]
    return -(smoothed * class_weights * log_probabilities).sum() / compute_total_weight(targets, class_weights)


def compute_total_weight(targets: Tensor, class_weights: Tensor) -> Tensor:
    """Return the scalar sum over images and classes of target times class weight; see `compute_weighted_cross_entropy`."""
    return (targets * class_weights).sum()


def _group_members(group: str, class_names: Sequence[str], class_groups: Mapping[str, Sequence[str]]) -> frozenset[str]:
    if not class_groups:
        raise UserInputError(
            'class_weighting "group" needs named groups of classes, but this image set describes none; '
            'remove "group" from the range of class_weighting'
        )
    if not group:
        raise UserInputError(
            f'class_weighting "group" needs weighted_group, but it is empty; name one of {", ".join(class_groups)}'
        )
    return find_group(group, class_names, class_groups)


def find_group(group: str, class_names: Sequence[str], class_groups: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the names of a group's classes.

    Args:
        group: Name of the group.
        class_names: K names.
        class_groups: Named groups of class names.

    Raises:
        UserInputError: For an unknown group, with the nearest one, and for a group that is empty or names an unknown class.
    """
    check_choice("there is no group of classes", group, class_groups)
    if not class_groups[group]:
        raise UserInputError(f"the group {group!r} is empty; name its classes")
    for name in class_groups[group]:
        check_choice(f"the group {group!r} names the class", name, class_names)
    return frozenset(class_groups[group])

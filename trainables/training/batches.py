"""How often and how much an image counts: the batches of an epoch, and the weights of the classes in the loss.

An epoch is a shuffle of the training images, with batches of hard examples in place of some. The cross-entropy takes class
weights and soft targets.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, check_choice, list_some, refuse_any
from trainables.seeds import torch_generator
from trainables.training.trial_data import TrialData

CLASS_WEIGHTINGS = ("none", "inverse_frequency", "group")


def compute_class_weights(config: TrialConfig, data: TrialData, train: NDArray[np.int64]) -> Tensor:
    """Return (K,) float32 weights with mean 1.

    Args:
        config: Reads `class_weighting` and, if it applies, `class_weight_strength` s and `weighted_group`.
            "none": all weights are 1. "inverse_frequency": count^-s, so that s = 0 changes nothing and s = 1 gives all
            classes the same total weight. "group": classes of the group weigh 1 + s times as much as the others.
        data: Labels, names and groups of the classes.
        train: (N,) indices of the training images.

    Raises:
        UserInputError: For an unknown weighting, group or class, a class without training images, or a strength that leaves a
            class no positive weight.
    """
    weighting = config.word("class_weighting")
    check_choice("there is no class_weighting", weighting, CLASS_WEIGHTINGS)
    if weighting == "none":
        return torch.ones(len(data.class_names))
    strength = config.number("class_weight_strength")
    if weighting == "inverse_frequency":
        counts = np.bincount(data.labels[train], minlength=len(data.class_names))
        if not counts.all():
            raise UserInputError(
                f"inverse_frequency needs a training image of each class, but {data.class_names[counts.argmin()]!r} has none; "
                "drop the class or use another class_weighting"
            )
        weights = counts.astype(np.float64) ** -strength
    else:
        members = _group_members(config.word("weighted_group"), data)
        weights = np.where([name in members for name in data.class_names], 1.0 + strength, 1.0)
    relative = (weights / weights.mean()).astype(np.float32)
    without = [name for name, weight in zip(data.class_names, relative, strict=True) if not weight > 0]
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


def _group_members(group: str, data: TrialData) -> frozenset[str]:
    if not data.class_groups:
        raise UserInputError(
            'class_weighting "group" needs named groups of classes, but this image set describes none; '
            'remove "group" from the range of class_weighting'
        )
    if not group:
        raise UserInputError(
            f'class_weighting "group" needs weighted_group, but it is empty; name one of {", ".join(data.class_groups)}'
        )
    return _find_group(group, data)


def _find_group(group: str, data: TrialData) -> frozenset[str]:
    """Return the names of a group's classes.

    Raises:
        UserInputError: For an unknown group, with the nearest one, and for a group that is empty or names an unknown class.
    """
    check_choice("there is no group of classes", group, data.class_groups)
    if not data.class_groups[group]:
        raise UserInputError(f"the group {group!r} is empty; name its classes")
    for name in data.class_groups[group]:
        check_choice(f"the group {group!r} names the class", name, data.class_names)
    return frozenset(data.class_groups[group])


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochShape:
    """How many batches of which size an epoch has.

    Attributes:
        batch_size: B, images per batch: `batch_size` of the configuration, or all images if there are fewer.
        num_batches: Full batches that fill whole steps of the optimizer.
    """

    batch_size: int
    num_batches: int

    @classmethod
    def from_config(cls, config: TrialConfig, num_train: int) -> "EpochShape":
        """Return the shape for a training split of `num_train` images; reads `batch_size` and `accumulate`."""
        batch_size = min(config.whole("batch_size"), num_train)
        num_batches = num_train // batch_size
        left_over = num_batches % min(config.whole("accumulate"), num_batches)
        return cls(batch_size=batch_size, num_batches=num_batches - left_over)

    def count_hard(self, fraction: float) -> int:
        """Return the batches of an epoch that are made of hard examples: the nearest whole number, but at least one."""
        return max(1, round(fraction * self.num_batches)) if fraction > 0 else 0


class EpochBatches:
    """The batches of every epoch of a trial, a pure function of configuration, seed, data and epoch.

    Each epoch shuffles the images again. With `hard_fraction`, some batches are replaced, evenly spread over the epoch, from
    `hard_from_epoch` on: they consist of the classes of `hard_group` alone, whose numbers of images differ by at most one in a
    batch and in the epoch. Images of a class are drawn without repetition until all were drawn, then again. The other batches
    are those of the shuffle, so that the images of the replaced ones are left out in that epoch.

    Attributes:
        shape: Number and size of the batches.
        num_hard: Batches of hard examples in an epoch from `hard_from_epoch` on.
    """

    def __init__(self, config: TrialConfig, data: TrialData, train: NDArray[np.int64]) -> None:
        """Read the settings.

        Args:
            config: Reads `batch_size` and `accumulate`, and the settings of `list_hard_problems`.
            data: Labels, names and groups of the classes.
            train: Indices of the training images, two or more.

        Raises:
            UserInputError: Listing all problems of `list_hard_problems`.
        """
        refuse_any(list_hard_problems(config, data, train))
        self.shape = EpochShape.from_config(config, len(train))
        self.num_hard = self.shape.count_hard(config.number("hard_fraction"))
        self._seed = config.seed
        self._from_epoch = config.whole("hard_from_epoch")
        self._train = torch.from_numpy(np.array(train, dtype=np.int64))
        self._by_class: list[Tensor] = []
        if self.num_hard:
            members = data.class_groups[config.word("hard_group")]
            numbers = [number for number, name in enumerate(data.class_names) if name in members]
            of_train = torch.from_numpy(np.array(data.labels[train], dtype=np.int64))
            self._by_class = [self._train[of_train == number] for number in numbers]

    def of_epoch(self, epoch: int) -> tuple[Tensor, ...]:
        """Return the batches of an epoch, counted from 1, each (B,) int64 indices of images."""
        order = torch.randperm(len(self._train), generator=torch_generator(self._seed, "shuffling", epoch))
        size, number = self.shape.batch_size, self.shape.num_batches
        batches = list(torch.split(self._train[order][: number * size], size))
        if self.num_hard and epoch >= self._from_epoch:
            for i, batch in enumerate(torch.split(self._draw_hard_examples(epoch), size)):
                batches[(2 * i + 1) * number // (2 * self.num_hard)] = batch
        return tuple(batches)

    def _draw_hard_examples(self, epoch: int) -> Tensor:
        """Return the images of all batches of hard examples, whose classes take turns in a random order."""
        generator = torch_generator(self._seed, "hard examples", epoch)
        total, num_classes = self.num_hard * self.shape.batch_size, len(self._by_class)
        turns = torch.randperm(num_classes, generator=generator)
        chosen = torch.empty(total, dtype=torch.int64)
        for turn, number in enumerate(turns.tolist()):
            images, places = self._by_class[number], chosen[turn::num_classes]
            rounds = math.ceil(len(places) / len(images))
            drawn = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(rounds)])
            places.copy_(images[drawn[: len(places)]])
        return chosen


def list_hard_problems(config: TrialConfig, data: TrialData, train: NDArray[np.int64]) -> list[str]:
    """Return a message for each reason why a configuration's batches of hard examples cannot be made.

    Args:
        config: Reads `hard_fraction`; if it is above 0 also `hard_group`, `hard_from_epoch`, `max_epochs`, `batch_size` and
            `accumulate`.
        data: Labels, names and groups of the classes.
        train: (N,) indices of the training images.
    """
    fraction, group = config.number("hard_fraction"), config.word("hard_group")
    if fraction == 0:
        return []
    problems = []
    if not 0 < fraction <= 1:
        return [f"0 <= train.hard_fraction <= 1 must hold, but got {fraction:g}"]
    first, last = config.whole("hard_from_epoch"), config.whole("max_epochs")
    if not 1 <= first <= last:
        problems.append(f"1 <= train.hard_from_epoch <= max_epochs ({last}) must hold, but got {first}")
    if not group:
        advice = (
            f"name one of {list_some(data.class_groups)}" if data.class_groups else "name a group of [analyze.groups]"
        )
        return [*problems, f"train.hard_fraction = {fraction:g} needs train.hard_group, but it is empty; {advice}"]
    try:
        members = _find_group(group, data)
    except UserInputError as error:
        return [*problems, f"train.hard_group: {error}"]
    counts = np.bincount(data.labels[train], minlength=len(data.class_names))
    missing = [name for name, count in zip(data.class_names, counts, strict=True) if name in members and not count]
    if missing:
        problems.append(
            f"train.hard_group = {group!r} needs a training image of each class, but there is none of "
            f"{list_some(missing)}; leave them out of the group"
        )
    shape = EpochShape.from_config(config, len(train))
    if shape.batch_size < len(members):
        problems.append(
            f"a batch of train.hard_group = {group!r} needs an image of each of its {len(members)} classes, but has "
            f"{shape.batch_size} images; raise train.batch_size"
        )
    others = [name for name in data.class_names if name not in members]
    if others and shape.count_hard(fraction) == shape.num_batches:
        problems.append(
            f"train.hard_fraction = {fraction:g} leaves no batch to the classes outside of {group!r} "
            f"({list_some(others, 3)}): batches per epoch: {shape.num_batches}; lower it, or train.batch_size"
        )
    return problems

"""The predictions of an arm's seeds, averages of several arms, and how two sides of a comparison pair and differ.

How many images differ, and how far one of them moves the difference in macro-F1, matters where they are few: the variance between
images is then an estimate from these few, and zero where none differs. Two rules guard against that: the variance has
pseudo-observations (`variances.guard_image_variance`), and EQUIVALENT needs `MIN_DISCORDANT`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from analysis.statistics.metrics import FloatArray, IntArray
from analysis.statistics.variances import Guard
from search_spaces.errors import UserInputError
from trainables.training.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPredictions:
    """The predicted classes of one arm's seeds on one split.

    Attributes:
        name: of the arm.
        seeds: S different seeds, in increasing order.
        labels: (N,) int64 in [0, K).
        sample_ids: (N,) int64.
        predicted: (S, N) int64 in [0, K).
        num_classes: K.
        groups: (N,) number of the group of each image, such as its patient; None where images are independent.
        others: further arms with whose scores those of this one are averaged; empty for an arm.
        scale: factor of the average.
    """

    name: str
    seeds: tuple[int, ...]
    labels: IntArray
    sample_ids: IntArray
    predicted: IntArray
    num_classes: int
    groups: IntArray | None = None
    others: tuple["ArmPredictions", ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.predicted.shape != (len(self.seeds), n) or self.sample_ids.shape != (n,):
            raise UserInputError(
                f"arm {self.name!r} needs labels (N,), ids (N,), predicted (S, N), but got {self.labels.shape}, "
                f"{self.sample_ids.shape}, {self.predicted.shape} for {len(self.seeds)} seeds"
            )
        if not n or list(self.seeds) != sorted(set(self.seeds)) or not self.seeds:
            raise UserInputError(
                f"arm {self.name!r} needs images and different seeds in increasing order, but has {n} images and "
                f"the seeds {self.seeds}"
            )

    @property
    def members(self) -> tuple["ArmPredictions", ...]:
        """The arm itself, and the others of an average."""
        return (self, *self.others)


# One side of a comparison: an arm, or the average of several (`average_arms`).
Side = ArmPredictions


def average_arms(name: str, members: Sequence[ArmPredictions], scale: float) -> Side:
    """Return the average of several arms' macro-F1, seed by seed, such as that of all arms with one level of a factor.

    Args:
        name: of the side.
        members: arms of the same seeds and images, at least one.
        scale: factor of the average, such as 2 on both sides of an interaction.

    Raises:
        UserInputError: for arms that do not pair.
    """
    first, *others = members
    for other in others:
        check_paired(first, other)
    return replace(first, name=name, others=tuple(others), scale=scale)


def average_members(side: Side, compute: Callable[[ArmPredictions], FloatArray]) -> FloatArray:
    """Return the mean of `compute` over the arms of one side, times the side's scale."""
    return np.asarray(side.scale * np.mean([compute(member) for member in side.members], axis=0))


def stack_predictions(name: str, predictions: Mapping[int, Predictions]) -> ArmPredictions:
    """Return one arm's predictions.

    Args:
        name: of the arm.
        predictions: by seed, all on the same images of one split.

    Raises:
        UserInputError: if there are none, or naming the first seed and image in which two seeds differ.
    """
    if not predictions:
        raise UserInputError(f"arm {name!r} has no predictions; run its confirmation seeds first")
    seeds = tuple(sorted(predictions))
    first = predictions[seeds[0]]
    for seed in seeds[1:]:
        other = predictions[seed]
        both = f"seeds {seeds[0]} and {seed} of arm {name!r}"
        if other.split != first.split:
            raise UserInputError(f"{both} must share one split, but predict {first.split!r} and {other.split!r}")
        _check_same_images(
            both,
            (first.sample_ids, first.labels, first.logits.shape[1]),
            (other.sample_ids, other.labels, other.logits.shape[1]),
        )
    return ArmPredictions(
        name=name,
        seeds=seeds,
        labels=first.labels,
        sample_ids=first.sample_ids,
        predicted=np.stack([predictions[seed].predicted for seed in seeds]),
        num_classes=first.logits.shape[1],
        groups=first.groups,
    )


def check_paired(treatment: Side, control: Side) -> None:
    """Check that two sides have the same seeds, images, labels and classes.

    Raises:
        UserInputError: naming the first seed, image or label in which they differ.
    """
    names = f"arms {treatment.name!r} and {control.name!r}"
    unpaired = sorted(set(treatment.seeds) ^ set(control.seeds))
    if unpaired:
        owner, other = (treatment, control) if unpaired[0] in treatment.seeds else (control, treatment)
        raise UserInputError(
            f"{names} must have the same seeds, but {owner.name!r} has seed {unpaired[0]} and {other.name!r} has not; "
            f"run it or leave it out"
        )
    check_same_images(treatment, control)


def check_same_images(treatment: Side, control: Side) -> None:
    """Check that two sides have the same images, labels and classes; their seeds may differ.

    Raises:
        UserInputError: naming the first image or label in which they differ.
    """
    _check_same_images(
        f"arms {treatment.name!r} and {control.name!r}",
        (treatment.sample_ids, treatment.labels, treatment.num_classes),
        (control.sample_ids, control.labels, control.num_classes),
    )


def _check_same_images(both: str, one: tuple[IntArray, IntArray, int], other: tuple[IntArray, IntArray, int]) -> None:
    if one[2] != other[2]:
        raise UserInputError(f"{both} must have the same classes, but have {one[2]} and {other[2]}")
    if not np.array_equal(one[0], other[0]):
        first = sorted(set(one[0].tolist()) ^ set(other[0].tolist()))
        detail = f"sample {first[0]} is only in one of them" if first else "their order differs"
        raise UserInputError(
            f"{both} must predict the same images, but {detail} ({len(one[0])} and {len(other[0])} images)"
        )
    differing = np.flatnonzero(one[1] != other[1])
    if len(differing):
        i = differing[0]
        raise UserInputError(
            f"{both} must agree on the labels, but sample {one[0][i]} is of class {one[1][i]} in one "
            f"and {other[1][i]} in the other"
        )


# With fewer, equality is not tested. In simulated rows of one seed and 300 to 20,000 images whose arms differ by the margin,
# EQUIVALENT was wrong in up to 10 % without this rule where all discordant images favor one arm, in 4 % with 3 images, and never
# with 5. Where a quarter of them favor the other arm, it is at most 3.0 %, whatever the number (margin .5 pp, 400,000 rows).
MIN_DISCORDANT = 5


class Discordance(NamedTuple):
    """How two sides differ image by image.

    Attributes:
        number: images whose predictions differ between any two arms with any seed; of groups, those with such an image.
        guard: how far such an image, or group, moves the difference in macro-F1.
        units: what is counted, in words: "40 test images".
    """

    number: int
    guard: Guard
    units: str


def measure_discordance(treatment: Side, control: Side) -> Discordance:
    """Return how many images differ between two paired sides, and how far one of them moves the difference.

    An image of class c moves macro-F1 by about 1 / (K n_c), where n_c of the images have this class. The size is Kish's effective
    number of images (1965, Survey Sampling, section 11.2) with these weights, K^2 / sum of 1 / n_c: N for equal classes. Pseudo-
    observations as large as an image of the smallest class would widen every interval, those as small as an average image would
    guard against nothing in a class of few images. A group counts as the share of its images that differ, as the root mean
    square over the groups with such an image, and as all of its images where there is none.

    Args:
        treatment: one side.
        control: the other, with the same images; of different numbers of seeds, as many as both have are compared.
    """
    num_seeds = min(len(side.seeds) for side in (treatment, control))
    first, *others = (member.predicted[:num_seeds] for side in (treatment, control) for member in side.members)
    differs = np.any([(other != first).any(axis=0) for other in others], axis=0)
    class_sizes, scale = np.bincount(treatment.labels), treatment.scale
    size = treatment.num_classes**2 / float((1 / class_sizes[class_sizes > 0]).sum())
    if treatment.groups is None:
        return Discordance(int(differs.sum()), Guard(size, scale), f"{len(differs):,} test images")
    groups = np.unique(treatment.groups, return_inverse=True)[1]
    shares = np.bincount(groups, weights=differs) / np.bincount(groups)
    found = shares[shares > 0]
    reach = scale * float(np.sqrt(np.mean(found**2))) if len(found) else scale
    guard = Guard(size * len(shares) / len(groups), reach)
    return Discordance(len(found), guard, f"{len(shares):,} groups of test images")


def describe_few_discordant(found: Discordance, estimate: float, margin: float) -> str:
    """Return why an UNDECIDED row with such an estimate cannot be EQUIVALENT; "" where enough images differ."""
    if found.number >= MIN_DISCORDANT or 2 * abs(estimate) >= margin:
        return ""
    number = f"only {found.number}" if found.number else "none"
    return (
        f"the predictions differ on {number} of the {found.units}, and EQUIVALENT needs {MIN_DISCORDANT}; "
        "more test images are needed"
    )

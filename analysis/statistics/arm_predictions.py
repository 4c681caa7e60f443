"""The predictions of an arm's seeds, averages of several arms, and the checks that two sides of a comparison pair."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.statistics.metrics import FloatArray, IntArray
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
        folds: (S, N) fold of each image, from 1 to F, where each seed has a model for every fold; None for one model per seed.
    """

    name: str
    seeds: tuple[int, ...]
    labels: IntArray
    sample_ids: IntArray
    predicted: IntArray
    num_classes: int
    groups: IntArray | None = None
    folds: IntArray | None = None

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
    def members(self) -> tuple["ArmPredictions"]:
        """The arm itself, as the only member."""
        return (self,)

    @property
    def scale(self) -> float:
        """Factor of the average over the members: 1."""
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmAverage:
    """One side of a contrast: the average of several arms' macro-F1, seed by seed, such as all arms with one level of a factor.

    Attributes:
        name: of the side.
        members: arms of the same seeds and images, at least one.
        scale: factor of the average, such as 2 on both sides of an interaction.
    """

    name: str
    members: tuple[ArmPredictions, ...]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.members:
            raise UserInputError(f"the average {self.name!r} needs an arm")
        for other in self.members[1:]:
            check_paired(self.members[0], other)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The members' seeds."""
        return self.members[0].seeds

    @property
    def labels(self) -> IntArray:
        """The members' labels, (N,)."""
        return self.members[0].labels

    @property
    def sample_ids(self) -> IntArray:
        """The members' images, (N,)."""
        return self.members[0].sample_ids

    @property
    def num_classes(self) -> int:
        """K."""
        return self.members[0].num_classes

    @property
    def groups(self) -> IntArray | None:
        """The members' groups of images, (N,); None where images are independent."""
        return self.members[0].groups

    @property
    def folds(self) -> IntArray | None:
        """The members' folds, (S, N); None for one model per seed."""
        return self.members[0].folds


Side = ArmPredictions | ArmAverage


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

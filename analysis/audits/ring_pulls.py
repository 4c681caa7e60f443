"""Pulls: how much more often images of one class are predicted as another when their ring comes from that class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.audits.ring_swaps import swap_ring
from analysis.audits.swap_effects import ALPHA, AuditImages, Classify, take_groups
from analysis.findings.shortcut_findings import PairPull
from analysis.statistics.families import Scale, compute_family, mean_cell
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.data.rings import RING_FRACTIONS, make_ring
from trainables.seeds import numpy_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class PullMeasurement:
    """The pull of one class's rings on images of another.

    Attributes:
        true_class: name of the class of the images.
        ring_class: name of the class of the rings.
        labels: (n,) the class of the images.
        pulls: (S, n) 1 where a model predicts `ring_class` only with its ring, -1 where only with a ring of a third class.
        groups: (n,) number of each image's group; None where images are independent.
    """

    true_class: str
    ring_class: str
    labels: IntArray
    pulls: FloatArray
    groups: IntArray | None = None

    def take_first(self) -> "PullMeasurement":
        """Return the pull on the first model."""
        return replace(self, pulls=self.pulls[:1])


def measure_pull(
    classify: Classify, audit_images: AuditImages, one: int, other: int, *, seed: int = 0
) -> PullMeasurement:
    """Return the pull P(other | ring of other) - P(other | ring of a third class) on images of `one`.

    Args:
        classify: the arm's S models; one is enough.
        audit_images: images that no model was trained on, of three classes at least.
        one: class of the images.
        other: class of the rings.
        seed: of the choice of donors.
    """
    images, labels, names = audit_images.images, audit_images.labels, audit_images.class_names
    ring = make_ring(images.shape[1], images.shape[2], RING_FRACTIONS[0])
    generator = numpy_generator(seed, f"pull {one} {other}")
    own = np.flatnonzero(labels == one)
    pulled = []
    for donors in (np.flatnonzero(labels == other), np.flatnonzero(~np.isin(labels, (one, other)))):
        drawn = _draw_donors(donors, len(own), generator)
        pulled.append(np.asarray(classify(swap_ring(images[own], images[drawn], ring)) == other, dtype=np.float64))
    return PullMeasurement(
        true_class=names[one],
        ring_class=names[other],
        labels=labels[own],
        pulls=pulled[0] - pulled[1],
        groups=take_groups(audit_images.groups, own),
    )


def bound_pulls(measured: Sequence[PullMeasurement]) -> tuple[PairPull, ...]:
    """Return the pulls of one arm as a family, each with its intervals at 95 %.

    Raises:
        UserInputError: for a class with one image.
    """
    cells = [mean_cell(pull.pulls, pull.labels, pull.groups) for pull in measured]
    bounded = compute_family(cells, scale=Scale.DIFFERENCE, confidence=1 - ALPHA)
    return tuple(
        PairPull(true_class=pull.true_class, ring_class=pull.ring_class, pull=found)
        for pull, found in zip(measured, bounded, strict=True)
    )


def _draw_donors(donors: IntArray, number: int, generator: np.random.Generator) -> IntArray:
    """Return `number` donors in random order, all used equally often, give or take one."""
    rounds = -(-number // len(donors))
    return np.concatenate([generator.permutation(donors) for _ in range(rounds)])[:number]

"""All audits that swap or remove a part of the images, of an arm and of its first model, from one set of forward passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.shortcuts.frequency_audit import (
    FrequencyMeasurement,
    audit_colors,
    bound_color_losses,
    judge_frequencies,
    measure_frequencies,
)
from analysis.shortcuts.ring_audit import (
    PullMeasurement,
    RingMeasurement,
    bound_pulls,
    judge_ring,
    measure_pull,
    measure_rings,
)
from analysis.shortcuts.swaps import AuditImages, Classify, SwapEffects
from analysis.shortcuts.values import SwapAudits


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapMeasurements:
    """What the S models of an arm predict for images with swapped or removed parts.

    Attributes:
        rings: one per ring width.
        pulls: in the order in which they were asked for.
        colors: with color removed; None for gray images.
        frequencies: None where a class has too few images.
    """

    rings: tuple[RingMeasurement, ...]
    pulls: tuple[PullMeasurement, ...]
    colors: SwapEffects | None
    frequencies: FrequencyMeasurement | None

    def take_first(self) -> "SwapMeasurements":
        """Return what the first model predicts."""
        return SwapMeasurements(
            rings=tuple(ring.take_first() for ring in self.rings),
            pulls=tuple(pull.take_first() for pull in self.pulls),
            colors=self.colors and self.colors.take_first(),
            frequencies=self.frequencies and self.frequencies.take_first(),
        )


def measure_swaps(
    classify: Classify, audit_images: AuditImages, confused: Sequence[tuple[int, int]], *, seed: int = 0
) -> SwapMeasurements:
    """Return what an arm predicts for images with swapped or removed parts.

    Args:
        classify: the arm's S models; one is enough.
        audit_images: images that no model was trained on.
        confused: (true class, class of the rings) of the pulls; empty with fewer than three classes.
        seed: of the choice of donors.

    Raises:
        UserInputError: for a class with one image, and images too small for a ring.
    """
    return SwapMeasurements(
        rings=measure_rings(classify, audit_images, seed=seed),
        pulls=tuple(measure_pull(classify, audit_images, one, other, seed=seed) for one, other in confused),
        colors=audit_colors(classify, audit_images),
        frequencies=measure_frequencies(classify, audit_images, seed=seed),
    )


def judge_swaps(measured: SwapMeasurements) -> SwapAudits:
    """Return the findings: intervals and verdicts for these models and, with two models or more, for the recipe.

    Raises:
        UserInputError: for a class with one image.
    """
    return SwapAudits(
        ring_audits=tuple(map(judge_ring, measured.rings)),
        pulls=bound_pulls(measured.pulls),
        color_losses=bound_color_losses(measured.colors) if measured.colors else (),
        frequency_audit=None if measured.frequencies is None else judge_frequencies(measured.frequencies),
    )

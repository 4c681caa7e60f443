"""All audits that swap or remove a part of the images, of an arm and of its first model, from one set of forward passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.shortcuts import frequency_audit, ring_audit, swaps
from analysis.shortcuts.values import SwapAudits


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapMeasurements(swaps.Measurements):
    """What the S models of an arm predict for images with swapped or removed parts.

    Attributes:
        rings: one per ring width.
        pulls: in the order in which they were asked for.
        colors: with color removed; None for gray images.
        frequencies: None where a class has too few images.
    """

    rings: tuple[ring_audit.RingMeasurement, ...]
    pulls: tuple[ring_audit.PullMeasurement, ...]
    colors: swaps.SwapEffects | None
    frequencies: frequency_audit.FrequencyMeasurement | None


def measure_swaps(
    classify: swaps.Classify, audit_images: swaps.AuditImages, confused: Sequence[tuple[int, int]], *, seed: int = 0
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
        rings=ring_audit.measure_rings(classify, audit_images, seed=seed),
        pulls=tuple(ring_audit.measure_pull(classify, audit_images, one, other, seed=seed) for one, other in confused),
        colors=frequency_audit.audit_colors(classify, audit_images),
        frequencies=frequency_audit.measure_frequencies(classify, audit_images, seed=seed),
    )


def judge_swaps(measured: SwapMeasurements) -> SwapAudits:
    """Return the findings: intervals and verdicts for these models and, with two models or more, for the recipe.

    Raises:
        UserInputError: for a class with one image.
    """
    waves = measured.frequencies
    return SwapAudits(
        ring_audits=tuple(map(ring_audit.judge_ring, measured.rings)),
        pulls=ring_audit.bound_pulls(measured.pulls),
        color_losses=frequency_audit.bound_color_losses(measured.colors) if measured.colors else (),
        frequency_audit=None if waves is None else frequency_audit.judge_frequencies(waves),
    )

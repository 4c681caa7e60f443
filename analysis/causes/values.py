"""Findings about the root causes of confusions."""

from dataclasses import dataclass

from analysis.statistics.interval import TwoIntervals

# Smallest effect that is a cause, in logits: removing the cue multiplies the odds of the true class by 1.1. Pairs of classes
# differ a little in how much they resist a removal, which many images show as surely as an effect of a cue.
MATERIAL_EFFECT = 0.1
MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CueEffect:
    """Gain in the margin between two confused classes from removing one cue, in logits, minus that on other errors."""

    cue: str
    effect: TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCause:
    """Root cause of an arm's confusion of two classes (`analysis.causes.root_cause`).

    Attributes:
        classes: the pair.
        effects: one per cue, with intervals simultaneous over the four cues; empty where they could not be measured.
        cause: the cue with an interval above 0 and a significant lead over the next cue, else "mixed"; for these models.
        recipe_cause: the same for the recipe; None where it is not defined.
        lead: of the first cue over the second, at 95 %.
        num_images: confused images that were measured.
        num_references: reference images, matched on the margin.
        imbalance: difference of the margins of confused and reference images on the measuring seeds, in standard deviations.
        note: why the cause could not be measured, for one model that the images are its own errors, and which cues the images
            lack; else "".
        is_directed: whether only images of the first class that are predicted as the second were measured, not both ways.
    """

    classes: tuple[str, str]
    effects: tuple[CueEffect, ...]
    cause: str
    recipe_cause: str | None
    lead: TwoIntervals
    num_images: int
    note: str
    num_references: int = 0
    imbalance: float | None = None
    is_directed: bool = False

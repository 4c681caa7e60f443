"""Findings of the audits that swap or remove a part of the images: rings, frequencies, color.

Where there are two verdicts, `verdict` is that for these models, and `recipe_verdict` that for the recipe (`TwoIntervals`), None
for one seed.
"""

from dataclasses import dataclass
from enum import StrEnum

from analysis.statistics.interval import TwoIntervals

# Gaps up to 5 percentage points of accuracy are tolerated.
GAP_TOLERANCE = 0.05
# Images of the own class, and as many of others, whose part each audited image gets. With eight, most of what an interval owes to
# the draw of the donors is gone.
NUM_DONORS = 8


class AuditVerdict(StrEnum):
    """The decision of an audit about a class or an arm."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassGap:
    """What swaps across classes cost one class; accuracies are fractions.

    Attributes:
        class_name: the class.
        gap: accuracy after swaps within the class minus after swaps across classes; intervals are simultaneous over classes.
        verdict: FAIL, PASS or UNDECIDED against the tolerance, for these models.
        recipe_verdict: the same for the recipe.
    """

    class_name: str
    gap: TwoIntervals
    verdict: AuditVerdict
    recipe_verdict: AuditVerdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAudit(ClassGap):
    """The audit of one class at one width of the ring, whose gap is that of swapped rings.

    Attributes:
        object_free_gap: the gap on images whose ring contains no object, at 95 %; None where they are too few.
        is_confirmed: whether a FAIL for these models also shows there; None where the class does not fail.
        recipe_confirmed: the same for the recipe.
        ring_only_accuracy: accuracy from the ring alone, with the center filled.
    """

    object_free_gap: TwoIntervals | None
    is_confirmed: bool | None
    recipe_confirmed: bool | None
    ring_only_accuracy: TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class RingAudit:
    """The audit of one arm at one width of the ring.

    Attributes:
        ring_pixels: width of the ring in pixels of the image set.
        gap: over all classes, at 95 %.
        ring_only_accuracy: over all classes.
        chance: share of the most frequent class: the accuracy of the same answer for every image.
        classes: one each.
        verdict: FAIL if a class fails, PASS if all pass, else UNDECIDED; for these models.
        recipe_verdict: the same for the recipe.
        object_free_by: how images without object in the ring were identified.
        num_object_free: such images that were used.
        region: corner or side of the ring that a failing arm relies on, or "all around"; "" where it does not fail.
    """

    ring_pixels: int
    gap: TwoIntervals
    ring_only_accuracy: TwoIntervals
    chance: float
    classes: tuple[ClassAudit, ...]
    verdict: AuditVerdict
    recipe_verdict: AuditVerdict | None
    object_free_by: str
    num_object_free: int
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPull:
    """P(ring's class | its ring) - P(ring's class | ring of a third class) on images of `true_class`; a fraction, at 95 %."""

    true_class: str
    ring_class: str
    pull: TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorLoss:
    """Accuracy that one class loses when its images are made gray, a fraction; intervals are simultaneous over classes."""

    class_name: str
    loss: TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyAudit:
    """Accuracy lost when frequency components are swapped across classes (`analysis.shortcuts.swap_audits`).

    Attributes:
        waves: (vertical, horizontal) periods of the swapped components; vertical is negative for waves that slant upward.
        gap: accuracy after swaps within the class minus after swaps across classes, over all classes, at 95 %.
        verdict: FAIL if a class fails, PASS if all pass, else UNDECIDED; for these models.
        recipe_verdict: the same for the recipe.
        classes: one each.
    """

    waves: tuple[tuple[int, int], ...]
    gap: TwoIntervals
    verdict: AuditVerdict
    recipe_verdict: AuditVerdict | None
    classes: tuple[ClassGap, ...]


@dataclass(frozen=True, kw_only=True)
class SwapAudits:
    """The audits that swap or remove a part of the images, of an arm or of one model; the default is one that was not audited.

    Attributes:
        ring_audits: the Clever Hans audit, one per ring width.
        pulls: of the strongest confused pairs, both ways.
        color_losses: one per class; empty where the images are gray.
        frequency_audit: None where the audit was not made.
    """

    ring_audits: tuple[RingAudit, ...] = ()
    pulls: tuple[PairPull, ...] = ()
    color_losses: tuple[ColorLoss, ...] = ()
    frequency_audit: FrequencyAudit | None = None

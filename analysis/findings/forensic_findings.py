"""Findings of the audits, root causes, group contrasts and heat maps.

Where there are two verdicts, `verdict` is that for these models, and `recipe_verdict` that for the recipe (`TwoIntervals`). The
first is None in findings of versions that did not give it, the second for one seed.
"""

from dataclasses import dataclass
from enum import StrEnum

from analysis.findings.interval import TwoIntervals


class AuditVerdict(StrEnum):
    """The decision of an audit about a class or an arm."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAudit:
    """The audit of one class at one width of the ring; accuracies are fractions.

    Attributes:
        class_name: the class.
        gap: accuracy with rings of the same class minus with rings of another class; intervals are simultaneous over classes.
        verdict: FAIL, PASS or UNDECIDED against the tolerance, for these models.
        recipe_verdict: the same for the recipe.
        object_free_gap: the same on images whose ring contains no object, at 95 %; None where they are too few.
        is_confirmed: whether a FAIL for these models also shows there; None where the class does not fail.
        recipe_confirmed: the same for the recipe.
        ring_only_accuracy: accuracy from the ring alone, with the center filled.
    """

    class_name: str
    gap: TwoIntervals
    verdict: AuditVerdict | None
    recipe_verdict: AuditVerdict | None
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
    verdict: AuditVerdict | None
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
class CueEffect:
    """Gain in the margin between two confused classes from removing one cue, in logits, minus that on other errors."""

    cue: str
    effect: TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCause:
    """Root cause of an arm's confusion of two classes (`analysis.audits.root_cause`).

    Attributes:
        classes: the pair.
        effects: one per cue, with intervals simultaneous over the four cues; empty where they could not be measured.
        cause: the cue with an interval above 0 and a significant lead over the next cue, else "mixed"; for these models. None in
            findings of versions that did not give it.
        recipe_cause: the same for the recipe; None where it is not defined.
        lead: of the first cue over the second, at 95 %.
        num_images: confused images that were measured.
        num_references: reference images, matched on the margin; 0 in findings of versions that did not match them.
        imbalance: difference of the margins of confused and reference images on the measuring seeds, in standard deviations.
        note: why the cause could not be measured, for one model that the images are its own errors, and which cues the images
            lack; else "".
        is_directed: whether only images of the first class that are predicted as the second were measured, not both ways.
    """

    classes: tuple[str, str]
    effects: tuple[CueEffect, ...]
    cause: str | None
    recipe_cause: str | None
    lead: TwoIntervals
    num_images: int
    note: str
    num_references: int = 0
    imbalance: float | None = None
    is_directed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupContrast:
    """Mean F1 of the classes of one group minus that of another, with an exact permutation test over the classes.

    Attributes:
        groups: names of the two groups.
        difference: first minus second, a fraction.
        p_value: two-sided.
        smallest_p: the smallest p-value that is possible with this number of classes.
        num_classes: in both groups together.
    """

    groups: tuple[str, str]
    difference: float
    p_value: float
    smallest_p: float
    num_classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorLoss:
    """Accuracy that one class loses when its images are made gray, a fraction; intervals are simultaneous over classes."""

    class_name: str
    loss: TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class CamTest:
    """One of the tests that heat maps must pass before they count as evidence.

    Attributes:
        name: of the test.
        estimate: with its intervals at 95 %.
        rule: the condition, as a sentence.
        is_passed: whether it holds for these models.
        applies: False where there is nothing to test; admission then does not need it.
    """

    name: str
    estimate: TwoIntervals
    rule: str
    is_passed: bool
    applies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CamCandidate:
    """A method and a layer that was considered for an arm's heat maps.

    Attributes:
        layer: the layer of the maps.
        map_size: (height, width) of its output in cells.
        method: "Grad-CAM", "HiResCAM" or "LayerCAM".
        num_images: on which it was measured.
        road: mean ROAD score of images with their own map minus with another image's map; a difference of probabilities.
        standard_error: of `road`, over images.
        empty_share: share of empty maps.
        similarity: mean rank correlation of the maps with those of an untrained network.
    """

    layer: str
    map_size: tuple[int, int]
    method: str
    num_images: int
    road: float
    standard_error: float
    empty_share: float
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CamAdmission:
    """Whether an arm's heat maps are admitted as evidence (`analysis.heat_maps.validity_tests`).

    Attributes:
        layer: the layer of the maps.
        map_size: (height, width) of its output in cells.
        num_images: tested.
        tests: all that apply must be passed.
        is_admitted: whether all are.
        object_focus: share of the maps' energy on the object minus that inside other images' masks; None without masks.
        method: of the maps; "Grad-CAM" in findings of versions that had no other.
        candidates: methods and layers among which the maps were chosen on other images, the chosen one first; empty in findings
            of versions that did not choose.
    """

    layer: str
    map_size: tuple[int, int]
    num_images: int
    tests: tuple[CamTest, ...]
    is_admitted: bool
    object_focus: TwoIntervals | None
    method: str = "Grad-CAM"
    candidates: tuple[CamCandidate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassGap:
    """The frequency audit of one class.

    Attributes:
        class_name: the class.
        gap: as in `FrequencyAudit`, simultaneous over classes.
        verdict: FAIL, PASS or UNDECIDED against the tolerance, for these models.
        recipe_verdict: the same for the recipe.
    """

    class_name: str
    gap: TwoIntervals
    verdict: AuditVerdict | None
    recipe_verdict: AuditVerdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyAudit:
    """Accuracy lost when frequency components are swapped across classes (`analysis.audits.frequency_audit`).

    Attributes:
        waves: (vertical, horizontal) periods of the swapped components; vertical is negative for waves that slant upward.
        gap: accuracy after swaps within the class minus after swaps across classes, over all classes, at 95 %.
        verdict: FAIL if a class fails, PASS if all pass, else UNDECIDED; for these models.
        recipe_verdict: the same for the recipe.
        classes: one each; empty in findings of versions that judged the mean over classes.
    """

    waves: tuple[tuple[int, int], ...]
    gap: TwoIntervals
    verdict: AuditVerdict | None
    recipe_verdict: AuditVerdict | None
    classes: tuple[ClassGap, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CamView:
    """One arm's part of a panel of heat maps, by one method.

    Attributes:
        arm: name.
        layer: the layer of the maps.
        map_size: (height, width) of its output in cells.
        predicted_class: name of the class that the arm's model predicts, from its stored predictions.
        predicted_probability: of that class.
        true_probability: of the true class.
        degenerate: whether a map is empty.
        method: of the maps.
    """

    arm: str
    layer: str
    map_size: tuple[int, int]
    predicted_class: str
    predicted_probability: float
    true_probability: float
    degenerate: bool
    method: str = "Grad-CAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class CamPanel:
    """An input with heat maps and overlays per arm, for the true and the predicted class.

    Attributes:
        sample_id: index of the image in the image set.
        true_class: its label's name.
        reason: why it was chosen ("both correct", "both wrong", "only resnet50 correct", "most confused", ...).
        views: Grad-CAM of each arm, in the order of the findings' arms, followed by the arm's chosen maps where they differ.
        figure: file name under findings/figures/.
    """

    sample_id: int
    true_class: str
    reason: str
    views: tuple[CamView, ...]
    figure: str

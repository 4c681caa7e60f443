"""What the forensics found: the values of the audits, the causes and the heat maps that `Findings` holds."""

from dataclasses import dataclass
from enum import StrEnum

from analysis.findings.interval import Interval


class AuditVerdict(StrEnum):
    """What the Clever Hans audit says of a class or of an arm."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAudit:
    """The audit of one class at one width of the ring; accuracies are fractions.

    Attributes:
        class_name: the class.
        gap: accuracy with a ring of the same class minus with one of another class; intervals hold over all classes at once.
        verdict: FAIL, PASS or UNDECIDED against the tolerance.
        object_free_gap: the same where the ring holds no object, at 95 %; None where there are too few such images.
        is_confirmed: whether a FAIL also shows there; None where the class does not fail.
        ring_only_accuracy: with nothing but the ring.
    """

    class_name: str
    gap: Interval
    verdict: AuditVerdict
    object_free_gap: Interval | None
    is_confirmed: bool | None
    ring_only_accuracy: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class RingAudit:
    """The audit of one arm at one width of the ring.

    Attributes:
        ring_pixels: width of the ring in pixels of the image set.
        gap: over all classes, at 95 %.
        ring_only_accuracy: over all classes, against `chance`, one over the number of classes.
        classes: one each.
        verdict: FAIL if a class fails, PASS if all pass, else UNDECIDED.
        object_free_by: how images without object in the ring are known; `num_object_free` were used.
        region: where in the ring a failing arm reads: one of its corners or sides, "all around", or "" where it does not fail.
    """

    ring_pixels: int
    gap: Interval
    ring_only_accuracy: Interval
    chance: float
    classes: tuple[ClassAudit, ...]
    verdict: AuditVerdict
    object_free_by: str
    num_object_free: int
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPull:
    """P(ring's class | its ring) minus P(that class | a third class's ring), on images of `true_class`; a fraction, at 95 %."""

    true_class: str
    ring_class: str
    pull: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class CueEffect:
    """What taking one cue away gains in the margin between a confused pair, in logits, beyond what it does to other classes."""

    cue: str
    effect: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCause:
    """Why an arm takes two classes for each other (`analysis.audits.root_cause`).

    Attributes:
        classes: the pair.
        effects: one per cue, with intervals that hold over the four cues; empty where it could not be measured.
        cause: the cue whose interval lies above 0 and that leads the next one beyond error, else "mixed".
        lead: of the first cue over the second, at 95 %.
        num_images: confused images that it rests on.
        note: why it could not be measured, else "".
    """

    classes: tuple[str, str]
    effects: tuple[CueEffect, ...]
    cause: str
    lead: Interval
    num_images: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupContrast:
    """Mean F1 of the classes of one group minus those of another, with an exact permutation p over the classes.

    `smallest_p` is the least p that so few classes can have.
    """

    groups: tuple[str, str]
    difference: float
    p_value: float
    smallest_p: float
    num_classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourLoss:
    """Accuracy that one class loses when its images are made grey, a fraction; intervals hold over all classes at once."""

    class_name: str
    loss: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class CamTest:
    """One of the tests that heat maps must pass before they count as evidence.

    Attributes:
        name: what is tested.
        estimate: with its interval at 95 % for new seeds and new images.
        rule: what must hold, in words.
        is_passed: whether it does.
    """

    name: str
    estimate: Interval
    rule: str
    is_passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CamAdmission:
    """Whether an arm's Grad-CAM maps are admitted as evidence (`analysis.heat_maps.validity_tests`).

    Attributes:
        layer: the layer of the maps; `map_size` is (height, width) of its output in cells.
        num_images: tested.
        tests: all of them must be passed.
        is_admitted: whether they are.
        object_focus: share of the maps' energy on the object minus that in other images' masks; None without masks.
    """

    layer: str
    map_size: tuple[int, int]
    num_images: int
    tests: tuple[CamTest, ...]
    is_admitted: bool
    object_focus: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyAudit:
    """What an arm loses when the waves that tell classes apart come from another class (`analysis.audits.frequency_audit`).

    Attributes:
        waves: (periods down, periods across the picture) of the waves that are exchanged; down is negative where they slant up.
        gap: accuracy with waves of the same class minus with those of another class, at 95 %.
        verdict: FAIL, PASS or UNDECIDED against the tolerance.
    """

    waves: tuple[tuple[int, int], ...]
    gap: Interval
    verdict: AuditVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CamView:
    """One arm's view of one image in a Grad-CAM panel."""

    arm: str
    layer: str
    map_size: tuple[int, int]
    predicted_class: str
    predicted_probability: float
    true_probability: float
    degenerate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CamPanel:
    """One row of pictures: input, then heat map and overlay per arm, for the true and the predicted class.

    Attributes:
        sample_id: index of the image in the image set.
        true_class: its label's name.
        reason: why it was chosen ("both correct", "both wrong", "only resnet50 correct", "most confused", ...).
        views: one per arm, in the order of the findings' arms.
        figure: file name under findings/figures/.
    """

    sample_id: int
    true_class: str
    reason: str
    views: tuple[CamView, ...]
    figure: str

"""Findings of the A/B comparison: one row per contrast, with its class-by-class differences."""

from dataclasses import dataclass
from enum import StrEnum

from analysis.findings.interval import Interval


class Verdict(StrEnum):
    """The decision of one A/B row about treatment against control."""

    BETTER = "BETTER"
    WORSE = "WORSE"
    EQUIVALENT = "EQUIVALENT"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """F1 of one class, treatment minus control, a fraction; exploratory.

    Attributes:
        class_name: the class.
        effect: mean over paired seeds with its 95 % interval for new seeds and new images, pointwise for this class; the
            variance between seeds is moderated over the classes.
        p_value: two-sided, for no difference.
        p_adjusted: Benjamini-Hochberg over the classes of the row.
        is_flagged: whether `p_adjusted` is at most the false discovery rate, 0.10.
        models_effect: the same difference with its interval for these very models on new images.
    """

    class_name: str
    effect: Interval
    p_value: float
    p_adjusted: float
    is_flagged: bool
    models_effect: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One row of the A/B table. All effects are fractions of macro-F1 (0.01 is one percentage point).

    Attributes:
        treatment: arm A.
        control: arm B; effects are A minus B.
        effect: mean difference over paired seeds with its interval at `confidence` (simultaneous over rows).
        standard_error: of the effect, for new seeds and new images.
        degrees_of_freedom: of the t distribution of the interval.
        seed_variance: V_S of the comparison protocol.
        image_variance: V_I.
        seed_image_variance: V_SI.
        confidence: 1 - alpha / rows.
        margin: the equivalence margin.
        verdict: BETTER, WORSE, EQUIVALENT or UNDECIDED.
        materiality: "material", "negligible" or "" for a BETTER or WORSE row.
        settles: the seeds or test images that would decide an UNDECIDED row, as a sentence; else "".
        num_seeds: paired seeds S.
        num_images: test images N.
        minimum_detectable_effect: smallest effect found with 80 % power at this S and N.
        p_value: two-sided, for no difference.
        seed_differences: the S differences.
        cost_ratio: device-seconds per confirmation trial, treatment / control; None where not measured.
        look: number of the planned look that decided the row or came last, from 1.
        num_looks: planned looks.
        intervals: "planned" (valid at the planned looks) or "anytime" (valid at every number of seeds).
        bootstrap: interval of the crossed bootstrap at the same confidence, as a cross-check; None where not computed.
        class_differences: one per class, exploratory; empty where not computed.
        plan_changed: whether the plan was changed after it was written.
    """

    treatment: str
    control: str
    effect: Interval
    standard_error: float
    degrees_of_freedom: float
    seed_variance: float
    image_variance: float
    seed_image_variance: float
    confidence: float
    margin: float
    verdict: Verdict
    materiality: str
    settles: str
    num_seeds: int
    num_images: int
    minimum_detectable_effect: float
    p_value: float
    seed_differences: tuple[float, ...]
    cost_ratio: float | None
    look: int = 1
    num_looks: int = 1
    intervals: str = "planned"
    bootstrap: Interval | None = None
    class_differences: tuple[ClassDifference, ...] = ()
    plan_changed: bool = False

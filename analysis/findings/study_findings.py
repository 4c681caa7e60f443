"""`Findings`: the values behind the report. Computed elsewhere, drawn elsewhere, worded elsewhere."""

import dataclasses
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from analysis.findings.forensic_findings import (
    CamAdmission,
    CamPanel,
    ColourLoss,
    FrequencyAudit,
    GroupContrast,
    PairPull,
    RingAudit,
    RootCause,
)
from analysis.findings.interval import Interval


class Verdict(StrEnum):
    """What one A/B row says about treatment against control."""

    BETTER = "BETTER"
    WORSE = "WORSE"
    EQUIVALENT = "EQUIVALENT"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """F1 of one class, treatment minus control, a fraction; exploratory.

    Attributes:
        class_name: the class.
        effect: mean over paired seeds with its 95 % interval for new seeds and new images, this class alone.
        p_value: two-sided, of no difference.
        p_adjusted: Benjamini-Hochberg over the classes of the row.
        is_flagged: whether `p_adjusted` is at most the false discovery rate, 0.10.
    """

    class_name: str
    effect: Interval
    p_value: float
    p_adjusted: float
    is_flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One row of the A/B table. All effects are fractions of macro-F1 (0.01 is one percentage point).

    Attributes:
        treatment: arm A.
        control: arm B; effects are A minus B.
        effect: mean difference over paired seeds with its interval at `confidence` (simultaneous over rows).
        standard_error: of the effect, for new seeds and new images.
        degrees_of_freedom: of the t distribution behind the interval.
        seed_variance: V_S of the comparison protocol.
        image_variance: V_I.
        seed_image_variance: V_SI.
        confidence: 1 - alpha / rows.
        margin: the equivalence margin.
        verdict: BETTER, WORSE, EQUIVALENT or UNDECIDED.
        materiality: "material", "negligible" or "" for a BETTER or WORSE row.
        settles: what would settle an UNDECIDED row, else "".
        num_seeds: paired seeds S.
        num_images: test images N.
        minimum_detectable_effect: smallest effect found with 80 % power at this S and N.
        p_value: two-sided, of no difference.
        seed_differences: the S differences.
        cost_ratio: device-seconds per run, treatment / control; None where not measured.
        look: number of the planned look that the row rests on, from 1; `num_looks` were planned.
        intervals: "planned" (they hold at the planned looks) or "anytime" (they hold at every number of seeds).
        bootstrap: the crossed bootstrap's interval at the same confidence, a cross-check; None where not computed.
        class_differences: class by class, exploratory; empty where not computed.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """Precision, recall and F1 of one class, means over seeds, with intervals for new seeds and new images."""

    class_name: str
    precision: Interval
    recall: Interval
    f1: Interval
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Confusion matrix of one arm over S seeds and N images; row = true class, column = predicted class.

    Attributes:
        counts: (K, K) mean number of images per seed.
        rates: (K, K) Interval of P(predicted | true), for new seeds and new images.
        excess: (K, K) rate minus the rate expected if errors of the row fell on wrong classes in proportion to
            how often each class is wrongly predicted; 0 on the diagonal.
    """

    counts: tuple[tuple[float, ...], ...]
    rates: tuple[tuple[Interval, ...], ...]
    excess: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanExcess:
    """How an arm's confusion of two classes compares with people's on the same images.

    Attributes:
        human_rate: share of people's answers on images of the two classes that name the other one.
        excess: the arm's rate minus people's, with its interval for new seeds and new images.
        word: "machine-specific", "ambiguous to people" or "undecided", by the interval's place against 0.
    """

    human_rate: float
    excess: Interval
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """Two classes that an arm takes for each other more often than chance would, over all pairs at once.

    Attributes:
        classes: the two.
        rate: share of their images that is taken for the other class, with its interval for new seeds and new images.
        expected_rate: the same by chance (`analysis.classes.clusters`); the excess is `rate` minus this.
        p_adjusted: of the permutation test, over all pairs.
        human: against people's confusion; None without human counts.
    """

    classes: tuple[str, str]
    rate: Interval
    expected_rate: float
    p_adjusted: float
    human: HumanExcess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionCluster:
    """Classes that significant pairs hold together in at least 95 % of bootstraps over images, `stability` the lowest share."""

    classes: tuple[str, ...]
    stability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelIssue:
    """An image whose label every seed of every arm contradicts and that cleanlab lists.

    Attributes:
        sample_id: index of the image in the image set.
        label, suggested: names of its class, and of the one that the models say.
        label_quality: cleanlab's score, 0 to 1; low is doubtful.
    """

    sample_id: int
    label: str
    suggested: str
    label_quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFinding:
    """What the confirmation runs say about one arm.

    Attributes:
        arm: name of the arm.
        trial_id: the search trial whose configuration was confirmed.
        confirmation_ids: the confirmation trials, in the order of `seeds`.
        seeds: the paired seeds.
        hyperparameters: the winning configuration.
        search_macro_f1: its last-epoch macro-F1 on the search split (biased upward; never compared).
        confirm_macro_f1: mean over seeds on the confirm split.
        test_macro_f1: over seeds and images of the test split.
        class_scores: one per class.
        confusion: the confusion matrix.
        confused_pairs: pairs of classes that are confused more often than chance, the strongest first; None where not tested.
        clusters: groups of classes that such pairs hold together.
        ring_audits: the Clever Hans audit, one part per width of the ring; empty where it was not made.
        pulls: of the strongest confused pairs, both ways.
        root_causes: of the same pairs.
        group_contrasts: between the named groups of classes, where the image set has some.
        colour_losses: one per class; empty where the audit was not made.
        frequency_audit: None where the audit was not made.
        cam_admission: whether the arm's heat maps are evidence; None where that was not tested.
        gate_cleared: lower bound of `test_macro_f1` > gate; None without a gate.
        num_parameters: trainable parameters.
        forward_flops: floating-point operations of one image's forward pass, a multiplication and an addition counted as two.
        device_seconds: mean per confirmation run.
        train_images_per_second: median over epochs of the confirmation runs.
        predict_images_per_second: the same for predicting the search split, resizing included.
        points_per_device_hour: percentage points of macro-F1 on the test split per device-hour of a run.
        peak_memory_bytes: highest of the runs.
        device: the device's name.
    """

    arm: str
    trial_id: str
    confirmation_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    hyperparameters: dict[str, float | int | str | bool]
    search_macro_f1: float
    confirm_macro_f1: float
    test_macro_f1: Interval
    class_scores: tuple[ClassScore, ...]
    confusion: Confusion
    confused_pairs: tuple[ConfusedPair, ...] | None
    clusters: tuple[ConfusionCluster, ...]
    ring_audits: tuple[RingAudit, ...]
    pulls: tuple[PairPull, ...]
    root_causes: tuple[RootCause, ...]
    group_contrasts: tuple[GroupContrast, ...]
    colour_losses: tuple[ColourLoss, ...]
    frequency_audit: FrequencyAudit | None
    cam_admission: CamAdmission | None
    gate_cleared: bool | None
    num_parameters: int
    forward_flops: int
    device_seconds: float
    train_images_per_second: float
    predict_images_per_second: float
    points_per_device_hour: float
    peak_memory_bytes: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchArm:
    """How one arm fared in the search.

    Attributes:
        arm: name.
        num_trials: trials started.
        num_completed, num_pruned, num_failed: by final state.
        device_seconds: spent.
        share: of all device-seconds.
        best_macro_f1: best last-epoch macro-F1 on the search split among trials that ran every epoch; None if none.
        best_trial_id: that trial's id; "" if none.
        saved_device_seconds: what the stopped trials would have spent had they run every epoch, less what they spent.
        saved_fraction: saved / (spent + saved); 0 where nothing was spent.
    """

    arm: str
    num_trials: int
    num_completed: int
    num_pruned: int
    num_failed: int
    device_seconds: float
    share: float
    best_macro_f1: float | None
    best_trial_id: str
    saved_device_seconds: float
    saved_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RungFinding:
    """How well one rung of one arm's bracket foretold the last epoch.

    Attributes:
        arm: name.
        epoch: of the rung.
        num_reached: trials that reported a finite macro-F1 at the rung.
        num_stopped: of those, stopped there.
        num_completed: trials that ran every epoch; the correlation is over these alone.
        rank_correlation: Spearman, between macro-F1 at the rung and at the last epoch; None where there is none (fewer
            than two trials, or all with the same value).
        interval: of the rank correlation at 95 %; None where there is none (fewer than four trials, or a correlation of
            exactly 1 or -1).
    """

    arm: str
    epoch: int
    num_reached: int
    num_stopped: int
    num_completed: int
    rank_correlation: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPoint:
    """The best macro-F1 on the search split to be expected after `device_seconds` of search, with a band of 80 % of searches."""

    device_seconds: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningCurve:
    """One arm's best configuration over the device time of its search.

    Attributes:
        arm: name.
        points: over searches made of the arm's own trials, drawn with replacement; empty where too few of them finish one.
        observed: (device-seconds, best macro-F1 so far) of the search as it was, at the ends of its trials.
    """

    arm: str
    points: tuple[TuningPoint, ...]
    observed: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterImportance:
    """Share of one hyperparameter in telling an arm's best trials from the rest (PED-ANOVA); an arm's shares sum to 1."""

    arm: str
    parameter: str
    importance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything the report says about one study.

    Attributes that do not speak for themselves: `search_notes` are sentences about the search's plots and importances (what
    could not be drawn, what is inexact); `search_page` is the file name of the interactive plots beside the report, "" if
    there is none; `allocation` is "per_arm", "pooled" or "given" (nothing was searched); `warm_start` is the study
    from whose trials the samplers started, "" if none; `basis` is a digest of what all this was computed from, with which code
    and versions (`study.results.findings.digest_basis`).
    """

    study: str
    created: str
    class_names: tuple[str, ...]
    factor: str
    gate: float | None
    search: tuple[SearchArm, ...]
    rungs: tuple[int, ...]
    rung_findings: tuple[RungFinding, ...]
    importances: tuple[ParameterImportance, ...]
    tuning_curves: tuple[TuningCurve, ...]
    search_notes: tuple[str, ...]
    search_page: str
    allocation: str
    warm_start: str
    arms: tuple[ArmFinding, ...]
    rows: tuple[ComparisonRow, ...]
    human_note: str
    audit_note: str
    label_issues: tuple[LabelIssue, ...]
    panels: tuple[CamPanel, ...]
    cam_note: str
    num_test_reads: int
    warnings: tuple[str, ...]
    figures: dict[str, str]
    passport: dict[str, Any]
    basis: str = ""

    def to_json(self) -> str:
        """Return findings.json: sorted keys, two-space indent, no NaN (absent values are null)."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Turn tuples into lists and non-finite floats into None, for strict JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

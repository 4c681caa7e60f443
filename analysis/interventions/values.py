"""Findings about interventions: what each one states before it is tried, and what was measured afterwards.

The effect on a target is a change of a share of images, so a negative effect is an improvement.
"""

from dataclasses import dataclass
from enum import StrEnum

from analysis.comparison.values import Verdict
from analysis.statistics.interval import Interval

Cell = tuple[str, str]


class TargetKind(StrEnum):
    """What an intervention should change.

    "cells" is the share of the images of the true classes that falls into some cells of the confusion matrix; "ring gap" and
    "color loss" are accuracies that the images of some classes lose in the Clever Hans audit: with rings of other classes, and
    without color.
    """

    CELLS = "cells"
    RING_GAP = "ring gap"
    COLOR_LOSS = "color loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target of an intervention.

    Attributes:
        kind: of the target.
        classes: whose images it is measured on.
        cells: (true class, predicted class); empty unless the kind is "cells".
    """

    kind: TargetKind
    classes: tuple[str, ...]
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The predicted change of the target.

    Attributes:
        effect: with its interval at 95 %; None for no prediction.
        basis: how it was measured, or why there is none.
        before: the change as it was measured on the control, before it was recalibrated; None where it was not.
    """

    effect: Interval | None
    basis: str
    before: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedIntervention:
    """One intervention as it was stated before any of its test predictions was read.

    Attributes:
        arm: name of the arm.
        title: the intervention in words.
        symptom: what was found on the images that choose.
        diagnosis: why, as far as it is known.
        verdict: of the finding that asks for it, such as "MATERIAL" or "FAIL".
        changes: settings of the control that it changes, with their new values.
        target: what it should change.
        spares: what it should leave alone.
        prediction: of the change of the target.
        refuted_by: what would refute the prediction or, without one, the advice.
        is_seen: whether the images that judge it also chose its target.
        num_target_images: images of the target's classes that judge it.
    """

    arm: str
    title: str
    symptom: str
    diagnosis: str
    verdict: str
    changes: dict[str, float | int | str | bool]
    target: Target
    spares: str
    prediction: Prediction
    refuted_by: str
    is_seen: bool
    num_target_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTried:
    """An intervention that a round leaves out.

    Attributes:
        name: of the intervention.
        reason: why it is not tried.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedInterventions:
    """All interventions of one round, as interventions.json holds them.

    Attributes:
        created: ISO 8601, UTC.
        parent: root of the study whose findings asked for them.
        round: its number, from 1.
        source_arm: arm of the parent whose configuration is the control.
        source_trial_id: the search trial of the parent that has it.
        half_seed: seed of the halves of the test images.
        num_choosing: test images that chose the targets.
        num_judging: the other test images.
        interventions: one per arm beside the control.
        earlier_test_reads: how often the parent and its earlier rounds had read the test split.
        not_tried: the other interventions of the registry; empty where the user named those to try.
        named_target: TRUE:PREDICTED of the cell that the user named; "" for what was found.
    """

    created: str
    parent: str
    round: int
    source_arm: str
    source_trial_id: str
    half_seed: int
    num_choosing: int
    num_judging: int
    interventions: tuple[StatedIntervention, ...]
    earlier_test_reads: int
    not_tried: tuple[NotTried, ...] = ()
    named_target: str = ""

    def of_arm(self, arm: str) -> StatedIntervention:
        """Return what was stated about an arm."""
        (found,) = (stated for stated in self.interventions if stated.arm == arm)
        return found


class Outcome(StrEnum):
    """What became of a prediction."""

    HELD = "held"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NONE = "no prediction"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetEffect:
    """The measured change of a target, treatment minus control.

    Attributes:
        effect: for new seeds and new images, simultaneous over the arms of the round.
        treatment: the share itself, mean over seeds.
        control: the same of the control.
        verdict: BETTER if the interval lies below 0, WORSE if above.
        confidence: of the interval.
        num_seeds: paired seeds.
        num_images: of the target's classes.
    """

    effect: Interval
    treatment: float
    control: float
    verdict: Verdict
    confidence: float
    num_seeds: int
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """The surest loss in F1 among the classes that are no target, that with the lowest upper bound.

    Attributes:
        class_name: of the class.
        effect: change of its F1, with an interval that is simultaneous over these classes.
        num_certain: number of these classes whose interval lies below 0.
    """

    class_name: str
    effect: Interval
    num_certain: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InterventionEffect:
    """What one intervention did.

    Attributes:
        stated: what was stated before.
        macro_f1: change of macro-F1, the effect of its row in the A/B table; None where there is no row.
        macro_f1_verdict: of that row.
        target: None where it could not be measured; `note` says why.
        outcome: of the prediction.
        collateral: None where every class is a target, or nothing was measured.
        ring_gap: change of the accuracy that rings of other classes cost, over all classes; None where it was not measured.
        cost_ratio: device-seconds of a trial over those of the control.
        device_seconds: of all confirmation trials of the arm.
        note: why something is missing, else "".
        num_seeds: of the row of macro-F1; 0 where there is none.
        p_noninferior: one-sided, for a loss of macro-F1 of the margin or more; None where there is no row.
        noninferior_level: level at which it excludes such a loss (`share_noninferior_levels`).
    """

    stated: StatedIntervention
    macro_f1: Interval | None
    macro_f1_verdict: Verdict | None
    target: TargetEffect | None
    outcome: Outcome
    collateral: Collateral | None
    ring_gap: Interval | None
    cost_ratio: float | None
    device_seconds: float
    note: str
    num_seeds: int = 0
    p_noninferior: float | None = None
    noninferior_level: float = 0.0

    @property
    def is_noninferior(self) -> bool:
        """Whether macro-F1 certainly does not fall by the margin or more."""
        return self.p_noninferior is not None and self.p_noninferior <= self.noninferior_level


@dataclass(frozen=True, slots=True, kw_only=True)
class InterventionFindings:
    """What one round of interventions found.

    Attributes:
        stated: all that was stated before.
        is_changed: whether that was changed after it was written.
        control: name of the control's arm.
        alpha: family-wise error rate of this round, over arms x (macro-F1, target).
        effects: one per intervention.
        recommended: arm of the recommended configuration; "" if nothing helped.
        conclusion: the recommendation in words.
        num_test_reads: of the parent, of its earlier rounds and of this study together.
        recommended_interventions: those of the recommended arm of a factorial design; empty for one intervention at a time, which
            is the arm.
        is_factorial: whether every effect is over all runs of a factorial design.
        has_moderated_rows: whether the rows of macro-F1 share what they say about the variance between seeds.
    """

    stated: StatedInterventions
    is_changed: bool
    control: str
    alpha: float
    effects: tuple[InterventionEffect, ...]
    recommended: str
    conclusion: str
    num_test_reads: int
    recommended_interventions: tuple[str, ...] = ()
    is_factorial: bool = False
    has_moderated_rows: bool = False

    def is_recommended(self, name: str) -> bool:
        """Return whether the recommended configuration has an intervention."""
        return name in (self.recommended_interventions or (self.recommended,))

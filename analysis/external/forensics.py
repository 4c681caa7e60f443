"""Forensics of models that were trained elsewhere, from labels and probabilities alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.classes.class_scores import compute_class_scores, compute_macro_f1_intervals
from analysis.classes.confusion_matrix import compute_confusion
from analysis.classes.human_counts import compute_human_shares
from analysis.classes.label_issues import list_label_issues
from analysis.evidence.arm_scores import compute_arm_confusions
from analysis.findings.arm_findings import ArmConfusions
from analysis.findings.class_findings import ClassScore, Confusion, LabelIssue
from analysis.findings.interval import TwoIntervals
from analysis.statistics.arm_predictions import ArmPredictions, stack_predictions
from search_spaces.errors import UserInputError
from trainables.training.predictions import Predictions

CONFIDENCE = 0.95
NO_HUMAN_COUNTS = "There are no human counts, so it is not known how humans confuse these classes."


@dataclass(frozen=True, kw_only=True)
class OutsideArm(ArmConfusions):
    """Findings about one arm from its predictions alone; the fields are those of `ArmFinding`."""

    arm: str
    seeds: tuple[int, ...]
    test_macro_f1: TwoIntervals
    class_scores: tuple[ClassScore, ...]
    confusion: Confusion


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideFindings:
    """Findings about several arms from their predictions on the same images.

    Attributes:
        class_names: K names.
        num_images: N.
        arms: one each.
        label_issues: doubtful labels, the most doubtful first.
        human_note: why confusions are not compared with human annotators; "" where they are.
    """

    class_names: tuple[str, ...]
    num_images: int
    arms: tuple[OutsideArm, ...]
    label_issues: tuple[LabelIssue, ...]
    human_note: str

    def to_json(self) -> str:
        """Return the findings as JSON with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"


def analyze_outside_arms(
    arms: Mapping[str, Mapping[int, Predictions]],
    *,
    class_names: Sequence[str] | None = None,
    human_counts: NDArray[np.generic] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> OutsideFindings:
    """Return the forensics of models that were trained elsewhere.

    Args:
        arms: predictions by arm and seed, at least two seeds each, all on the same images.
        class_names: K names; "class 0" and so on where None.
        human_counts: (N, K) numbers of annotators who chose each class, a row for each image in the order of the sample ids.
        groups: named groups of classes whose F1 is contrasted.

    Raises:
        UserInputError: for one seed, arms with different images, and names, counts or groups that do not fit.
    """
    stacked = {arm: stack_predictions(arm, by_seed) for arm, by_seed in arms.items()}
    first = next(iter(stacked.values()))
    for name, arm in stacked.items():
        if not np.array_equal(arm.sample_ids, first.sample_ids) or not np.array_equal(arm.labels, first.labels):
            raise UserInputError(f"arms {first.name!r} and {name!r} must predict the same images with the same labels")
        if len(arm.seeds) < 2:
            raise UserInputError(f"arm {name!r} has one seed only: an interval needs two. Add a seed")
    names = tuple(class_names or (f"class {i}" for i in range(first.num_classes)))
    if len(names) != first.num_classes or len(set(names)) != len(names):
        raise UserInputError(f"{first.num_classes} classes need as many different names, but got {', '.join(names)}")
    human = None if human_counts is None else compute_human_shares(human_counts, len(first.labels), names)
    return OutsideFindings(
        class_names=names,
        num_images=len(first.labels),
        arms=tuple(_analyze_arm(arm, names, human, groups or {}) for arm in stacked.values()),
        label_issues=list_label_issues([p for by_seed in arms.values() for p in by_seed.values()], names),
        human_note=NO_HUMAN_COUNTS if human is None else "",
    )


def _analyze_arm(
    arm: ArmPredictions, names: tuple[str, ...], human: NDArray[np.float64] | None, groups: Mapping[str, Sequence[str]]
) -> OutsideArm:
    scores = compute_class_scores(arm, names, CONFIDENCE)
    return OutsideArm(
        arm=arm.name,
        seeds=arm.seeds,
        test_macro_f1=compute_macro_f1_intervals(arm, CONFIDENCE),
        class_scores=scores,
        confusion=compute_confusion(arm, names, CONFIDENCE),
        **vars(compute_arm_confusions(arm, scores, groups, human)),
    )

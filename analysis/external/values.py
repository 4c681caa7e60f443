"""Findings about models that were trained elsewhere, from their predictions alone."""

import json
from dataclasses import asdict, dataclass

from analysis.arms.values import ArmResults
from analysis.confusions.values import ArmConfusions, LabelIssue


@dataclass(frozen=True, kw_only=True)
class OutsideArm(ArmResults, ArmConfusions):
    """Findings about one arm from its predictions alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideFindings:
    """Findings about several arms from their predictions on the same images.

    Attributes:
        class_names: K names.
        num_images: N.
        arms: one each.
        label_issues: doubtful labels, the most doubtful first.
        human_note: why confusions are not compared with human annotators; "" where they are.
        notes: sentences on what the predictions do not allow to say.
    """

    class_names: tuple[str, ...]
    num_images: int
    arms: tuple[OutsideArm, ...]
    label_issues: tuple[LabelIssue, ...]
    human_note: str
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return the findings as JSON with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

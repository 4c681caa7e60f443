"""`RawPredictions`: the content of one file of predictions before it is checked, and the names that a file may use."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import nearest_name

# Accepted names of each column of a table or array of an npz file; the first is the one that the documentation uses.
NAMES = {
    "label": ("label", "labels", "target", "y_true"),
    "sample_id": ("sample_id", "sample_ids", "image_id"),
    "arm": ("arm", "arms", "model"),
    "seed": ("seed", "seeds"),
    "predicted": ("predicted", "predictions", "prediction", "y_pred"),
    "probabilities": ("probabilities", "probs", "proba"),
    "logits": ("logits",),
    "class_names": ("class_names", "classes"),
}
SCORES = ("probabilities", "logits")


@dataclass(slots=True, kw_only=True)
class RawPredictions:
    """One row per arm, seed and image; what the file does not have is None.

    Attributes:
        path: of the file.
        labels: (R,) numbers or names of classes.
        arms: (R,) names.
        seeds: (R,) integers.
        sample_ids: (R,) integers or texts; None numbers the images of each arm and seed from 0.
        predicted: (R,) numbers or names of classes.
        scores: (R, K) probabilities or logits.
        kind: "probabilities" or "logits".
        class_names: K names.
        unread_names: the column that seems to name the images but is not read as their ids; "" if there is none.
        problems: sentences on what is wrong with the file.
    """

    path: Path
    labels: NDArray[Any] | None = None
    arms: NDArray[Any] | None = None
    seeds: NDArray[Any] | None = None
    sample_ids: NDArray[Any] | None = None
    predicted: NDArray[Any] | None = None
    scores: NDArray[np.float64] | None = None
    kind: str = "probabilities"
    class_names: tuple[str, ...] | None = None
    unread_names: str = ""
    problems: list[str] = field(default_factory=list)

    def require(self, present: Iterable[str]) -> None:
        """Note as problems that labels, or all of probabilities, logits and predicted classes, are missing.

        Args:
            present: names in the file, among which a misspelled one is looked for.
        """
        names = list(present)
        if self.labels is None:
            self.problems.append(f"there is no 'label'{nearest_name('label', names)}")
        if self.scores is None and self.predicted is None and not self.problems_of_scores:
            self.problems.append(f"there are no 'probabilities' and no 'logits'{nearest_name('probabilities', names)}")

    @property
    def problems_of_scores(self) -> list[str]:
        """The problems that name probabilities or logits."""
        return [problem for problem in self.problems if any(kind in problem for kind in SCORES)]


def find_accepted_name(key: str, present: Iterable[str]) -> str | None:
    """Return the first accepted name of `key` that is present; None if none is."""
    names = set(present)
    return next((name for name in NAMES[key] if name in names), None)

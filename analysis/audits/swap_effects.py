"""What an arm loses when a part of its images comes from another class instead of its own: the audits' common ground."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.audits.ring_swaps import Images, draw_partners
from analysis.findings.forensic_findings import AuditVerdict
from analysis.findings.interval import Interval
from analysis.statistics.crossed_interval import compute_crossed_interval
from analysis.statistics.metrics import FloatArray, IntArray

# A gap that matters: 5 percentage points of accuracy.
TOLERANCE = 0.05
ALPHA = 0.05
# Return (S, n) classes that the arm's S models say of (n, H, W, 3) images.
Classify = Callable[[Images], IntArray]
# Return (n, H, W, 3) images in which a part comes from the donors, (n, H, W, 3) too.
Swap = Callable[[Images, Images], Images]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditImages:
    """What an audit looks at: (N, H, W, 3) images, (N,) labels, K class names, and (N, H, W) object masks or None."""

    images: Images
    labels: IntArray
    class_names: tuple[str, ...]
    masks: NDArray[np.bool_] | None = None

    def take(self, indices: IntArray) -> "AuditImages":
        """Return the part with these indices."""
        masks = None if self.masks is None else self.masks[indices]
        return AuditImages(
            images=self.images[indices], labels=self.labels[indices], class_names=self.class_names, masks=masks
        )

    def thin(self, number: int) -> IntArray:
        """Return the sorted indices of about `number` images: the first of each class, as many of each, two at least."""
        classes = np.unique(self.labels)
        each = max(2, number // len(classes))
        return np.sort(np.concatenate([np.flatnonzero(self.labels == c)[:each] for c in classes]))


def measure_gaps(classify: Classify, what: AuditImages, swap: Swap, generator: np.random.Generator) -> FloatArray:
    """Return (S, N): right with a part from the same class minus right with the part from another class; donors are of `what`.

    Raises UserInputError where a class has one image only, or there is one class only.
    """
    # One donor each: averaging over several would hide that they are a sample, too.
    right = [
        classify(swap(what.images, what.images[draw_partners(what.labels, generator, same_class=same)])) == what.labels
        for same in (True, False)
    ]
    return np.asarray(np.asarray(right[0], dtype=np.float64) - right[1])


def compute_mean_interval(
    values: FloatArray, labels: IntArray, num_classes: int, confidence: float = 1 - ALPHA
) -> Interval:
    """Return the mean of (S, N) values with its interval for new seeds and new images; UserInputError for one seed."""
    means = values.mean(axis=1)
    return compute_crossed_interval(means, values - means[:, None], labels, num_classes, confidence).interval


def judge_gap(gap: Interval) -> AuditVerdict:
    """Return FAIL where the whole interval lies above the tolerance, PASS where it lies below, else UNDECIDED."""
    if gap.low > TOLERANCE:
        return AuditVerdict.FAIL
    return AuditVerdict.PASS if gap.high < TOLERANCE else AuditVerdict.UNDECIDED

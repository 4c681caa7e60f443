"""Audits of models on images, measured and judged at once."""

import numpy as np
from numpy.typing import NDArray

from analysis.shortcuts.frequency_audit import judge_frequencies, measure_frequencies
from analysis.shortcuts.ring_audit import judge_ring, measure_rings
from analysis.shortcuts.swaps import AuditImages, Classify
from analysis.shortcuts.values import FrequencyAudit, RingAudit


def with_errors(predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the predictions (3, N) of three models, of which each replaces a tenth by random classes."""
    predictions = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        random = rng.random(len(predicted)) < 0.1
        predictions.append(np.where(random, rng.integers(num_classes, size=len(predicted)), predicted))
    return np.stack(predictions)


def audit_rings(classify: Classify, audit_images: AuditImages) -> tuple[RingAudit, ...]:
    """Return the audits of an arm, one per ring width, the narrowest first."""
    return tuple(map(judge_ring, measure_rings(classify, audit_images)))


def audit_frequencies(classify: Classify, audit_images: AuditImages) -> FrequencyAudit | None:
    """Return the frequency audit of an arm; None where a class has too few images."""
    measured = measure_frequencies(classify, audit_images)
    return None if measured is None else judge_frequencies(measured)

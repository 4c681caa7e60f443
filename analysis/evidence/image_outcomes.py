"""What the confirmed models of an arm predict for each test image, and how surely."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from analysis.evidence.arm_evidence import ArmEvidence


def tabulate_images(evidence: ArmEvidence, class_names: Sequence[str]) -> pd.DataFrame:
    """Return a row per test image, over the seeds of an arm.

    Columns: arm, sample_id, label, predicted (by most seeds), correct (share of the seeds), agreement (share of the seeds that
    predict `predicted`), confidence (mean probability of `predicted`), loss (mean cross-entropy of the label).

    Args:
        evidence: of at least one seed.
        class_names: K names; a class indexes them.
    """
    names, first = np.array(class_names), evidence.predictions[0]
    log_probabilities = log_softmax(
        np.stack([found.logits for found in evidence.predictions]).astype(np.float64), axis=2
    )
    predicted = log_probabilities.argmax(axis=2)
    counts = np.stack([(predicted == number).sum(axis=0) for number in range(len(names))])
    most, images = counts.argmax(axis=0), np.arange(len(first.labels))
    return pd.DataFrame(
        {
            "arm": evidence.arm,
            "sample_id": first.sample_ids,
            "label": names[first.labels],
            "predicted": names[most],
            "correct": (predicted == first.labels).mean(axis=0),
            "agreement": counts[most, images] / len(predicted),
            "confidence": np.exp(log_probabilities[:, images, most]).mean(axis=0),
            "loss": -log_probabilities[:, images, first.labels].mean(axis=0),
        }
    )

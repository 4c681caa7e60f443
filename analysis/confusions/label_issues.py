"""Label issues: images whose label may be wrong, found with cleanlab (Northcutt et al. 2021)."""

from collections.abc import Sequence

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from analysis.confusions.values import MAX_ISSUES, LabelIssue
from trainables.training.predictions import Predictions


def list_label_issues(
    predictions: Sequence[Predictions], class_names: Sequence[str], most: int = MAX_ISSUES
) -> tuple[LabelIssue, ...]:
    """Return the images for which all models agree on another label, and which cleanlab lists as well.

    Args:
        predictions: of every arm and seed, on the same images; cleanlab uses their mean probabilities.
        class_names: K names.
        most: issues that are returned.

    Returns:
        The issues, the most doubtful first.
    """
    first = predictions[0]
    predicted = np.stack([p.predicted for p in predictions])
    agreed = (predicted == predicted[0]).all(axis=0) & (predicted[0] != first.labels)
    if len(np.unique(first.labels)) < 2 or not agreed.any():
        return ()
    probabilities = np.mean([p.probabilities for p in predictions], axis=0)
    # cleanlab needs classes numbered without gaps; a class without images cannot be a label.
    present, labels = np.unique(first.labels, return_inverse=True)
    listed = probabilities[:, present] / probabilities[:, present].sum(axis=1, keepdims=True)
    doubtful = find_label_issues(labels, listed, filter_by="confident_learning", n_jobs=1) & agreed
    quality = get_label_quality_scores(labels, listed)
    images = np.flatnonzero(doubtful)
    images = images[np.argsort(quality[images], kind="stable")][:most]
    return tuple(
        LabelIssue(
            sample_id=int(first.sample_ids[i]),
            label=class_names[first.labels[i]],
            suggested=class_names[predicted[0, i]],
            label_quality=float(quality[i]),
        )
        for i in images
    )

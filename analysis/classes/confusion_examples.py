"""Which test images stand behind the cells of an arm's confusion matrix."""

from collections.abc import Sequence

import numpy as np

from analysis.findings.class_findings import ConfusionExamples
from analysis.statistics.arm_predictions import ArmPredictions

# Cells of an arm, and images of a cell, that are listed.
MAX_CELLS = 60
MAX_IMAGES = 8


def find_confusion_examples(arm: ArmPredictions, class_names: Sequence[str]) -> tuple[ConfusionExamples, ...]:
    """Return examples of at most MAX_CELLS confusions, those first with the most images.

    Args:
        arm: S seeds over N images.
        class_names: K names; a class indexes them.
    """
    votes = np.stack([(arm.predicted == number).sum(axis=0) for number in range(arm.num_classes)], axis=1)
    votes[np.arange(len(arm.labels)), arm.labels] = 0
    images, predicted = np.nonzero(votes)
    cells: dict[tuple[int, int], list[int]] = {}
    for image, other in zip(images.tolist(), predicted.tolist(), strict=True):
        cells.setdefault((int(arm.labels[image]), other), []).append(image)
    found = []
    for (label, other), own in sorted(cells.items(), key=lambda cell: (-len(cell[1]), cell[0]))[:MAX_CELLS]:
        first = sorted(own, key=lambda image: (-votes[image, other], arm.sample_ids[image]))[:MAX_IMAGES]
        found.append(
            ConfusionExamples(
                true_class=class_names[label],
                predicted_class=class_names[other],
                num_images=len(own),
                sample_ids=tuple(int(arm.sample_ids[image]) for image in first),
                num_seeds=tuple(int(votes[image, other]) for image in first),
            )
        )
    return tuple(found)

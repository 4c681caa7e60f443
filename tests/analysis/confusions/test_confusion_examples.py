"""The images behind a confusion: those first that most seeds confuse."""

import numpy as np
from sklearn.metrics import confusion_matrix

from analysis.confusions.class_scores import MAX_CELLS, MAX_IMAGES, find_confusion_examples
from analysis.statistics.arm_predictions import ArmPredictions
from tests.built_values import arm_of

NAMES = ("cat", "dog", "ship")


def make_arm(labels: list[int], *predicted: list[int], num_classes: int = 3) -> ArmPredictions:
    return arm_of(labels, predicted, sample_ids=np.arange(len(labels)) + 100, num_classes=num_classes)


def test_images_are_sorted_by_the_seeds_that_confuse_them() -> None:
    arm = make_arm([0, 0, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1], [1, 1, 2, 1])
    first, second = find_confusion_examples(arm, NAMES)
    assert (first.true_class, first.predicted_class, first.num_images) == ("cat", "dog", 2)
    assert first.sample_ids == (101, 100)
    assert first.num_seeds == (3, 2)
    assert (second.true_class, second.predicted_class) == ("cat", "ship")
    assert (second.sample_ids, second.num_seeds) == ((102,), (1,))


def test_every_confused_image_is_counted_in_its_cell() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 400)
    predicted = generator.integers(0, 3, 400)
    found = find_confusion_examples(make_arm(labels.tolist(), predicted.tolist()), NAMES)
    counts = confusion_matrix(labels, predicted)
    assert {(cell.true_class, cell.predicted_class): cell.num_images for cell in found} == {
        (NAMES[i], NAMES[j]): counts[i, j] for i in range(3) for j in range(3) if i != j
    }
    assert all(len(cell.sample_ids) == len(cell.num_seeds) == MAX_IMAGES for cell in found)


def test_no_confusion_has_no_examples_and_many_are_cut() -> None:
    assert find_confusion_examples(make_arm([0, 1, 2], [0, 1, 2]), NAMES) == ()
    labels = np.repeat(np.arange(12), 11)
    predicted = np.concatenate([np.delete(np.arange(12), label) for label in range(12)])
    names = [str(number) for number in range(12)]
    found = find_confusion_examples(make_arm(labels.tolist(), predicted.tolist(), num_classes=12), names)
    assert len(found) == MAX_CELLS < 12 * 11

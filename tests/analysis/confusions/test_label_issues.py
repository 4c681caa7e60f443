"""Label issues: planted wrong labels are listed, and hard images are not."""

import numpy as np

from analysis.confusions.label_issues import list_label_issues
from tests.built_values import predictions_of
from trainables.training.predictions import Predictions

NAMES = ("a", "b", "c", "d")


def make_predictions(labels: np.ndarray, truth: np.ndarray, num_seeds: int = 4) -> list[Predictions]:
    """Return models that predict the true labels with noise."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.5, (len(labels), len(NAMES)))
    ids, logits = np.arange(100, 100 + len(labels)), 4 * np.eye(len(NAMES))[truth] + shared
    noise = (rng.normal(0, 0.5, shared.shape) for _ in range(num_seeds))
    return [predictions_of(labels, logits + own, sample_ids=ids) for own in noise]


def test_wrong_labels_are_listed_with_the_predicted_class() -> None:
    truth = np.arange(400) % 4
    labels = truth.copy()
    wrong = [3, 50, 101, 222, 333]
    labels[wrong] = (truth[wrong] + 1) % 4
    issues = list_label_issues(make_predictions(labels, truth), NAMES)
    assert {issue.sample_id - 100 for issue in issues} == set(wrong)
    for issue in issues:
        i = issue.sample_id - 100
        assert (issue.label, issue.suggested) == (NAMES[labels[i]], NAMES[truth[i]])
    assert [issue.label_quality for issue in issues] == sorted(issue.label_quality for issue in issues)


def test_an_image_that_one_seed_classifies_correctly_is_no_issue() -> None:
    truth = np.arange(400) % 4
    labels = truth.copy()
    labels[7] = (truth[7] + 1) % 4
    predictions = make_predictions(labels, truth)
    logits = predictions[1].logits.copy()
    logits[7] = 9 * np.eye(4)[labels[7]]
    predictions[1] = predictions_of(labels, logits, sample_ids=predictions[1].sample_ids)
    assert list_label_issues(predictions, NAMES) == ()


def test_correct_labels_and_absent_classes() -> None:
    truth = np.arange(300) % 3
    assert list_label_issues(make_predictions(truth, truth), NAMES) == ()
    labels = truth.copy()
    wrong = np.arange(5, 300, 30)
    labels[wrong] = (truth[wrong] + 1) % 3
    issues = list_label_issues(make_predictions(labels, truth), NAMES)
    assert issues
    assert {issue.sample_id - 100 for issue in issues} <= set(wrong.tolist())

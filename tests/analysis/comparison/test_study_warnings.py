"""Warnings of the report."""

import pytest

from analysis.search.search_findings import compute_warnings
from search_spaces.config import TrialConfig
from tests.analysis.findings_factory import make_search_arm
from tests.built_values import record_of
from trainables.records.record import TrialState


@pytest.mark.parametrize(("shares_matter", "number"), [(True, 1), (False, 0)])
def test_unequal_device_time_is_a_warning_only_if_shares_matter(shares_matter: bool, number: int) -> None:
    arms = [make_search_arm("resnet18", 0.28), make_search_arm("resnet50", 0.72)]
    found = compute_warnings(arms, [], ["as planned"], shares_matter=shares_matter)
    assert found[0] == "as planned"
    assert len(found) == 1 + number
    assert all("resnet18 got 28%" in warning for warning in found[1:])
    most = arms[0].num_trials
    assert compute_warnings(arms, [], [], shares_matter=shares_matter, max_trials=most) == ()
    assert len(compute_warnings(arms, [], [], shares_matter=shares_matter, max_trials=most + 1)) == number


@pytest.mark.parametrize(
    ("predictions", "epoch", "shown"),
    [
        (("test",), 3, "scores it by its weights after epoch 3"),
        (("test",), 0, "scores it by labels drawn at random"),
        ((), 3, "failed: train_loss was not finite"),
    ],
)
def test_a_run_that_diverged_is_named_with_what_scores_it(predictions: tuple[str, ...], epoch: int, shown: str) -> None:
    config = TrialConfig(arm="a", seed=1, hyperparameters={}, fixed={})
    ended = {"state": TrialState.FAILED, "reason": "train_loss was not finite", "diverged": True}
    record = record_of(config, trial_id="00003", stage="confirmation", **ended, last_finite_epoch=epoch)
    record = record.updated(predictions=predictions)
    (warning,) = compute_warnings([], [record], [], shares_matter=False)
    assert warning.startswith("Trial confirmation/00003 ")
    assert shown in warning

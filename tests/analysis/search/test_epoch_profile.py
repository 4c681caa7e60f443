"""The time of an epoch by part, from records with and without a profile."""

from types import SimpleNamespace
from typing import Any

import pytest

from analysis.search.values import OTHER, compute_epoch_profiles
from trainables.training.epoch_metrics import PARTS


def make_record(arm: str, *parts: dict[str, float]) -> Any:
    """Return a record whose epochs took ten seconds, and two more for evaluation."""
    epochs = [SimpleNamespace(train_seconds=10.0, evaluate_seconds=2.0, part_seconds=tuple(p.items())) for p in parts]
    return SimpleNamespace(config=SimpleNamespace(arm=arm), epochs=epochs)


def test_means_over_profiled_epochs_and_the_rest_is_other() -> None:
    one = {"forward": 3.0, "backward": 4.0, "evaluate": 2.0, "checkpoint": 0.5, "start": 1.0}
    other = {"forward": 5.0, "backward": 4.0, "evaluate": 2.0, "checkpoint": 0.5}
    found = compute_epoch_profiles([make_record("b", one, other, {}), make_record("a", {})])
    assert [profile.arm for profile in found] == ["b"]
    assert found[0].num_epochs == 2
    assert tuple(found[0].seconds) == (*PARTS, OTHER)
    assert found[0].seconds["forward"] == 4.0
    assert found[0].seconds["start"] == 0.5
    assert found[0].seconds["checkpoint"] == 0.5
    assert found[0].seconds[OTHER] == pytest.approx(12 - 4 - 4 - 2)


def test_without_a_profile_there_is_none() -> None:
    assert compute_epoch_profiles([make_record("a", {}, {})]) == ()

"""P15 on a small network: both sides write the same checkpoints, and short epochs are not judged."""

import pytest
import torch

from benchmarks.performance import checkpoint_ratios
from benchmarks.ratios import NOT_JUDGED
from tests.trainables.training.test_loop import DATA


def test_both_sides_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_ratios, "REPEATS", 2)
    monkeypatch.setattr(checkpoint_ratios, "load_data", lambda _: DATA)
    after, before, longer = checkpoint_ratios.measure_stand_still(torch.device("cpu"), "resnet18")
    assert 0 < after.median < before.median
    assert (len(after.values), len(longer.values)) == (2, 2)
    assert (after.goal, after.verdict) == (NOT_JUDGED, NOT_JUDGED)
    assert "checkpoints of 89 MB" in after.note

"""The rounds behind FOLDS.md: every judged image is predicted once per seed, and equal arms differ by nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.comparison.values import Verdict
from benchmarks.validation import fold_rounds
from benchmarks.validation.fold_rounds import Design, FoldWorld, draw_set, measure_block, measure_truth
from trainables.seeds import numpy_generator


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FoldWorld:
    """Return a world of ten classes that 16 components tell apart, of which the control sees two."""
    for name, value in (("NUM_ROUNDS", 3), ("NUM_TRUTH_SEEDS", 2), ("NUM_TRUTH_SETS", 3)):
        monkeypatch.setattr(fold_rounds, name, value)
    generator = numpy_generator(0, "pool of folds")
    labels = np.arange(2000) % 10
    features = generator.standard_normal((10, 16))[labels] + generator.standard_normal((2000, 16))
    np.savez(tmp_path / "pool.npz", features=features.astype(np.float32), labels=labels)
    return FoldWorld(
        features=tmp_path / "pool.npz", num_classes=10, num_images=200, design=Design.FOLDS, control=2, treatment=16
    )


@pytest.mark.parametrize("design", Design)
def test_a_clear_difference_is_found_and_estimated_near_its_truth(world: FoldWorld, design: Design) -> None:
    world = replace(world, design=design)
    truth = measure_truth(world, 0)
    assert truth > 0.3
    for found in measure_block(world, 0):
        assert found.verdict is Verdict.BETTER
        assert abs(found.estimate - truth) < 0.15
        # Of two seeds, whose controls see two random components each.
        assert abs(found.truth_here - truth) < 0.25


def test_equal_arms_differ_by_nothing_and_groups_stay_together(world: FoldWorld) -> None:
    equal = replace(world, control=16, group_size=2)
    assert measure_truth(equal, 0) == 0.0
    assert all(found.verdict is not Verdict.WORSE for found in measure_block(equal, 0))
    drawn = draw_set(equal, numpy_generator(1, "set"))
    assert drawn.groups is not None
    assert (np.bincount(drawn.groups) == 2).all()
    assert np.array_equal(drawn.labels[::2], drawn.labels[1::2])

"""The ladder names the step and the pair that lose, and claims no loss where there is none."""

import numpy as np
from numpy.typing import NDArray

from analysis.images.probe import choose_images, climb_down, fit_probe, list_sides, rank_pairs

LABELS = np.repeat([0, 1, 2], 60)


def test_the_step_that_blurs_a_pair_is_named() -> None:
    chosen = choose_images(np.arange(180), LABELS, None, num_images=180, seed=0)
    assert chosen is not None
    noise = np.random.default_rng(0).normal(size=(180, 3))

    def compute(side: int) -> NDArray[np.float64]:
        features = noise.copy()
        features[:, 0] += 4.0 * (LABELS == 2)  # class 2 can be told at every side
        if side > 8:
            features[:, 1] += 3.0 * (LABELS == 1)
        return features

    rungs = climb_down(compute, chosen, (32, 16, 8))
    assert [r.side for r in rungs] == [32, 16, 8]
    assert rungs[0].loss is None
    step, last = rungs[1], rungs[2]
    assert step.loss is not None
    assert last.loss is not None
    assert step.loss.low <= 0 <= step.loss.high
    assert all(p.loss.low <= 0 <= p.loss.high for p in step.lost_pairs)
    assert last.loss.low > 0.1
    assert (last.lost_pairs[0].first, last.lost_pairs[0].second) == (0, 1)
    assert last.lost_pairs[0].loss.low > 0.2
    assert (last.weakest[0].first, last.weakest[0].second) == (0, 1)


def test_pairs_are_ranked_and_keep_the_classes_of_the_image_set() -> None:
    labels = LABELS * 5 + 2  # classes 2, 7 and 12
    chosen = choose_images(np.arange(180), labels, None, num_images=180, seed=0)
    assert chosen is not None
    features = np.random.default_rng(0).normal(size=(180, 2)) + 3.0 * (LABELS == 2)[:, None]
    ranked = rank_pairs(fit_probe(features, chosen), [(0, 1), (0, 2), (1, 2)])
    assert (ranked[0].first, ranked[0].second) == (2, 7)
    assert ranked[0].confusion_rate > 0.3 > ranked[1].confusion_rate
    assert all(p.area.low <= p.area.estimate <= p.area.high for p in ranked)


def test_the_ladder_ends_at_the_native_side_or_the_input_of_the_model() -> None:
    assert list_sides(32, 64) == (32, 24, 16, 8)
    assert list_sides(256, 224) == (256, 128, 64, 32, 24, 16, 8)
    assert list_sides(256, 32) == (256, 24, 16, 8)
    assert list_sides(8, 64) == (8,)

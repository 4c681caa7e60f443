"""The linear probe: chance where there is nothing to find, the planted answer where there is, and intervals that cover."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from analysis.images.probe import (
    AREA_VARIANCE_FACTOR,
    ProbeImages,
    choose_images,
    climb_down,
    compute_chance_macro_f1,
    compute_image_interval,
    compute_pair_auc,
    compute_probe_difference,
    fit_probe,
    list_sides,
    rank_pairs,
)


def make_images(num_per_class: int, num_classes: int = 2, seed: int = 0) -> ProbeImages:
    labels = np.repeat(np.arange(num_classes), num_per_class)
    chosen = choose_images(np.arange(len(labels)), labels, None, num_images=10_000, seed=seed)
    assert chosen is not None
    return chosen


def test_identical_classes_are_not_separable_and_the_intervals_cover_one_half() -> None:
    generator = np.random.default_rng(0)
    images = make_images(60)
    covered, areas = 0, []
    for _ in range(20):
        probe = fit_probe(generator.normal(size=(120, 2)), images)
        area, influence = compute_pair_auc(probe, 0, 1)
        interval = compute_image_interval(area, influence, images, low=0.0, variance_factor=AREA_VARIANCE_FACTOR)
        covered += interval.low <= 0.5 <= interval.high
        areas.append(area)
    # Out-of-fold scores of a probe without signal lie slightly below 1/2.
    assert 0.42 < np.mean(areas) < 0.55
    assert covered >= 16


def test_planted_classes_are_separated() -> None:
    generator = np.random.default_rng(1)
    images = make_images(50, num_classes=3)
    features = generator.normal(size=(150, 5))
    features[:, 0] += 8 * (images.labels == 2)
    probe = fit_probe(features, images, strength=1.0)
    assert compute_pair_auc(probe, 0, 2)[0] > 0.99
    assert compute_pair_auc(probe, 1, 2)[0] > 0.99
    assert compute_pair_auc(probe, 0, 1)[0] < 0.7


def test_macro_f1_and_area_agree_with_scikit_learn_and_the_interval_with_delong() -> None:
    generator = np.random.default_rng(2)
    images = make_images(40, num_classes=3)
    probe = fit_probe(generator.normal(size=(120, 4)) + images.labels[:, None] / 2, images)
    assert probe.macro_f1.estimate == pytest.approx(f1_score(images.labels, probe.predicted, average="macro"))
    area, influence = compute_pair_auc(probe, 0, 2)
    of_pair = images.labels != 1
    scores = (probe.log_probabilities[:, 0] - probe.log_probabilities[:, 2])[of_pair]
    assert area == pytest.approx(roc_auc_score(images.labels[of_pair] == 0, scores))
    assert influence.sum() == pytest.approx(0, abs=1e-9)
    # DeLong's variance, from the placements of each image among the other class.
    a, b = scores[images.labels[of_pair] == 0], scores[images.labels[of_pair] == 2]
    wins = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
    delong = wins.mean(axis=1).var(ddof=1) / len(a) + wins.mean(axis=0).var(ddof=1) / len(b)
    interval = compute_image_interval(area, influence, images)
    assert (interval.high - interval.low) / 2 / 1.98 == pytest.approx(delong**0.5, rel=0.01)


def test_a_paired_difference_is_narrower_than_the_scores_and_zero_for_equal_features() -> None:
    generator = np.random.default_rng(3)
    images = make_images(60)
    features = generator.normal(size=(120, 3)) + images.labels[:, None]
    probe = fit_probe(features, images)
    same = compute_probe_difference(probe, fit_probe(features, images))
    assert (same.low, same.estimate, same.high) == (0.0, 0.0, 0.0)
    near = compute_probe_difference(
        probe, fit_probe(features + generator.normal(scale=0.05, size=features.shape), images)
    )
    assert near.high - near.low < 0.7 * (probe.macro_f1.high - probe.macro_f1.low)


def test_a_constant_prediction_has_the_macro_f1_of_chance() -> None:
    images = make_images(30, num_classes=3)
    probe = fit_probe(np.zeros((90, 1)), images)
    assert compute_chance_macro_f1(probe) == pytest.approx(probe.macro_f1.estimate, abs=0.1)
    generator = np.random.default_rng(0)
    called = probe.predicted
    by_shuffling = np.mean([f1_score(generator.permutation(images.labels), called, average="macro") for _ in range(50)])
    assert compute_chance_macro_f1(probe) == pytest.approx(by_shuffling, abs=0.03)


def test_the_sample_is_stratified_and_groups_stay_in_one_fold() -> None:
    labels = np.repeat([0, 1, 2, 3], [400, 100, 2, 1])
    groups = np.arange(len(labels)) // 4
    chosen = choose_images(np.arange(len(labels)), labels, None, num_images=250, seed=0)
    assert chosen is not None
    assert np.bincount(chosen.labels).tolist() == [199, 50, 2]
    assert chosen.classes.tolist() == [0, 1, 2]  # one image has no other fold to be trained on
    tested = np.concatenate([test for _, test in chosen.folds])
    assert sorted(tested) == list(range(len(chosen.labels)))
    grouped = choose_images(np.arange(500), labels, groups, num_images=250, seed=0)
    assert grouped is not None
    assert grouped.groups is not None
    for train, test in grouped.folds:
        assert not set(grouped.groups[train]) & set(grouped.groups[test])


def test_a_part_has_folds_of_its_own_and_one_class_gives_no_probe() -> None:
    images = make_images(50)
    part = images.draw_part(40, seed=0)
    assert np.bincount(part.labels).tolist() == [20, 20]
    assert images.draw_part(100, seed=0) is images
    assert choose_images(np.arange(5), np.zeros(5, dtype=np.int64), None, num_images=5, seed=0) is None


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

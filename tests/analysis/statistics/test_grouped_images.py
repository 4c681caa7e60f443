"""Where images were sampled in groups, the interval and its cross-check count groups, not images."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.comparison.other_intervals import compute_crossed_bootstrap, draw_image_weights
from analysis.comparison.paired_difference import compute_difference
from analysis.statistics.arm_predictions import ArmPredictions
from benchmarks.validation.statistics_simulation import World
from trainables.seeds import numpy_generator


def repeat_images(arm: ArmPredictions, times: int) -> ArmPredictions:
    """Return the arm with every image so many times over, as one group."""
    return replace(
        arm,
        labels=np.repeat(arm.labels, times),
        predicted=np.repeat(arm.predicted, times, axis=1),
        sample_ids=np.arange(times * len(arm.labels)),
        groups=np.repeat(arm.sample_ids, times),
    )


def test_copies_of_an_image_in_one_group_add_no_certainty() -> None:
    control, treatment = World(seed_sd=0.0, num_seeds=3, shifts=(0.0, 0.3), num_images=300).draw(
        numpy_generator(1, "g")
    )
    copied = repeat_images(treatment, 4), repeat_images(control, 4)
    single = compute_difference(treatment, control, 0.95)
    grouped = compute_difference(*copied, 0.95)
    assert grouped.image_variance == pytest.approx(single.image_variance, rel=1e-6)
    # Groups within classes lose a degree of freedom to the mean of each class.
    assert grouped.image_freedom == 300 - treatment.num_classes
    expected = replace(single, image_freedom=grouped.image_freedom).half_width
    assert grouped.half_width == pytest.approx(expected, rel=1e-6)
    ignored = compute_difference(*(replace(arm, groups=None) for arm in copied), 0.95)  # type: ignore[call-arg]
    assert ignored.image_variance == pytest.approx(single.image_variance / 4, rel=0.05)
    check = compute_crossed_bootstrap(*copied, confidence=0.95, num_draws=400)
    plain = compute_crossed_bootstrap(treatment, control, confidence=0.95, num_draws=400)
    assert check.high - check.low == pytest.approx(plain.high - plain.low, rel=0.15)


def test_all_images_of_a_group_have_its_weight() -> None:
    labels, groups = np.array([0, 0, 1, 1, 0, 1]), np.array([7, 7, 7, 9, 9, 2])
    weights = draw_image_weights(labels, 50, np.random.default_rng(1), groups)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, [0, 3, 5]].sum(axis=1) == 3).all()

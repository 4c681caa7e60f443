from dataclasses import replace

import numpy as np
import pytest

from analysis.comparison.exploratory import compute_class_differences
from benchmarks.validation.statistics_simulation import NUM_CLASSES, World, first_seeds

NAMES = tuple(f"class {i}" for i in range(NUM_CLASSES))


@pytest.fixture(name="pair")
def make_pair():
    """Treatment and control, 3 seeds, 400 images."""
    world = World(seed_sd=0.05, num_seeds=3, shifts=(0.0, 0.2), num_images=400)
    control, treatment = world.draw(np.random.default_rng(0))
    return treatment, control


def test_intervals_of_both_questions_stay_in_range_and_share_the_estimate(pair):
    for found in compute_class_differences(*pair, NAMES):  # type: ignore[call-arg]
        for interval in (found.effect, found.models_effect):
            assert -1 <= interval.low <= interval.estimate <= interval.high <= 1
        assert found.models_effect.estimate == found.effect.estimate
        assert found.models_effect.high - found.models_effect.low <= found.effect.high - found.effect.low
        assert (found.p_value < 0.05) == (found.effect.low > 0 or found.effect.high < 0)


def test_three_seeds_do_not_make_the_intervals_useless(pair):
    """The crossed interval of one class alone has two degrees of freedom, and reaches beyond 30 pp here."""
    widths = [found.effect.high - found.effect.low for found in compute_class_differences(*pair, NAMES)]  # type: ignore[call-arg]
    assert np.mean(widths) / 2 < 0.2


def test_one_seed_has_no_differences_for_new_seeds(pair):
    assert compute_class_differences(*(first_seeds(arm, 1) for arm in pair), NAMES) == ()  # type: ignore[call-arg]


def test_groups_of_images_widen_the_intervals(pair):
    copies = [
        replace(
            arm,
            labels=np.repeat(arm.labels, 4),
            sample_ids=np.arange(4 * len(arm.labels)),
            predicted=np.repeat(arm.predicted, 4, axis=1),
        )
        for arm in pair
    ]
    grouped = [replace(arm, groups=np.arange(len(arm.labels)) // 4) for arm in copies]
    widths = [
        np.mean([f.models_effect.high - f.models_effect.low for f in compute_class_differences(*sides, NAMES)])  # type: ignore[call-arg]
        for sides in (copies, grouped)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_a_class_without_images_does_not_disturb_the_others(pair):
    more = [replace(arm, num_classes=NUM_CLASSES + 1) for arm in pair]
    found = compute_class_differences(*more, [*NAMES, "absent"])  # type: ignore[call-arg]
    assert (found[-1].effect.estimate, found[-1].p_value) == (0.0, 1.0)
    assert [f.effect for f in found[:-1]] == [f.effect for f in compute_class_differences(*pair, NAMES)]  # type: ignore[call-arg]

"""The proposed study fits the stated time, and gives up image size, trials and images in a stated order."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from study.views.first_spec.machine import Machine
from study.views.first_spec.proposal import BUDGETS, NUM_GOOD_BUDGETS, count_split_images, estimate_seconds, propose
from study.views.first_spec.survey import Survey
from trainables.training.trial_cost import TrialCost

TWO_CORES, GPU = Machine(num_cores=2, num_gpus=0), Machine(num_cores=16, num_gpus=1)
PHOTOGRAPHS = ((400, 300), (300, 500))


def make_survey(
    sizes: tuple[tuple[int, int], ...] = PHOTOGRAPHS, counts: Mapping[str, tuple[int, ...]] | None = None
) -> Survey:
    return Survey(
        path=Path("/photographs"),
        source="folder",
        layout="class folders",
        class_names=("ants", "bees"),
        class_counts=counts or {"": (500, 500)},
        has_groups=False,
        sizes=np.array(sizes, dtype=np.int32),
        kinds={"RGB": 1000},
        skipped=(),
    )


def measure(image_size: int, _: int) -> Mapping[str, TrialCost]:
    """Cost that grows with the area: 2 and 6 s per epoch at 64 px."""
    area = (image_size / 64) ** 2
    return {
        "resnet18": TrialCost(setup_seconds=1.0, epoch_seconds=2 * area),
        "resnet50": TrialCost(setup_seconds=1.0, epoch_seconds=6 * area),
    }


@pytest.mark.parametrize("minutes", [5.0, 15.0, 30.0, 120.0])
@pytest.mark.parametrize("machine", [TWO_CORES, GPU])
def test_the_proposal_fits_into_the_time_and_more_time_never_gives_less(machine: Machine, minutes: float) -> None:
    shorter, found = (
        propose(make_survey(), machine, minutes=m, image_size=None, measure=measure) for m in (minutes / 2, minutes)
    )
    assert found.seconds <= 60 * minutes or found.num_images is not None
    assert found.image_size >= shorter.image_size
    assert found.seconds == pytest.approx(estimate_seconds(found.costs, found.budget, machine))
    if found.image_size == shorter.image_size:
        assert BUDGETS.index(found.budget) <= BUDGETS.index(shorter.budget)


def test_a_larger_size_is_given_up_for_a_good_budget() -> None:
    sizes = {m: propose(make_survey(), TWO_CORES, minutes=m, image_size=None, measure=measure) for m in (6, 40)}
    assert (sizes[6].image_size, sizes[40].image_size) == (64, 96)
    assert BUDGETS.index(sizes[40].budget) < NUM_GOOD_BUDGETS


def measure_slowly(image_size: int, batch_size: int) -> Mapping[str, TrialCost]:
    costs = measure(image_size, batch_size)
    return {arm: TrialCost(setup_seconds=1.0, epoch_seconds=100 * cost.epoch_seconds) for arm, cost in costs.items()}


def test_what_is_too_long_at_any_size_uses_fewer_images() -> None:
    survey = make_survey(counts={"": (50_000, 50_000)})
    found = propose(survey, TWO_CORES, minutes=30, image_size=None, measure=measure_slowly)
    assert found.num_images is not None
    assert 1_000 < found.num_images < 100_000
    assert 0.99 * 30 * 60 * 0.75 <= found.seconds <= 30 * 60 * 0.75


def test_fewer_images_are_enough_of_the_rarest_class_though_they_take_longer() -> None:
    survey = make_survey(counts={"train": (50_000, 10), "validation": (1_000, 6), "test": (1_000, 10)})
    found = propose(survey, TWO_CORES, minutes=1, image_size=None, measure=measure_slowly)
    assert found.num_images is not None
    assert found.num_images * 16 / 51_016 == pytest.approx(8, abs=0.01)
    assert found.seconds > 60
    none_left = propose(make_survey(), TWO_CORES, minutes=0.001, image_size=None, measure=measure_slowly)
    assert none_left.num_images == 40


def test_small_squares_are_used_as_they_are_and_photographs_at_the_size_of_the_device() -> None:
    def choose(sizes: tuple[tuple[int, int], ...], machine: Machine) -> tuple[int, bool]:
        found = propose(make_survey(sizes), machine, minutes=10_000, image_size=None, measure=measure)
        return found.image_size, found.is_native

    assert choose(((28, 28), (28, 28)), GPU) == (28, True)
    assert choose(PHOTOGRAPHS, GPU) == (224, False)
    assert choose(PHOTOGRAPHS, TWO_CORES) == (96, False)
    assert choose(((80, 80), (80, 80)), TWO_CORES) == (80, True)
    assert propose(make_survey(), GPU, minutes=30, image_size=48, measure=measure).image_size == 48


def test_splits_follow_the_published_ones() -> None:
    assert count_split_images(make_survey()) == {"train": 500, "search": 150, "confirm": 150, "test": 200}
    published = make_survey(counts={"train": (80, 80), "validation": (10, 11), "test": (20, 20)})
    assert count_split_images(published) == {"train": 160, "search": 11, "confirm": 10, "test": 40}
    no_test = make_survey(counts={"train": (80, 80), "validation": (10, 10)})
    assert count_split_images(no_test) == {"train": 128, "search": 10, "confirm": 10, "test": 32}

"""The proposed study fits the stated time; a trial keeps its steps, and the rest is given up in a stated order."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.formats.numbers import format_seconds
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from study.views.first_spec import first_findings as findings
from study.views.first_spec.machine import Machine, WeightsChoice, estimate_probe_cost
from study.views.first_spec.proposal import (
    BUDGETS,
    FOLDED_SEEDS,
    MAX_EPOCHS,
    MIN_STEPS,
    MIN_TRIALS_OF_RESNET50,
    OVERHEAD_SECONDS,
    TRIALS_SHARE,
    Measure,
    Proposal,
    consider_folds,
    count_split_images,
    propose,
)
from study.views.first_spec.spec_text import FirstSpec, write_spec_text
from study.views.first_spec.survey import Survey
from trainables.training.trial_cost import TrialCost

TWO_CORES, GPU = Machine(num_cores=2, num_gpus=0), Machine(num_cores=16, num_gpus=1)
PHOTOGRAPHS = ((400, 300), (300, 500))
UNEQUAL = {"": (900, 100)}
MINUTES = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 240.0, 480.0, 1000.0, 100_000.0)


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


def make_measure(epoch_seconds: float = 2.0, ratio: float = 3.0) -> Measure:
    """Return costs that grow with the area: of ResNet18 `epoch_seconds` at 64 px, of ResNet50 `ratio` times as much."""

    def measure(image_size: int, _: int) -> Mapping[str, TrialCost]:
        seconds = epoch_seconds * (image_size / 64) ** 2
        return {
            "resnet18": TrialCost(setup_seconds=1.0, epoch_seconds=seconds),
            "resnet50": TrialCost(setup_seconds=1.0, epoch_seconds=ratio * seconds),
        }

    return measure


def propose_for(
    minutes: float,
    *,
    survey: Survey | None = None,
    machine: Machine = TWO_CORES,
    image_size: int | None = None,
    is_pretrained: bool = True,
    measure: Measure | None = None,
) -> Proposal:
    return propose(
        survey or make_survey(),
        machine,
        minutes=minutes,
        image_size=image_size,
        is_pretrained=is_pretrained,
        measure=measure or make_measure(),
    )


def count_steps(proposal: Proposal) -> int:
    return proposal.max_epochs * proposal.steps_per_epoch


@pytest.mark.parametrize("is_pretrained", [True, False])
@pytest.mark.parametrize("machine", [TWO_CORES, GPU])
@pytest.mark.parametrize(
    "counts", [{"": (500, 500)}, UNEQUAL, {"": (90, 60)}, {"train": (4000, 4000), "test": (99, 99)}]
)
@pytest.mark.parametrize("ratio", [1.5, 3.0, 8.0])
def test_a_trial_has_its_steps_and_more_time_never_gives_less(
    ratio: float, counts: Mapping[str, tuple[int, ...]], machine: Machine, is_pretrained: bool
) -> None:
    survey, measure = make_survey(counts=counts), make_measure(4.0, ratio)
    found = [
        propose_for(minutes, survey=survey, machine=machine, is_pretrained=is_pretrained, measure=measure)
        for minutes in MINUTES
    ]
    for minutes, proposal in zip(MINUTES, found, strict=True):
        available = max(30.0, TRIALS_SHARE * (60 * minutes - OVERHEAD_SECONDS))
        assert count_steps(proposal) >= MIN_STEPS
        assert 3 <= proposal.max_epochs <= MAX_EPOCHS
        assert proposal.seconds <= available or proposal.budget == BUDGETS[-1]
    whole = [proposal for proposal in found if proposal.num_images is None]
    assert found[-len(whole) :] == whole, "a part of the images is for little time"
    steps = [count_steps(proposal) for proposal in whole]
    assert steps == sorted(steps)
    assert whole[-1].budget == BUDGETS[0]


def test_epochs_end_before_the_steps_of_a_tiny_set() -> None:
    found = propose_for(30, survey=make_survey(counts={"": (20, 20)}))
    assert (found.num_train, found.batch_size, found.max_epochs) == (20, 8, MAX_EPOCHS)
    assert count_steps(found) < MIN_STEPS


def test_batches_are_small_for_small_sets() -> None:
    def choose(num_images: int, machine: Machine) -> int:
        return propose_for(30, survey=make_survey(counts={"train": (num_images,) * 2}), machine=machine).batch_size

    assert [choose(number, TWO_CORES) for number in (100, 300, 900, 1100)] == [8, 16, 16, 32]
    assert [choose(number, GPU) for number in (100, 1100, 9000)] == [8, 128, 128]


@pytest.mark.parametrize(
    ("counts", "is_pretrained", "factor"),
    [({"": (500, 500)}, True, "tuning"), (UNEQUAL, False, "class_weighting"), ({"": (500, 500)}, False, "backbone")],
)
def test_resnet50_is_left_out_where_it_is_slow_and_something_else_is_worth_comparing(
    counts: Mapping[str, tuple[int, ...]], is_pretrained: bool, factor: str
) -> None:
    def find(ratio: float) -> Proposal:
        survey = make_survey(counts=counts)
        return propose_for(15, survey=survey, is_pretrained=is_pretrained, measure=make_measure(ratio=ratio))

    fast, slow = find(2.0), find(100.0)
    assert fast.factor == "backbone"
    assert fast.budget.trials_per_arm >= MIN_TRIALS_OF_RESNET50
    assert slow.factor == factor
    assert count_steps(slow) >= MIN_STEPS
    is_left_out = factor != "backbone"
    time = format_seconds(slow.costs["resnet50"].of_epochs(slow.max_epochs))
    assert (f"ResNet50 is left out: one full trial of it takes about {time}." in slow.describe_arms()) == is_left_out
    assert "left out" not in fast.describe_arms()


def test_the_probe_costs_one_forward_pass() -> None:
    assert estimate_probe_cost(TrialCost(setup_seconds=5.0, epoch_seconds=30.0)).of_epochs(60) == 12.0
    found = propose_for(15, measure=make_measure(ratio=100.0))
    full, probe = found.arm_costs.values()
    assert (full, list(found.arm_costs)) == (found.costs["resnet18"], ["full", "probe"])
    assert probe.of_epochs(found.max_epochs) < full.of_epochs(found.max_epochs) / 10


def test_a_larger_size_is_given_up_for_trials() -> None:
    sizes = [propose_for(minutes).image_size for minutes in (15, 120)]
    assert sizes == [64, 96]


def test_what_is_too_long_at_any_size_uses_fewer_images() -> None:
    survey = make_survey(counts={"": (50_000, 50_000)})
    found = [propose_for(minutes, survey=survey, measure=make_measure(200.0)) for minutes in (20.0, 30.0)]
    numbers = [proposal.num_images or 0 for proposal in found]
    assert 1_000 < numbers[0] < numbers[1] < 100_000
    available = TRIALS_SHARE * (30 * 60 - OVERHEAD_SECONDS)
    assert 0.95 * available <= found[1].seconds <= available
    assert found[1].num_train == 50_000 * numbers[1] // 100_000
    assert min(map(count_steps, found)) >= MIN_STEPS


def test_fewer_images_are_enough_of_the_rarest_class_though_they_take_longer() -> None:
    survey = make_survey(counts={"train": (50_000, 10), "validation": (1_000, 6), "test": (1_000, 10)})
    found = propose_for(1, survey=survey, measure=make_measure(200.0))
    assert found.num_images is not None
    assert found.num_images * 16 / 51_016 == pytest.approx(8, abs=0.01)
    assert found.seconds > 60


def test_a_small_set_is_used_in_full_because_a_part_saves_no_steps() -> None:
    found = propose_for(0.001, measure=make_measure(200.0))
    assert (found.num_images, found.num_train) == (None, 500)
    assert propose_for(1, survey=make_survey(counts={"": (4000, 4000)}), measure=make_measure(200.0)).num_train == 999


def make_first(proposal: Proposal, survey: Survey, weights: str, weightings: Sequence[str]) -> FirstSpec:
    return FirstSpec(
        name="photographs",
        survey=survey,
        proposal=proposal,
        weights=WeightsChoice(weights=weights, reason="As given."),
        group=None,
        ignores_near_duplicates=False,
        is_size_given=False,
        weightings=weightings,
        skip_reason="",
    )


def read_spec(first: FirstSpec) -> StudySpec:
    return validate_spec(tomllib.loads(write_spec_text(first)), where="a test")


@pytest.mark.parametrize("ratio", [2.0, 100.0])
@pytest.mark.parametrize("weights", ["imagenet", "none"])
@pytest.mark.parametrize("weightings", [("none",), ("none", "inverse_frequency")])
@pytest.mark.parametrize("minutes", [1.0, 15.0, 500.0])
def test_every_spec_is_valid_and_says_what_it_does(
    minutes: float, weightings: tuple[str, ...], weights: str, ratio: float
) -> None:
    is_unequal = len(weightings) > 1
    survey = make_survey(counts=UNEQUAL if is_unequal else None)
    measure = make_measure(ratio=ratio)
    proposal = propose_for(minutes, survey=survey, is_pretrained=weights != "none", measure=measure)
    first = make_first(proposal, survey, weights, weightings)
    spec, text = read_spec(first), write_spec_text(first)
    printed = "\n".join(findings.describe_proposal(first, minutes))
    search = spec.search
    levels = {
        "backbone": ["resnet18", "resnet50"],
        "tuning": ["full", "probe"],
        "class_weighting": ["none", "inverse_frequency"],
    }
    assert [arm.name for arm in spec.arms()] == levels[search.factor]
    assert search.fixed.get("backbone") == (None if search.factor == "backbone" else "resnet18")
    each, of_probe = proposal.budget.trials_per_arm, max(4, proposal.budget.trials_per_arm)
    has_probe = search.factor == "tuning"
    assert (search.num_trials, search.max_epochs) == (each + (of_probe if has_probe else each), proposal.max_epochs)
    assert search.max_trials_per_arm == (of_probe if has_probe else None)
    if is_unequal:
        in_order = sorted if search.factor != "class_weighting" else list
        assert search.ranges["class_weighting"] == in_order(["none", "inverse_frequency"])
        assert search.ranges["class_weight_strength"] == [0.5, 1.0]
    else:
        assert search.fixed["class_weighting"] == "none"
    assert spec.train.crop_min_area == 0.7
    for said in (text, printed):
        assert f"{count_steps(proposal):,} steps, {proposal.max_epochs} epochs of {proposal.steps_per_epoch}" in said
        assert f"{proposal.budget.trials_per_arm} " in said
        assert ("ResNet50 is left out" in said) == (search.factor != "backbone")
    too_long = proposal.seconds + OVERHEAD_SECONDS > 60 * minutes
    assert ("warning: even the smallest study" in printed) == too_long


def test_epochs_follow_the_training_images_that_are_left() -> None:
    found = propose_for(15)
    fewer = found.with_train_images(found.num_train // 2)
    assert fewer.max_epochs > found.max_epochs
    assert count_steps(fewer) >= MIN_STEPS
    assert fewer.seconds == pytest.approx(found.seconds, rel=0.1)


def test_small_squares_are_used_as_they_are_and_photographs_at_the_size_of_the_device() -> None:
    def choose(sizes: tuple[tuple[int, int], ...], machine: Machine) -> tuple[int, bool]:
        survey = make_survey(sizes)
        found = propose_for(10_000, survey=survey, machine=machine)
        text = write_spec_text(make_first(found, survey, "none", ("none",)))
        return found.image_size, "The images' own size: they are stored and trained on as they are" in text

    assert choose(((28, 28), (28, 28)), GPU) == (28, True)
    assert choose(PHOTOGRAPHS, GPU) == (224, False)
    assert choose(PHOTOGRAPHS, TWO_CORES) == (96, False)
    assert choose(((80, 80), (80, 80)), TWO_CORES) == (80, True)
    assert propose_for(30, machine=GPU, image_size=48).image_size == 48


def test_splits_follow_the_published_ones() -> None:
    assert count_split_images(make_survey()) == {"train": 500, "search": 150, "confirm": 150, "test": 200}
    published = make_survey(counts={"train": (80, 80), "validation": (10, 11), "test": (20, 20)})
    assert count_split_images(published) == {"train": 160, "search": 11, "confirm": 10, "test": 40}
    no_test = make_survey(counts={"train": (80, 80), "validation": (10, 10)})
    assert count_split_images(no_test) == {"train": 128, "search": 10, "confirm": 10, "test": 32}


def fold(
    minutes: float, *, survey: Survey | None = None, chance: float = 0.1, gain: float = 0.1
) -> tuple[Proposal, Proposal]:
    """Return the proposal of one test split, and what becomes of it; folds test half of the images instead of a fifth."""
    survey = survey or make_survey(counts={"": (200, 200)})
    single = propose_for(minutes, survey=survey)
    num_test = count_split_images(survey)["test"]
    return single, consider_folds(single, survey, minutes, lambda _, n: chance + (gain if n > num_test else 0.0))


def test_folds_are_proposed_where_they_decide_more_and_fit_into_the_time() -> None:
    for minutes in (240.0, 480.0):
        single, found = fold(minutes)
        assert (found.budget.folds, found.budget.looks[0]) in {(2, seeds) for seeds in FOLDED_SEEDS}
        assert found.budget.trials_per_arm <= single.budget.trials_per_arm
        assert found.seconds <= (60 * minutes - OVERHEAD_SECONDS) * TRIALS_SHARE
        assert (found.num_train, found.num_tested, found.num_pooled) == (120, 200, 400)
        # 2 folds of 300 training images and one model of 400, for images that cost as in the search.
        without = replace(found, budget=replace(found.budget, folds=0, looks=(2,)))
        assert found.seconds > without.seconds
    assert fold(480.0)[1].budget.looks == (7,)


def test_folds_are_not_proposed_without_need_gain_time_or_where_a_test_set_is_published() -> None:
    published = make_survey(counts={"train": (200, 200), "test": (50, 50)})
    for options in ({"chance": 0.6}, {"gain": 0.0}, {"survey": published}):
        single, found = fold(240.0, **options)  # type: ignore[arg-type]
        assert found == single
    single, found = fold(2.0)
    assert found == single

"""What the search knows before it starts: its first suggestions, priors, resuming and replaying with both."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from search_spaces.config import Value
from study.scheduling.sampler_history import NUM_CERTAIN, draw_from_prior, prior_share
from study.scheduling.search_director import SearchDirector
from study.spec.sections import PriorSpec
from study.state.record_book import MemoryBook
from tests.study.replaying import replay_search
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord
from trainables.seeds import numpy_generator

START: dict[str, Value] = {
    **{"max_lr": 0.05, "backbone_lr_ratio": 0.3, "cutmix_probability": 0.0, "class_weighting": "none"},
    **{"interpolation": "bicubic", "weight_decay": 1e-4, "label_smoothing": 0.0},
}
STARTS = [START, {**START, "max_lr": 0.02}, {**START, "class_weighting": "group", "class_weight_strength": 0.5}]
PRIOR = {"max_lr": {"center": 0.05, "width": 1.5}}


def run(book: MemoryBook, *, stop: int | None = None, **search: Any) -> list[TrialRecord]:
    """Run a search, or a part of it, and return its records by arm."""
    drive(SearchDirector(book, make_spec(**search), FIXED), num_workers=1, max_events=stop)
    return list(book.of_stage("search"))


def of_arm(records: list[TrialRecord], arm: str) -> list[Mapping[str, Value]]:
    return [record.config.hyperparameters for record in records if record.config.arm == arm]


@pytest.mark.parametrize("sampler", ["tpe_multivariate", "random"])
def test_every_arm_tries_the_starts_first(sampler: str) -> None:
    records = run(MemoryBook(), sampler=sampler, start=STARTS)
    for arm in ("resnet18", "resnet50"):
        found = of_arm(records, arm)
        for start, suggested in zip(STARTS, found, strict=False):
            assert suggested == {**start, "backbone": arm}
        assert len({str(values) for values in found}) == len(found)
    assert [r.config.hyperparameters for r in run(MemoryBook(), sampler=sampler, start=[])] != [
        r.config.hyperparameters for r in records
    ]


@pytest.mark.parametrize("stop", [1, 9, 25])
def test_a_search_stopped_among_its_starts_goes_on_to_the_same_trials(stop: int) -> None:
    whole = run(MemoryBook(), start=STARTS, prior=PRIOR)
    book = MemoryBook()
    run(book, stop=stop, start=STARTS, prior=PRIOR)
    again = run(book, start=STARTS, prior=PRIOR)
    assert [r.config.hyperparameters for r in again] == [r.config.hyperparameters for r in whole]


def test_a_replay_makes_the_same_suggestions() -> None:
    search: dict[str, Any] = {"start": STARTS, "prior": PRIOR}
    replayed = replay_search(run(MemoryBook(), **search), {0: make_spec(**search)})
    assert replayed.difference == ""
    assert replayed.num_suggestions == 24


def test_the_first_suggestions_follow_the_prior_and_later_ones_the_sampler() -> None:
    records = run(MemoryBook(), num_trials=60, sampler="random", prior=PRIOR)
    rates = np.array([float(values["max_lr"]) for values in of_arm(records, "resnet18")])
    near = np.abs(np.log(rates / 0.05)) < 3 * math.log(1.5)
    assert near[:NUM_CERTAIN].all()
    # One in three of the log-uniform values lies as near; far fewer than all do at the end.
    assert len({str(values["weight_decay"]) for values in of_arm(records, "resnet18")}) > 10, (
        "others come from the sampler"
    )
    assert near[10:].mean() < 0.75


def test_priors_have_their_center_width_and_bounds_and_weigh_less_from_trial_to_trial() -> None:
    space = make_spec().arms()[0].space
    prior = {"max_lr": PriorSpec(center=0.05, width=2.0), "label_smoothing": PriorSpec(center=0.05, width=0.1)}
    draws = [draw_from_prior(prior, space, 0, numpy_generator(0, "test", i)) for i in range(2000)]
    logs = np.log([float(draw["max_lr"]) for draw in draws])
    assert logs.mean() == pytest.approx(math.log(0.05), abs=0.05)
    assert logs.std() == pytest.approx(math.log(2), abs=0.03)
    smoothing = np.array([float(draw["label_smoothing"]) for draw in draws])
    assert (smoothing >= 0).all()
    assert (smoothing <= 0.2).all()
    shares = [prior_share(number) for number in range(40)]
    assert shares[:NUM_CERTAIN] == [1.0] * NUM_CERTAIN
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) < 6
    drawn = [bool(draw_from_prior(prior, space, 9, numpy_generator(1, "test", i))) for i in range(2000)]
    assert np.mean(drawn) == pytest.approx(prior_share(9), abs=0.03)

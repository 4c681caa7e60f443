"""Rungs that are complete schedules of few epochs: every configuration has one, and the best of them are trained in full."""

import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces.errors import UserInputError
from study.scheduling.promotion import ArmPromotions, with_max_epochs
from study.scheduling.replay import replay_search
from study.scheduling.search_director import SearchDirector
from study.scheduling.turns import is_search_finished
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook, RecordBook
from tests.study.simulated import drive, learning_curve, make_spec
from trainables.records.ranking import best_trials
from trainables.records.record import TrialRecord, TrialState
from trainables.storage.store import Store

FIXED: dict[str, float | int | str | bool] = {"max_epochs": 9}
FULL = {"resnet18": 9.0, "resnet50": 27.0}


def make_rung_spec(**search: Any) -> StudySpec:
    return make_spec(**{"max_epochs": 9, "num_trials": 36, "asha": {"rungs": "complete"}, **search})


def noisy_curve(record: TrialRecord, epoch: int) -> float | None:
    """Return a curve with noise, which diverges for one rung in eight and one full trial in four."""
    number = int(record.trial_id)
    if number % 8 == 5 and (record.is_rung or number % 16 == 5):
        return None
    return learning_curve(record, epoch) + random.Random(f"{record.trial_id} {epoch}").uniform(-0.02, 0.02)


def run_search(spec: StudySpec, **options: Any) -> tuple[TrialRecord, ...]:
    book = MemoryBook()
    director = SearchDirector(book, spec, FIXED, full_trial_seconds=FULL)
    drive(director, noisy_curve, **options)
    assert director.is_exhausted
    records = book.of_stage("search")
    assert is_search_finished(records, spec, FULL)
    return records


def test_one_configuration_in_six_is_promoted_the_best_first_and_once() -> None:
    promotions = ArmPromotions(reduction_factor=6, num_reserved=2)
    for number in range(5):
        promotions.start_rung(str(number))
        promotions.finish_rung(str(number), 0.5 + number / 10)
    assert promotions.find_promotable() is None
    assert promotions.find_best_left() == "4"
    # One that crashed has no score and does not count.
    promotions.finish_rung("5", None)
    assert promotions.find_promotable() is None
    promotions.finish_rung("6", 0.1)
    assert promotions.find_promotable() == "4"
    promotions.start_full("7", "4")
    assert promotions.find_promotable() is None
    assert promotions.num_missing == 1
    promotions.finish_full("4", ran_every_epoch=False)
    assert (promotions.num_missing, promotions.find_best_left()) == (2, "3")


@pytest.mark.parametrize("num_workers", [1, 4])
def test_rungs_are_short_complete_trials_and_the_best_are_trained_anew(num_workers: int) -> None:
    spec = make_rung_spec()
    records = run_search(spec, num_workers=num_workers)
    rungs = {r.trial_id: r for r in records if r.is_rung}
    full = [r for r in records if not r.is_rung]
    assert len(rungs) == 36
    assert all(
        r.config.whole("max_epochs") == 1 and r.full_epochs == 9 and not r.source_trial_id for r in rungs.values()
    )
    assert {r.state for r in rungs.values()} == {TrialState.COMPLETE, TrialState.FAILED}
    for record in full:
        rung = rungs[record.source_trial_id]
        assert record.config.with_seed(rung.config.seed) == with_max_epochs(rung.config, 9)
        assert record.config.seed != rung.config.seed
    for arm in FULL:
        ended = [r for r in rungs.values() if r.config.arm == arm]
        promoted = [r for r in full if r.config.arm == arm]
        assert len(promoted) == max(2 + sum(r.diverged for r in promoted), len(ended) // 6)
        best = {r.trial_id for r in sorted(ended, key=lambda r: -(r.last_macro_f1 or 0))[: len(promoted) * 2]}
        assert sum(r.source_trial_id in best for r in promoted) >= len(promoted) - 1
        assert len(best_trials(records, arm)) >= spec.confirm.top_k
        assert all(not r.is_rung for r in best_trials(records, arm))


def test_the_sampler_hears_of_rungs_alone() -> None:
    book = MemoryBook()
    director = SearchDirector(book, make_rung_spec(), FIXED)
    drive(director, noisy_curve)
    records = book.of_stage("search")
    for arm in FULL:
        told = director._samplers[arm].trials
        rungs = [r for r in records if r.is_rung and r.config.arm == arm]
        scores = [r.last_macro_f1 for r in rungs if not r.diverged]
        assert sorted(t.value or 0 for t in told if t.state is optuna.trial.TrialState.COMPLETE) == sorted(scores)
        assert len(told) == len(rungs)
    assert any(r.is_rung and r.diverged for r in records)


@pytest.mark.parametrize("num_workers", [1, 2, 8])
@pytest.mark.parametrize("budget", [400.0, 900.0])
def test_device_time_is_equal_and_leaves_enough_for_the_full_trials_that_are_compared(
    num_workers: int, budget: float
) -> None:
    spec = make_rung_spec(num_trials=None, device_seconds=budget)
    records = run_search(spec, num_workers=num_workers)
    spent = {arm: sum(r.device_seconds for r in records if r.config.arm == arm) for arm in FULL}
    for arm, seconds in spent.items():
        assert budget / 2 - FULL[arm] <= seconds <= budget / 2 + FULL[arm]
        assert len(best_trials(records, arm)) >= spec.confirm.top_k
    assert sum(r.is_rung for r in records) > 5 * sum(not r.is_rung for r in records)


@pytest.mark.parametrize("stopped_after", [1, 9, 23, 47, 60])
def test_search_that_is_stopped_anywhere_goes_on_to_the_same_records(tmp_path: Path, stopped_after: int) -> None:
    spec = make_rung_spec(num_trials=20)
    whole = RecordBook(Store(tmp_path / "whole"))
    drive(SearchDirector(whole, spec, FIXED), noisy_curve, num_workers=1)
    store = Store(tmp_path / "stopped")
    drive(SearchDirector(RecordBook(store), spec, FIXED), noisy_curve, num_workers=1, max_events=stopped_after)
    drive(SearchDirector(RecordBook(store), spec, FIXED), noisy_curve, num_workers=1)
    seen = [
        [(r.trial_id, r.fingerprint, r.state, r.last_macro_f1, r.source_trial_id, r.full_epochs) for r in book]
        for book in (whole, RecordBook(store))
    ]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("search", [{}, {"num_trials": None, "device_seconds": 700.0}, {"allocation": "pooled"}])
def test_every_decision_can_be_replayed_and_a_changed_score_is_found(search: dict[str, Any]) -> None:
    spec = make_rung_spec(**search)
    book = MemoryBook()
    drive(SearchDirector(book, spec, FIXED), noisy_curve, num_workers=3)
    records = list(book.of_stage("search"))
    replay = replay_search(records, {0: spec})
    assert (replay.num_suggestions, replay.difference) == (len(records), "")
    promoted = {r.source_trial_id for r in records}
    number = next(i for i, r in enumerate(records) if r.is_rung and not r.diverged and r.trial_id not in promoted)
    epoch = records[number].epochs[0].model_copy(update={"macro_f1": 0.999})
    records[number] = records[number].updated(epochs=(epoch,))
    assert replay_search(records, {0: spec}).difference


def test_larger_budget_adds_configurations_and_promotions() -> None:
    small, large = make_rung_spec(num_trials=12), make_rung_spec(num_trials=36)
    book = MemoryBook()
    drive(SearchDirector(book, small, FIXED), noisy_curve)
    before = book.of_stage("search")
    drive(SearchDirector(book, large, FIXED), noisy_curve)
    after = book.of_stage("search")
    assert after[: len(before)] == before
    assert sum(r.is_rung for r in after) == 36
    assert sum(not r.is_rung for r in after) > sum(not r.is_rung for r in before)
    assert replay_search(after, {0: small, len(before): large}).difference == ""


def test_full_trial_that_fails_leaves_its_place_to_the_next_configuration() -> None:
    def curve(record: TrialRecord, epoch: int) -> float | None:
        is_first = record.source_trial_id and not any(
            r.source_trial_id and r.config.arm == record.config.arm and r.trial_id < record.trial_id for r in book
        )
        return None if is_first and epoch == 4 else learning_curve(record, epoch)

    book = MemoryBook()
    spec = make_rung_spec(num_trials=16)
    drive(SearchDirector(book, spec, FIXED), curve)
    for arm in FULL:
        full = [r for r in book if r.config.arm == arm and not r.is_rung]
        assert [r.state for r in full].count(TrialState.COMPLETE) == 2
        assert [r.state for r in full].count(TrialState.FAILED) == 1


def test_rung_is_a_ninth_of_a_full_trial_and_at_most_a_fifth() -> None:
    for epochs, rung in ((5, 1), (9, 1), (14, 2), (30, 3), (90, 10)):
        spec = make_rung_spec(max_epochs=epochs)
        assert spec.rung_epochs(spec.arms()[0]) == rung
    for search, message in (
        ({"max_epochs": 4}, r"needs max_epochs of 5 or more, but got 4"),
        (
            {"max_epochs": 10, "asha": {"rungs": "complete", "first_rung": 3}},
            r"must lie in 1\.\.2, a fifth of max_epochs \(10\), but got 3",
        ),
    ):
        with pytest.raises(UserInputError, match=message):
            make_rung_spec(**search)


def test_planned_trials_and_costs_count_the_full_trials_of_every_arm() -> None:
    small, large = make_rung_spec(num_trials=12), make_rung_spec(num_trials=72)
    assert (small.num_planned_trials, large.num_planned_trials) == (12 + 4, 72 + 12)
    assert small.count_full_trials("resnet18") == pytest.approx(12 / 9 + 4)
    assert large.count_full_trials("resnet18") == pytest.approx(72 / 9 + 12)

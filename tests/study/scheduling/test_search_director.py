"""The search without Ray: equal device time, complete reports to the sampler, a state that is a function of the records."""

import inspect
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.samplers._tpe.sampler import _split_trials

from study.scheduling.sampler_history import rank_as_tpe
from study.scheduling.search_director import SearchDirector, compute_rungs
from study.state.record_book import MemoryBook, RecordBook, open_trial_files
from tests.study import simulated
from tests.study.replaying import replay_search
from tests.study.simulated import FIXED, drive, learning_curve, make_report, make_spec
from trainables.records.record import TrialRecord, TrialState, best_trials
from trainables.storage.store import Store


def run_study(folder: Path, **search: object) -> tuple[RecordBook, SearchDirector]:
    book = RecordBook(Store(folder))
    director = SearchDirector(book, make_spec(**search), FIXED)
    drive(director)
    return book, director


def optuna_trials(director: SearchDirector, arm: str) -> list[optuna.trial.FrozenTrial]:
    return director._samplers[arm].trials


def test_arms_get_equal_device_time_though_one_costs_three_times_as_much(tmp_path: Path) -> None:
    book, _ = run_study(tmp_path)
    spent = {arm: sum(r.device_seconds for r in book if r.config.arm == arm) for arm in ("resnet18", "resnet50")}
    share = spent["resnet50"] / sum(spent.values())
    assert 0.45 <= share <= 0.55
    counts = [sum(r.config.arm == arm for r in book) for arm in ("resnet18", "resnet50")]
    assert sum(counts) == 24
    assert counts[0] > counts[1]


def test_asha_prunes_at_rungs_only(tmp_path: Path) -> None:
    spec = make_spec()
    book, _ = run_study(tmp_path)
    pruned = [r for r in book if r.state is TrialState.PRUNED]
    assert len(pruned) >= 6
    assert compute_rungs(spec.search.asha) == (0.25, 0.5)
    # The learning rate peaks after 1.8 epochs, and falls for 4.2: a quarter of these ends in epoch 3, a half in epoch 4.
    assert {r.epochs[-1].epoch for r in pruned} <= {3, 4}
    assert all("rung" in r.reason and r.epochs[-1].decision == "stop" for r in pruned)


@pytest.mark.parametrize(
    ("schedule", "stopped_after"),
    [
        ({"schedule": "cosine", "warmup_fraction": 0.0}, {2, 3}),
        ({"lr_peak_fraction": 0.6}, {5}),
        ({"lr_peak_fraction": 1.0}, set()),  # the peak is the last step
        ({"trainable": "own:Loop"}, {2, 3}),  # a custom loop has a schedule of its own, or none
    ],
)
def test_no_rung_lies_before_the_peak_of_the_learning_rate(schedule: dict[str, Any], stopped_after: set[int]) -> None:
    director = SearchDirector(book := MemoryBook(), make_spec(), {**FIXED, **schedule})
    drive(director)
    assert {r.epochs[-1].epoch for r in book if r.state is TrialState.PRUNED} == stopped_after


def test_without_asha_every_trial_runs_every_epoch(tmp_path: Path) -> None:
    book, _ = run_study(tmp_path, pruning="none")
    assert {(r.state, len(r.epochs)) for r in book} == {(TrialState.COMPLETE, 6)}


def test_records_keep_the_classes_of_their_last_epoch_alone(tmp_path: Path) -> None:
    """With those of every epoch, what a study writes would grow with the number of epochs squared."""
    book, _ = run_study(tmp_path, num_trials=2)
    found = [[bool(epoch.per_class_f1) for epoch in record.epochs] for record in book]
    assert found
    assert all(kept == [False] * (len(kept) - 1) + [True] for kept in found)


def test_pruned_trials_are_reported_to_the_sampler_with_every_value(tmp_path: Path) -> None:
    book, director = run_study(tmp_path)
    for arm in ("resnet18", "resnet50"):
        reported = optuna_trials(director, arm)
        records = [r for r in book if r.config.arm == arm]
        assert [t.state.name for t in reported] == [r.state.value for r in records]
        for trial, record in zip(reported, records, strict=True):
            assert trial.intermediate_values == {e.epoch: e.macro_f1 for e in record.epochs}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_non_finite_macro_f1_fails_the_trial_at_that_report(tmp_path: Path, bad: float | None) -> None:
    book = RecordBook(Store(tmp_path))
    director = SearchDirector(book, make_spec(num_trials=12), FIXED)

    def curve(record: TrialRecord, epoch: int) -> float | None:
        return bad if record.trial_id == "00003" and epoch == 2 else learning_curve(record, epoch)

    drive(director, curve)
    failed = book.get("search", "00003")
    assert (failed.state, failed.diverged, len(failed.epochs)) == (TrialState.FAILED, True, 2)
    assert "macro_f1 was not a finite number at epoch 2" in failed.reason
    assert failed.epochs[-1].macro_f1 is None
    for arm in ("resnet18", "resnet50"):
        assert all(t.state.is_finished() for t in optuna_trials(director, arm))
        assert "00003" not in [r.trial_id for r in best_trials(book.of_stage("search"), arm)]


def test_diverged_trials_rank_below_pruned_ones_whenever_they_diverged() -> None:
    """Optuna ranks pruned trials by their last epoch first."""
    spec = make_spec(num_trials=4, allocation="pooled", asha={"first_rung": 0.25})
    director = SearchDirector(MemoryBook(), spec, FIXED)
    for curve in ([0.7] * 6, [0.7, 0.8, None], [0.4, 0.3, 0.2]):
        record = director.next_trial()
        assert record is not None
        for epoch, score in enumerate(curve, start=1):
            director.on_report(record.trial_id, make_report(epoch, score, 1.0))
    complete, diverged, pruned = optuna_trials(director, "all")
    assert diverged.state is pruned.state is optuna.trial.TrialState.PRUNED
    assert diverged.intermediate_values == {1: 0.0}
    assert sorted([complete, diverged, pruned], key=rank_as_tpe)[0] is diverged
    # Optuna 4 asks whether there are constraints as well.
    options = {"constraints_enabled"} & inspect.signature(_split_trials).parameters.keys()
    below, above = _split_trials(
        director._samplers["all"]._history.study, [complete, diverged, pruned], 2, **dict.fromkeys(options, False)
    )
    assert [t.number for t in above] == [diverged.number]
    assert complete in below


def test_crashed_trial_is_failed_with_its_cause_and_not_left_running(tmp_path: Path) -> None:
    book = RecordBook(Store(tmp_path))
    director = SearchDirector(book, make_spec(num_trials=2), FIXED)
    record = director.next_trial()
    assert record is not None
    director.on_error(record.trial_id, "ValueError: first")
    director.on_error(record.trial_id, "ValueError: second")
    director.on_retries_exhausted(record.trial_id)
    failed = book.get("search", record.trial_id)
    assert (failed.state, failed.reason) == (TrialState.FAILED, "ValueError: second")
    assert failed.retry_causes == ("ValueError: first", "ValueError: second")
    assert failed.attempts == 2
    (reported,) = optuna_trials(director, record.config.arm)
    assert reported.state is optuna.trial.TrialState.FAIL


def test_epoch_reported_twice_is_recorded_once(tmp_path: Path) -> None:
    book = RecordBook(Store(tmp_path))
    director = SearchDirector(book, make_spec(num_trials=2), FIXED)
    record = director.next_trial()
    assert record is not None
    for epoch in (1, 1):
        assert director.on_report(record.trial_id, make_report(epoch, 0.5, 1.0))
    assert [e.epoch for e in book.get("search", record.trial_id).epochs] == [1]


@pytest.mark.parametrize("stopped_after", [0, 1, 7, 20, 43])
def test_killed_search_resumes_to_the_same_records(tmp_path: Path, stopped_after: int) -> None:
    """With one trial at a time the order of arrival is fixed, so a killed and an undisturbed study agree."""
    whole = RecordBook(Store(tmp_path / "whole"))
    drive(SearchDirector(whole, make_spec(), FIXED), num_workers=1)
    store = Store(tmp_path / "killed")
    drive(SearchDirector(RecordBook(store), make_spec(), FIXED), num_workers=1, max_events=stopped_after)
    drive(SearchDirector(RecordBook(store), make_spec(), FIXED), num_workers=1)
    times = {"started", "ended", "writer", "attempts"}
    expected = [r.model_dump(exclude=times) for r in whole]
    assert [r.model_dump(exclude=times) for r in RecordBook(store)] == expected


def test_finished_study_starts_nothing(tmp_path: Path) -> None:
    run_study(tmp_path)
    again = SearchDirector(RecordBook(Store(tmp_path)), make_spec(), FIXED)
    assert again.is_exhausted
    assert again.next_trial() is None


def test_more_trials_extend_a_finished_study_by_exactly_that_many(tmp_path: Path) -> None:
    run_study(tmp_path)
    book = RecordBook(Store(tmp_path))
    before = {r.trial_id: r for r in book}
    drive(SearchDirector(book, make_spec(num_trials=32), FIXED))
    assert len(book.of_stage("search")) == 32
    # A trial that is no longer among the best of its arm loses its weights, and nothing else.
    after = {
        r.trial_id: r.updated(weights_dropped=before[r.trial_id].weights_dropped) for r in book if r.trial_id in before
    }
    assert after == before


def test_best_ran_every_epoch_and_is_ranked_by_the_last(tmp_path: Path) -> None:
    book, _ = run_study(tmp_path)
    for arm in ("resnet18", "resnet50"):
        best = best_trials(book.of_stage("search"), arm)
        scores = [r.last_macro_f1 for r in best]
        assert best
        assert scores == sorted(scores, reverse=True)
        assert all(len(r.epochs) == 6 and r.config.arm == arm for r in best)


def test_orders_count_every_event_once(tmp_path: Path) -> None:
    book, _ = run_study(tmp_path)
    orders = [r.suggested_order for r in book] + [e.order for r in book for e in r.epochs]
    orders += [r.ended_order for r in book if r.ended_order is not None]
    assert sorted(orders) == list(range(len(orders)))


def test_search_stops_after_too_many_crashed_trials_and_continues_when_resumed(tmp_path: Path) -> None:
    spec, book = make_spec(num_trials=20), RecordBook(Store(tmp_path))
    director = SearchDirector(book, spec, FIXED)
    for number in range(3):
        assert director.problem == ""
        record = director.next_trial()
        assert record is not None
        director.on_error(record.trial_id, f"OSError: {number}")
        director.on_retries_exhausted(record.trial_id)
    assert (
        director.problem == "3 of 3 trials failed with an error, more than resources.max_failed_fraction = 0.5 allows"
    )
    assert director.is_exhausted
    assert director.next_trial() is None
    assert len(book.of_stage("search")) == 3
    again = SearchDirector(book, spec, FIXED)
    drive(again)
    assert len(book.of_stage("search")) == 20


def test_trials_that_cost_nothing_end_a_search_on_a_budget_of_device_time() -> None:
    spec, book = make_spec(num_trials=None, device_seconds=1000.0), MemoryBook()
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"max_failed_fraction": 1.0})})
    director = SearchDirector(book, spec, FIXED)
    while (record := director.next_trial()) is not None and len(book.of_stage("search")) < 100:
        if record.config.arm == "resnet50":
            director.on_error(record.trial_id, "OSError: no")
            director.on_retries_exhausted(record.trial_id)
            continue
        for epoch in range(1, 7):
            if not director.on_report(record.trial_id, make_report(epoch, 0.5, 1.0)):
                break
    assert director.problem.startswith("20 trials in a row of resnet50 failed before their first epoch")
    assert director.is_exhausted
    records = book.of_stage("search")
    assert sum(r.config.arm == "resnet50" for r in records) == 20
    assert SearchDirector(book, spec, FIXED).next_trial() is not None
    replayed = replay_search(records, {0: spec})
    assert (replayed.difference, replayed.num_suggestions) == ("", len(records))


def test_fewer_crashed_trials_do_not_stop_the_search(tmp_path: Path) -> None:
    spec = make_spec(num_trials=12)
    director = SearchDirector(RecordBook(Store(tmp_path)), spec, FIXED)
    for number in range(9):
        record = director.next_trial()
        assert record is not None
        if number % 3 == 2:
            director.on_error(record.trial_id, "OSError: no")
            director.on_retries_exhausted(record.trial_id)
        else:
            for epoch in range(1, 7):
                if not director.on_report(record.trial_id, make_report(epoch, 0.5, 1.0)):
                    break
    assert director.problem == ""
    assert not director.is_exhausted


def test_epoch_cost_makes_the_order_of_arms_independent_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    for number, seconds in enumerate((1.0, 5.0)):
        monkeypatch.setattr(
            simulated, "seconds_per_epoch", lambda record, s=seconds: s * (1 + len(record.trial_id) % 2)
        )
        book = RecordBook(Store(tmp_path / str(number)))
        spec = make_spec(epoch_cost={"resnet18": 1.0, "resnet50": 3.0})
        drive(SearchDirector(book, spec, FIXED), num_workers=1)
        orders.append([r.config.arm for r in book])
        spent = {arm: sum(len(r.epochs) for r in book if r.config.arm == arm) for arm in spec.search.epoch_cost or {}}
        assert 0.45 <= 3 * spent["resnet50"] / (3 * spent["resnet50"] + spent["resnet18"]) <= 0.55
    assert orders[0] == orders[1]


def test_a_trial_that_crashed_because_the_storage_failed_stays_for_resume(tmp_path: Path) -> None:
    book = RecordBook(Store(tmp_path))
    director = SearchDirector(book, make_spec(), FIXED)
    first, second = director.next_trial(), director.next_trial()
    assert first is not None
    assert second is not None
    director.on_error(
        first.trial_id, "ray.exceptions.RayTaskError\ntrainables.store.StorageError: x could not be written: full"
    )
    assert director.problem == "x could not be written: full"
    assert director.is_exhausted
    assert director.next_trial() is None
    assert director.on_report(second.trial_id, make_report(1, 0.5, 1.0)), "running trials continue"
    director.on_retries_exhausted(first.trial_id)
    assert book.get("search", first.trial_id).state is TrialState.RUNNING
    resumed = SearchDirector(RecordBook(Store(tmp_path)), make_spec(), FIXED)
    assert not resumed.problem
    again = resumed.next_trial()
    assert again is not None
    assert (again.trial_id, again.attempts) == (first.trial_id, 3)


def test_a_refusal_of_the_storage_leaves_the_trial_for_a_resume(tmp_path: Path) -> None:
    director = SearchDirector(RecordBook(Store(tmp_path)), make_spec(), FIXED)
    record = director.next_trial()
    assert record is not None
    director.on_error(
        record.trial_id, "Traceback\ntrainables.storage.store.StorageRefusedError: s3://b/x: ACCESS_DENIED"
    )
    director.on_retries_exhausted(record.trial_id)
    assert director.problem == "s3://b/x: ACCESS_DENIED"
    assert director.book.get("search", record.trial_id).state is TrialState.RUNNING


def test_what_a_retry_costs_before_its_first_new_epoch_is_device_time_of_its_arm(tmp_path: Path) -> None:
    director = SearchDirector(RecordBook(Store(tmp_path)), make_spec(), FIXED)
    record = director.next_trial()
    assert record is not None
    for epoch, seconds in ((1, 5.0), (2, 5.0), (1, 7.0), (2, 1.0), (3, 5.0), (4, 5.0)):
        assert director.on_report(record.trial_id, make_report(epoch, 0.5, seconds))
    epochs = director.book.get("search", record.trial_id).epochs
    assert [epoch.device_seconds for epoch in epochs] == [5.0, 10.0, 23.0, 28.0]


def search(folder: Path, *, stop: int | None = None, **changes: Any) -> list[TrialRecord]:
    """Run a search without pruning, or a part of it, and return its records as they are on disk."""
    spec = make_spec(num_trials=12, pruning="none", **changes)
    drive(SearchDirector(RecordBook(Store(folder)), spec, FIXED), num_workers=1, max_events=stop)
    return list(RecordBook(Store(folder)).of_stage("search"))


def kept(records: list[TrialRecord], arm: str) -> set[str]:
    return {r.trial_id for r in records if r.config.arm == arm and not r.weights_dropped}


@pytest.mark.parametrize(("changes", "number"), [({}, 2), ({"keep_weights": 1}, 1), ({"keep_weights": 0}, 0)])
def test_the_best_of_each_arm_are_kept(tmp_path: Path, changes: dict[str, Any], number: int) -> None:
    records = search(tmp_path, **changes)
    for arm in ("resnet18", "resnet50"):
        best = best_trials(records, arm)
        assert len(best) > 2
        assert kept(records, arm) == {r.trial_id for r in best[:number]}


def test_all_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    assert not any(r.weights_dropped for r in search(tmp_path, keep_weights="all"))
    assert make_spec().num_kept_weights == 2


def test_a_resumed_search_keeps_the_same(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole")
    search(tmp_path / "stopped", stop=40)
    again = search(tmp_path / "stopped")
    assert [r.weights_dropped for r in again] == [r.weights_dropped for r in whole]


def test_weights_that_a_killed_driver_left_behind_go_with_those_of_a_later_trial(tmp_path: Path) -> None:
    search(tmp_path, stop=40, keep_weights=1)
    book = RecordBook(Store(tmp_path))
    left = next(r for r in book.of_stage("search") if r.weights_dropped)
    book.save(left.updated(weights_dropped=False))
    records = search(tmp_path, keep_weights=1)
    assert kept(records, left.config.arm) == {best_trials(records, left.config.arm)[0].trial_id}


def test_the_file_goes_and_the_record_says_so(tmp_path: Path) -> None:
    record = search(tmp_path, keep_weights="all")[0]
    book = RecordBook(Store(tmp_path))
    files = open_trial_files(book.store, record)
    digests = files.write_weights({"fc.bias": torch.zeros(3)}, 1)
    record = book.save(record.updated(digests={**digests, "best/0001/search.npz": "0"}))
    assert not record.weights_dropped
    book.drop_weights(record)
    (dropped,) = [r for r in RecordBook(Store(tmp_path)).of_stage("search") if r.trial_id == record.trial_id]
    assert dropped.weights_dropped
    assert dropped.digests == {"best/0001/search.npz": "0"}
    assert not any(files.store.exists(path) for path in digests)


def test_results_of_attempts_that_lost_go_with_the_checkpoints(tmp_path: Path) -> None:
    book = RecordBook(Store(tmp_path))
    record = SearchDirector(book, make_spec(), FIXED).next_trial()
    assert record is not None
    files = open_trial_files(book.store, record)
    lost, digests = (files.write_weights({"fc.bias": torch.full((3,), attempt)}, attempt) for attempt in (1, 2))
    ended = book.save(record.updated(state="COMPLETE", attempts=2, digests=digests))
    book.drop_checkpoint(ended)
    assert [files.store.exists(path) for path in (*lost, *digests)] == [False, True]

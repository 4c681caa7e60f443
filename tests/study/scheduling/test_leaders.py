"""Leading configurations that run again, and searches that end because more of them would gain less than the noise."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from rich.console import Console

from search_spaces.errors import UserInputError
from study.open_study import describe_saturation
from study.results.search_results import compute_search_results
from study.scheduling.leaders import MIN_CONFIGURATIONS, NUM_RECENT, ArmLeaders, Forecast, describe_forecasts
from study.scheduling.replay import replay_search
from study.scheduling.search_director import SearchDirector
from study.scheduling.turns import is_search_finished, replay_turns
from study.spec.study_spec import StudySpec
from study.state.record_book import MemoryBook
from study.views import status
from tests.study.command_line import run_cli
from tests.study.searched import simulate
from tests.study.simulated import FIXED, drive, learning_curve, make_spec
from trainables.records.ranking import best_trials, mean_macro_f1, ran_every_epoch
from trainables.records.record import TrialRecord, TrialState
from trainables.seeds import numpy_generator


def noisy_curve(record: TrialRecord, epoch: int) -> float | None:
    """Return a curve whose noise belongs to the seed; one repeated run in six diverges."""
    noise = random.Random(f"{record.config.seed}").uniform(-0.05, 0.05)
    if record.repeats_trial_id and record.config.seed % 6 == 0 and epoch == 2:
        return None
    return learning_curve(record, epoch) + noise


def run_search(stop: int | None = None, book: MemoryBook | None = None, **search: Any) -> tuple[MemoryBook, StudySpec]:
    spec = make_spec(**{"num_trials": 40, "leader_runs": 3, **search})
    found = MemoryBook() if book is None else book
    drive(SearchDirector(found, spec, FIXED), noisy_curve, num_workers=3, max_events=stop)
    return found, spec


def test_the_leader_runs_again_until_it_has_its_runs_or_another_one_leads() -> None:
    leaders = ArmLeaders(num_runs=3)
    for number, score in enumerate((0.5, 0.7, 0.6)):
        assert leaders.find_due() == ""
        leaders.finish(f"{number}", "", score)
    assert MIN_CONFIGURATIONS == 4
    leaders.finish("3", "", 0.1)
    assert leaders.find_due() == "1"
    leaders.start_repeat("1")
    leaders.start_repeat("1")
    assert leaders.find_due() == "", "its third run has started"
    leaders.finish("4", "1", 0.3)
    assert leaders.find_due() == "2", "0.6 leads the mean of 0.7 and 0.3"
    leaders.finish("5", "1", None)
    leaders.start_repeat("2")
    leaders.finish("6", "2", 0.3)
    assert leaders.find_due() == "0", "0.5 ties with the mean of trial 1; ties go to the smallest id"
    leaders.start_repeat("0")
    leaders.finish("7", "0", 0.45)
    assert leaders.find_due() == "1", "it leads again, and its third run failed"
    for number in (8, 9):
        leaders.start_repeat("1")
        leaders.finish(str(number), "1", None)
    assert leaders.find_due() == "", "three of its runs failed"


def test_a_search_repeats_its_leaders_and_ranks_by_the_mean() -> None:
    book, spec = run_search()
    records = book.of_stage("search")
    repeated = [r for r in records if r.repeats_trial_id]
    assert 4 <= len(repeated) <= 20
    by_id = {r.trial_id: r for r in records}
    for record in repeated:
        first = by_id[record.repeats_trial_id]
        assert record.config.hyperparameters == first.config.hyperparameters
        assert record.config.seed != first.config.seed
        assert record.state in (TrialState.COMPLETE, TrialState.FAILED), "no repeated run is stopped at a rung"
        assert not first.repeats_trial_id
        assert ran_every_epoch(first)
    assert max(sum(r.repeats_trial_id == one for r in repeated) for one in by_id) == 2
    for arm in ("resnet18", "resnet50"):
        best = best_trials(records, arm)
        assert not any(r.repeats_trial_id for r in best)
        means = [mean_macro_f1(r, records) for r in best]
        assert means == sorted(means, reverse=True)
        own = [r for r in records if r.repeats_trial_id == best[0].trial_id]
        scores = [best[0].last_macro_f1, *(0.0 if r.diverged else r.last_macro_f1 for r in own)]
        assert means[0] == pytest.approx(sum(map(float, filter(None, scores))) / len(scores))
    spent = {arm: sum(r.device_seconds for r in records if r.config.arm == arm) for arm in ("resnet18", "resnet50")}
    assert min(spent.values()) / sum(spent.values()) > 0.4
    assert len(records) == 40
    assert is_search_finished(records, spec, None)


def test_the_sampler_hears_of_each_configuration_once() -> None:
    book, spec = run_search()
    director = SearchDirector(book, spec, FIXED)
    heard = {arm: len(sampler.trials) for arm, sampler in director._samplers.items()}
    firsts = [r.config.arm for r in book.of_stage("search") if not r.repeats_trial_id]
    assert heard == {arm: firsts.count(arm) for arm in heard}


@pytest.mark.parametrize("stop", [None, 33, 61])
def test_repeated_runs_replay_and_resume(stop: int | None) -> None:
    book, spec = run_search(stop)
    if stop is not None:
        run_search(book=book)
    assert replay_search(book.of_stage("search"), {0: spec}).difference == ""
    assert any(r.repeats_trial_id for r in book.of_stage("search"))


def test_a_gain_is_forecast_when_enough_has_run() -> None:
    leaders = ArmLeaders(num_runs=3)
    for number in range(NUM_RECENT):
        assert leaders.forecast() is None
        leaders.finish(f"{number}", "", 0.5 + 0.01 * number)
    leaders.start_repeat("9")
    leaders.start_repeat("9")
    leaders.finish("10", "9", 0.58)
    assert leaders.forecast() is None, "one repeated run measures no noise"
    leaders.finish("11", "9", 0.6)
    found = leaders.forecast()
    assert found is not None
    assert found.noise == pytest.approx(0.01)
    # The mean of the recent scores is 0.545, and the leader's mean 0.59.
    spread = (np.var([0.5 + 0.01 * number for number in range(10)], ddof=1) - 0.01**2) ** 0.5
    best_of_ten = numpy_generator(0, "gain").normal(0.545, spread, (200_000, 10)).max(axis=1)
    assert found.gain == pytest.approx(np.maximum(best_of_ten - 0.59, 0.0).mean(), abs=1e-4)
    assert found.num_configurations == 10
    leaders.finish("12", "", 0.4)
    leaders.start_repeat("9")
    leaders.finish("13", "9", 0.0)
    diverged = leaders.forecast()
    assert diverged is not None
    assert diverged.noise == pytest.approx(0.01), "a run that diverged is no noise between seeds"
    leaders.counts_divergence_as_noise = True
    earlier = leaders.forecast()
    assert earlier is not None
    assert earlier.noise > 0.2, "as under defaults_version 1 to 7"
    assert not Forecast(gain=0.02, noise=0.01, num_configurations=10).is_saturated
    (sentence,) = describe_forecasts(
        {"resnet18": Forecast(gain=0.002, noise=0.01, num_configurations=10), "other": None}
    )
    assert sentence == (
        "resnet18: 10 more configurations would gain about 0.20 pp of macro-F1, less than the noise between seeds of its "
        "leaders, 1.00 pp: its search is saturated"
    )


def test_a_saturated_search_ends_before_its_budget_and_an_extended_one_goes_on() -> None:
    whole, spec = run_search(num_trials=200, asha={"enabled": False})
    short, stopping = run_search(num_trials=200, asha={"enabled": False}, stop_when="saturated")
    records = short.of_stage("search")
    assert len(whole.of_stage("search")) == 200
    assert 2 * NUM_RECENT <= len(records) < 200
    assert is_search_finished(records, stopping, None)
    assert not is_search_finished(records, spec, None), "its budget is not used up"
    assert [r.fingerprint for r in records] == [r.fingerprint for r in whole.of_stage("search")[: len(records)]]
    assert replay_search(records, {0: stopping}).difference == ""
    assert all(found is not None for found in replay_turns(records, stopping).forecast().values())
    before = len(records)
    drive(SearchDirector(short, spec, FIXED), noisy_curve, num_workers=3, max_events=20)
    assert len(short.of_stage("search")) > before


def test_a_launch_says_that_the_budget_is_the_most_and_status_what_more_would_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec(leader_runs=3, stop_when="saturated").model_dump(exclude_none=True)
    (tmp_path / "spec.toml").write_text(tomli_w.dumps(spec))
    outcome = run_cli("launch", tmp_path / "spec.toml", "--storage", tmp_path, "--local", "--dry-run", width=200)
    assert outcome.status == 0, outcome
    assert "the search ends when it is saturated, or with its budget of 24 trials" in outcome.output
    study = simulate(tmp_path, allocation="pooled", num_trials=40, leader_runs=3)
    assert any(record.repeats_trial_id for record in study.book)
    (sentence,) = describe_saturation(study)
    assert sentence.startswith("all: ")
    assert f"{sentence}." in compute_search_results(study).view.notes
    monkeypatch.setattr(status, "print_stage", lambda *_: None)
    capsys.readouterr()
    status.print_status(study, Console(width=200))
    assert sentence in capsys.readouterr().out


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"stop_when": "saturated"}, "set search.leader_runs to 2 or more"),
        ({"leader_runs": 2, "max_epochs": 9, "asha": {"rungs": "complete"}}, 'search.asha.rungs = "complete" has none'),
        ({"leader_runs": 0}, "greater than or equal to 1"),
    ],
)
def test_repeated_runs_that_do_nothing_are_refused(search: dict[str, Any], words: str) -> None:
    with pytest.raises(UserInputError, match=words):
        make_spec(**search)

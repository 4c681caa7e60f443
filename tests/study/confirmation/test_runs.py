"""Confirmation trials of a configuration, by seed: complete, failed, or missing."""

import math

import pytest

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.confirmation.candidates import complete_seeds, failed_seeds, is_crashed, outcomes_of, planned_runs, runs_of
from study.scheduling.director import ConfirmationDirector, want
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord, best_trials

ARMS = ("resnet18", "resnet50")


@pytest.fixture(scope="module")
def confirmed() -> tuple[MemoryBook, dict[str, TrialRecord]]:
    """A book whose winners ran with the seeds 1 to 5, of which ResNet50 crashed with 3; and the winners."""
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(), FIXED))
    winners = {arm: best_trials(book.of_stage("search"), arm)[0] for arm in ARMS}
    seeds = {"resnet50": (3, 1, 2, 4, 5), "resnet18": (1, 2, 3, 4, 5)}
    director = ConfirmationDirector(book, [trial for arm in seeds for trial in want(winners[arm], seeds[arm])])
    crash(director)
    drive(director)
    return book, winners


def test_trials_are_distinguished_by_configuration_and_seed(
    confirmed: tuple[MemoryBook, dict[str, TrialRecord]],
) -> None:
    book, winners = confirmed
    for arm, winner in winners.items():
        assert {r.config.arm for r in runs_of(book, winner)} == {arm}
    assert failed_seeds(book, winners["resnet18"]) == frozenset()
    assert failed_seeds(book, winners["resnet50"]) == {3}
    assert complete_seeds(book, winners, (5, 4, 3, 1)) == (5, 4, 1)
    with pytest.raises(UserInputError, match="two seeds that every arm completed, but there are 1"):
        complete_seeds(book, winners, (3, 2))


def test_a_trial_that_diverged_is_an_outcome_and_one_that_crashed_is_none() -> None:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(), FIXED))
    winner = best_trials(book.of_stage("search"), "resnet50")[0]
    director = ConfirmationDirector(book, want(winner, (1, 2, 3)))
    crashed = director.next_trial()
    assert crashed is not None
    director.on_error(crashed.trial_id, "the node was lost")
    director.on_retries_exhausted(crashed.trial_id)
    drive(director, lambda record, epoch: math.nan if record.config.seed == 2 and epoch == 4 else 0.5)
    assert failed_seeds(book, winner) == {1}
    assert complete_seeds(book, {"resnet50": winner}, (1, 2, 3)) == (2, 3)
    assert [r.config.seed for r in planned_runs(book, winner, (3, 2, 1))] == [3, 2]
    assert [r.config.seed for r in outcomes_of(book, winner)] == [2, 3]


def crash(director: ConfirmationDirector) -> None:
    record = director.next_trial()
    assert record is not None
    director.on_error(record.trial_id, "the driver of the GPU is broken")
    director.on_retries_exhausted(record.trial_id)


def test_trials_that_crashed_before_a_resume_are_started_again() -> None:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(), FIXED))
    winner = best_trials(book.of_stage("search"), "resnet50")[0]
    wanted = want(winner, (1, 2, 3, 4))
    director = ConfirmationDirector(book, wanted, max_failed_fraction=0.5)
    for _ in range(3):
        crash(director)
    assert director.problem.startswith(
        "3 of 3 trials failed with an error, more than resources.max_failed_fraction = 0.5"
    )
    assert director.next_trial() is None
    crashed = {record.fingerprint for record in book.of_stage("confirmation") if is_crashed(record)}
    assert len(crashed) == 3
    again = ConfirmationDirector(book, wanted, again=crashed)
    drive(again)
    assert again.is_exhausted
    assert complete_seeds(book, {"resnet50": winner}, (1, 2, 3, 4)) == (1, 2, 3, 4)
    assert [record.attempts for record in book.of_stage("confirmation")] == [2, 2, 2, 1]


def test_planned_trials_come_in_the_order_of_the_seeds(confirmed: tuple[MemoryBook, dict[str, TrialRecord]]) -> None:
    book, winners = confirmed
    assert [r.config.seed for r in planned_runs(book, winners["resnet50"], (4, 3, 1))] == [4, 1]
    with pytest.raises(UserInputError, match=r"compares seeds \[6\].*study resume"):
        planned_runs(book, winners["resnet18"], (1, 6))


def test_a_record_is_hashed_once_however_many_seeds_are_planned(
    confirmed: tuple[MemoryBook, dict[str, TrialRecord]], monkeypatch: pytest.MonkeyPatch
) -> None:
    book, winners = confirmed
    planned_runs(book, winners["resnet18"], (1, 2))
    hashed, canonical_json = [], TrialConfig.canonical_json

    def count(config: TrialConfig) -> str:
        hashed.append(dict(config.hyperparameters))
        return canonical_json(config)

    monkeypatch.setattr(TrialConfig, "canonical_json", count)
    planned_runs(book, winners["resnet18"], (1, 2, 3, 4, 5))
    assert hashed == [winners["resnet18"].config.hyperparameters] * 2, (
        "the winner alone, for its complete and failed trials"
    )
    again = book.save(runs_of(book, winners["resnet18"])[0].updated(node="other"))
    assert again in runs_of(book, winners["resnet18"])

"""Confirmation trials of a configuration, by seed: complete, failed, or missing."""

import math

import pytest

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.confirmation.director import ConfirmationDirector, want
from study.confirmation.runs import complete_seeds, failed_seeds, planned_runs, runs_of
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, drive, learning_curve, make_spec
from trainables.records.ranking import best_trials
from trainables.records.record import TrialRecord

ARMS = ("resnet18", "resnet50")


@pytest.fixture(scope="module")
def confirmed() -> tuple[MemoryBook, dict[str, TrialRecord]]:
    """A book whose winners ran with the seeds 1 to 5, of which ResNet50 failed with 3; and the winners."""
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(), FIXED))
    winners = {arm: best_trials(book.of_stage("search"), arm, 6)[0] for arm in ARMS}
    wanted = [trial for winner in winners.values() for trial in want(winner, range(1, 6))]

    def curve(record: TrialRecord, epoch: int) -> float:
        fails = (record.config.arm, record.config.seed) == ("resnet50", 3)
        return math.nan if fails else learning_curve(record, epoch)

    drive(ConfirmationDirector(book, wanted, 6), curve)
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

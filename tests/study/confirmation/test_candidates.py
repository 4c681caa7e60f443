"""The winner among an arm's candidates: the highest mean on the confirm split, ties to the smallest trial id."""

import math

import pytest

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.confirmation.candidates import (
    candidates,
    choose_by_ranking,
    complete_seeds,
    describe_unlike_nodes,
    failed_seeds,
    is_crashed,
    outcomes_of,
    planned_runs,
    runs_of,
)
from study.scheduling.director import ConfirmationDirector, want
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import TrialRecord, best_trials


@pytest.mark.parametrize(("scores", "place"), [((0.5, 0.5), 0), ((0.5, 0.6), 1), ((0.6, 0.5), 0)])
def test_ties_go_to_the_smallest_trial_id(scores: tuple[float, float], place: int) -> None:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(num_trials=8), FIXED))
    sources = sorted(best_trials(book.of_stage("search"), "resnet18")[:2], key=lambda r: r.trial_id)
    assert len(sources) == 2
    drive(ConfirmationDirector(book, [trial for source in sources for trial in want(source, (1, 2))]))
    by_source = dict(zip((s.trial_id for s in sources), scores, strict=True))
    for record in book.of_stage("confirmation"):
        book.save(record.updated(confirm_macro_f1=by_source[record.source_trial_id]))
    for order in (sources, sources[::-1]):
        winners = choose_by_ranking(book, {"resnet18": tuple(order)}, (1, 2))
        assert winners["resnet18"] == sources[place]


def test_a_candidate_is_not_ranked_by_its_good_runs_alone() -> None:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(num_trials=8), FIXED))
    sources = best_trials(book.of_stage("search"), "resnet18")[:2]

    def curve(record: TrialRecord, epoch: int) -> float:
        diverges = (record.source_trial_id, record.config.seed) == (sources[0].trial_id, 2)
        return math.nan if diverges and epoch == 3 else 0.5

    drive(ConfirmationDirector(book, [trial for source in sources for trial in want(source, (1, 2))]), curve)
    for record in book.of_stage("confirmation"):
        if not record.diverged:
            best = record.source_trial_id == sources[0].trial_id
            book.save(record.updated(confirm_macro_f1=0.9 if best else 0.8))
    winners = choose_by_ranking(book, {"resnet18": sources}, (1, 2))
    assert winners["resnet18"] == sources[1]


def test_a_configuration_is_one_candidate_however_often_it_was_tried() -> None:
    book, spec = MemoryBook(), make_spec(num_trials=8)
    drive(SearchDirector(book, spec, FIXED))
    first, *others = best_trials(book.of_stage("search"), "resnet18")
    copy = first.updated(config=first.config.with_seed(99), trial_id="00099")
    book.save(copy.updated(fingerprint=copy.config.fingerprint))
    found = candidates(book, spec)["resnet18"]
    assert len(found) == spec.confirm.top_k == 2
    assert [record.config.configuration_fingerprint for record in found] == [
        record.config.configuration_fingerprint for record in (first, others[0])
    ]


def test_trials_on_unlike_devices_or_libraries_are_said() -> None:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(num_trials=4), FIXED))
    records = [record.updated(device="NVIDIA A10G", libraries="torch 2.11.0") for record in book.of_stage("search")]
    assert describe_unlike_nodes(records) == ""
    assert describe_unlike_nodes([*records, records[0].updated(epochs=(), device="", libraries="")]) == ""
    for changes in ({"device": "NVIDIA A100"}, {"libraries": "torch 2.12.0"}):
        records[3] = records[0].updated(**changes)
        sentence = describe_unlike_nodes(records)
        assert "(3 on NVIDIA A10G, torch 2.11.0; 1 on NVIDIA A" in sentence
        assert "device time cannot be compared" in sentence


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

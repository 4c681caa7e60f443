"""The winner among an arm's candidates: the highest mean on the confirm split, ties to the smallest trial id."""

import math

import pytest

from study.confirmation.candidates import candidates, choose_by_ranking, describe_unlike_nodes
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

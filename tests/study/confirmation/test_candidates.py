"""The winner among an arm's candidates: the highest mean on the confirm split, ties to the smallest trial id."""

import pytest

from study.confirmation.candidates import choose_by_ranking
from study.confirmation.director import ConfirmationDirector, want
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.ranking import best_trials


@pytest.mark.parametrize(("scores", "place"), [((0.5, 0.5), 0), ((0.5, 0.6), 1), ((0.6, 0.5), 0)])
def test_ties_go_to_the_smallest_trial_id(scores: tuple[float, float], place: int) -> None:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(num_trials=8), FIXED))
    sources = sorted(best_trials(book.of_stage("search"), "resnet18", 6)[:2], key=lambda r: r.trial_id)
    assert len(sources) == 2
    drive(ConfirmationDirector(book, [trial for source in sources for trial in want(source, (1, 2))], 6))
    by_source = dict(zip((s.trial_id for s in sources), scores, strict=True))
    for record in book.of_stage("confirmation"):
        book.save(record.updated(confirm_macro_f1=by_source[record.source_trial_id]))
    for order in (sources, sources[::-1]):
        winners = choose_by_ranking(book, {"resnet18": tuple(order)}, (1, 2))
        assert winners["resnet18"] == sources[place]

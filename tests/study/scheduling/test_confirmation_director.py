"""The trials that a director of the confirmation starts, and those that it leaves to the next one."""

from study.scheduling.director import ConfirmationDirector, WantedTrial, want
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, drive, make_spec
from trainables.records.record import best_trials


def test_a_trial_left_by_a_dead_driver_is_unfinished_only_for_directors_that_want_it() -> None:
    book = MemoryBook()
    search = SearchDirector(book, make_spec(num_trials=2), FIXED)
    drive(search)
    wanted = want(best_trials(book.of_stage("search"), "resnet18")[0], (1, 2))
    left = ConfirmationDirector(book, wanted).next_trial()
    assert left is not None
    assert not search.unfinished()
    for nothing_of_it in ([], wanted[1:]):
        assert not ConfirmationDirector(book, nothing_of_it).unfinished()
    again = ConfirmationDirector(book, wanted)
    assert [record.trial_id for record in again.unfinished()] == [left.trial_id]
    drive(again)
    assert not again.unfinished()
    assert [record.config.seed for record in book.of_stage("confirmation")] == [1, 2]


def test_a_record_that_was_moved_away_leaves_the_others_as_they_are() -> None:
    book = MemoryBook()
    search = SearchDirector(book, make_spec(num_trials=2), FIXED)
    drive(search)
    wanted = want(best_trials(book.of_stage("search"), "resnet18")[0], (1, 2, 3))
    drive(ConfirmationDirector(book, wanted))
    kept = [record for record in book if (record.stage, record.trial_id) != ("confirmation", "00001")]
    left = MemoryBook()
    for record in kept:
        left.save(record)
    drive(ConfirmationDirector(left, wanted))
    assert [(r.trial_id, r.config.seed) for r in left.of_stage("confirmation")] == [
        ("00000", 1),
        ("00002", 3),
        ("00003", 2),
    ]


def test_what_the_first_trials_decide_is_trained_after_them_without_another_run() -> None:
    book = MemoryBook()
    drive(SearchDirector(book, make_spec(num_trials=2), FIXED))
    source = best_trials(book.of_stage("search"), "resnet18")[0]
    seen: list[list[bool]] = []

    def choose() -> list[WantedTrial]:
        seen.append([record.state.is_finished for record in book.of_stage("confirmation")])
        return want(source, (3, 4))

    director = ConfirmationDirector(book, want(source, (1, 2)), then=choose)
    assert [director.next_trial() is None for _ in range(3)] == [False, False, True]
    assert not director.is_exhausted
    assert seen == []
    again = ConfirmationDirector(book, want(source, (1, 2)), then=choose)
    drive(again)
    assert seen == [[True, True]]
    assert again.is_exhausted
    assert [record.config.seed for record in book.of_stage("confirmation")] == [1, 2, 3, 4]
    # Where nothing is left of the first, what they decide is wanted at once.
    assert ConfirmationDirector(book, want(source, (1, 2)), then=choose).is_exhausted
    assert len(seen) == 2

"""The trials that a director of the confirmation starts, and those that it leaves to the next one."""

from dataclasses import replace

import pytest

from search_spaces.config import TrialConfig
from study.scheduling.director import ConfirmationDirector, WantedTrial, want
from study.scheduling.search_director import SearchDirector
from study.state.record_book import MemoryBook
from tests.study.simulated import FIXED, drive, make_report, make_spec
from trainables.records.record import TrialState, best_trials


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


def make_config(arm: str, **changes: str) -> TrialConfig:
    return TrialConfig(arm=arm, seed=7, hyperparameters={"max_lr": 0.1, **changes}, fixed=FIXED)


def test_a_head_waits_for_the_network_that_another_wanted_trial_is_training() -> None:
    """The others do not wait for it, and a network that nobody trains is trained with the head."""
    book, plain = MemoryBook(), make_config("control")
    heads = [make_config(arm, head_refit=arm) for arm in ("ring_swaps", "balanced")]
    other = make_config("cutmix", class_weighting="none")
    director = ConfirmationDirector(book, [WantedTrial(config=c, source_trial_id="") for c in (plain, *heads, other)])
    control, second = director.next_trial(), director.next_trial()
    assert control is not None
    assert second is not None
    assert (control.config, second.config) == (plain, other)
    assert director.next_trial() is None
    assert not director.is_exhausted
    assert book.find_network(heads[0]) is None
    for epoch in range(1, 7):
        director.on_report(control.trial_id, make_report(epoch, 0.5, 1.0))
    first = director.next_trial()
    assert first is not None
    assert first.config == heads[0]
    found = book.find_network(first.config)
    assert found is not None
    assert found.trial_id == control.trial_id
    for unlike in (other, heads[0].with_seed(8), heads[0].with_fold("1/2"), replace(plain, arm="x")):
        assert book.find_network(unlike) is None
    dropped = MemoryBook()
    dropped.save(found.updated(weights_dropped=True, state=TrialState.COMPLETE))
    assert dropped.find_network(first.config) is None
    alone = ConfirmationDirector(MemoryBook(), [WantedTrial(config=heads[1], source_trial_id="")]).next_trial()
    assert alone is not None


def test_a_search_trial_that_fits_a_head_has_the_seed_whose_network_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other trials have seeds of their own."""
    for second, is_same in (
        ({"head_refit": "balanced"}, True),
        ({"head_refit": "balanced", "max_lr": 0.2}, False),
        ({}, False),
    ):
        director = SearchDirector(MemoryBook(), make_spec(num_trials=2), FIXED)
        suggested = iter([{"max_lr": 0.1}, {"max_lr": 0.1, **second}])
        monkeypatch.setattr(director, "_suggest", lambda *_, suggested=suggested: next(suggested))
        records = [director.next_trial(), director.next_trial()]
        seeds = {record.config.seed for record in records if record is not None}
        assert len(seeds) == (1 if is_same else 2)


def test_a_search_trial_that_fits_no_head_looks_at_no_earlier_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of each took 27 % of the time of a suggestion after 1,650 trials, and grew with their number."""
    director, num_copies, with_seed = (
        SearchDirector(MemoryBook(), make_spec(num_trials=4), FIXED),
        0,
        TrialConfig.with_seed,
    )

    def count_copy(config: TrialConfig, seed: int) -> TrialConfig:
        nonlocal num_copies
        num_copies += 1
        return with_seed(config, seed)

    monkeypatch.setattr(TrialConfig, "with_seed", count_copy)
    assert all(director.next_trial() is not None for _ in range(4))
    assert num_copies == 0

"""The best trial: ran every epoch, highest macro-F1 at the last one, ties to the smallest id."""

from collections.abc import Iterator

from tests.analysis.search.test_rungs import make_record
from trainables.records.record import TrialRecord, TrialState, best_trials

COMPLETE = TrialState.COMPLETE


def two_epochs(index: int, scores: list[float | None], state: TrialState, **changes: str) -> TrialRecord:
    return make_record(index, scores, state, max_epochs=2, **changes)


def test_trials_rank_by_their_last_epoch_and_ties_go_to_the_smallest_id() -> None:
    records = [
        two_epochs(7, [0.9, 0.6], COMPLETE),
        two_epochs(3, [0.1, 0.6], COMPLETE),
        two_epochs(5, [0.5, 0.7], COMPLETE, arm="b"),
    ]
    for order in (records, records[::-1]):
        assert [r.trial_id for r in best_trials(order, None)] == ["00005", "00003", "00007"]
        assert [r.trial_id for r in best_trials(order, "a")] == ["00003", "00007"]


def test_trials_without_a_finite_last_epoch_do_not_rank() -> None:
    records = [
        two_epochs(0, [0.9], COMPLETE),
        two_epochs(1, [0.9, None], COMPLETE),
        two_epochs(2, [0.9, 0.9], TrialState.PRUNED),
        two_epochs(3, [0.9, 0.9], TrialState.RUNNING),
        two_epochs(4, [0.1, 0.2], COMPLETE),
    ]
    assert [r.trial_id for r in best_trials(records, "a")] == ["00004"]


def test_trials_of_configurations_with_other_numbers_of_epochs_rank_together() -> None:
    records = [
        two_epochs(0, [0.9, 0.5], COMPLETE),
        make_record(1, [0.9, 0.6], COMPLETE, max_epochs=3),
        make_record(2, [0.1, 0.2, 0.7], COMPLETE, max_epochs=3),
    ]
    assert [r.trial_id for r in best_trials(records, "a")] == ["00002", "00000"]


def test_many_trials_are_ranked_in_a_few_passes() -> None:
    """One pass per trial made the view of a search of 10,000 trials stand still."""
    first, second = (two_epochs(i, [0.1, score], COMPLETE) for i, score in enumerate((0.6, 0.7)))
    records = Counted([first, second])
    assert best_trials(records, None) == (second, first)
    assert records.passes <= 2


class Counted(list[TrialRecord]):
    """Records that count how often they are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[TrialRecord]:
        self.passes += 1
        return super().__iter__()

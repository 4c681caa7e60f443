"""The best trial: ran every epoch, highest macro-F1 at the last one, ties to the smallest id."""

from tests.analysis.search.test_rungs import make_record
from trainables.records.ranking import best_trials
from trainables.records.record import TrialState

COMPLETE = TrialState.COMPLETE


def test_trials_rank_by_their_last_epoch_and_ties_go_to_the_smallest_id() -> None:
    records = [
        make_record(7, [0.9, 0.6], COMPLETE),
        make_record(3, [0.1, 0.6], COMPLETE),
        make_record(5, [0.5, 0.7], COMPLETE, arm="b"),
    ]
    for order in (records, records[::-1]):
        assert [r.trial_id for r in best_trials(order, None, 2)] == ["00005", "00003", "00007"]
        assert [r.trial_id for r in best_trials(order, "a", 2)] == ["00003", "00007"]


def test_trials_without_a_finite_last_epoch_do_not_rank() -> None:
    records = [
        make_record(0, [0.9], COMPLETE),
        make_record(1, [0.9, None], COMPLETE),
        make_record(2, [0.9, 0.9], TrialState.PRUNED),
        make_record(3, [0.9, 0.9], TrialState.RUNNING),
        make_record(4, [0.1, 0.2], COMPLETE),
    ]
    assert [r.trial_id for r in best_trials(records, "a", 2)] == ["00004"]

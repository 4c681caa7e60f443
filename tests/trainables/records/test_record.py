"""record.json keeps the bytes of the first release."""

import math
from collections.abc import Iterator

import pytest

from search_spaces.config import TrialConfig
from tests.analysis.search.test_search_findings import make_record
from tests.built_values import epoch_of, metrics_of, record_of
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, TrialState, best_trials

CONFIG = TrialConfig(
    arm="resnet18", seed=7, hyperparameters={"max_lr": 0.05, "backbone": "resnet18"}, fixed={"max_epochs": 2}
)
METRICS = metrics_of(
    1,
    0.7,
    train_loss=0.1 + 0.2,
    backbone_lr=1e-7,
    search_loss=1 / 3,
    per_class_f1=(0.6, 0.8),
    part_seconds=(("start", 0.5),),
)
DIVERGED = {
    "epoch": 2,
    "train_loss": math.inf,
    "macro_f1": math.nan,
    "per_class_f1": (math.nan, -math.inf),
    "part_seconds": (),
}


@pytest.fixture
def record() -> TrialRecord:
    epochs = epoch_of(METRICS), epoch_of(METRICS, **DIVERGED, order=2, decision="stop")
    return record_of(CONFIG, state=TrialState.FAILED, reason="x", diverged=True, epochs=epochs)


def test_a_record_is_read_back_as_it_was_written(record: TrialRecord) -> None:
    scored = record.updated(last_finite_epoch=1)
    for written in (record, scored):
        assert TrialRecord.from_json(written.to_json(), where="record.json") == written


def test_configuration_that_contradicts_itself_is_damage(record: TrialRecord) -> None:
    text = record.to_json().replace('"max_epochs"', '"max_lr"')
    with pytest.raises(DamagedFileError, match=r"record\.json is damaged: config: .*'max_lr'.* in both"):
        TrialRecord.from_json(text, where="record.json")


def test_changed_configuration_is_altered_and_not_damage(record: TrialRecord) -> None:
    assert not record.is_altered
    assert TrialRecord.from_json(record.to_json().replace("0.05", "0.06"), where="record.json").is_altered


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

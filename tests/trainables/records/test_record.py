"""record.json keeps the bytes of the first release."""

import math

import pytest

from search_spaces.config import TrialConfig
from tests.built_values import epoch_of, metrics_of, record_of
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, TrialState

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

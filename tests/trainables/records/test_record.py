"""record.json keeps the bytes of the first release."""

import math

import pytest

from search_spaces.config import TrialConfig
from trainables.damaged_files import DamagedFileError
from trainables.records.record import EpochRecord, TrialRecord, TrialState
from trainables.training.epoch_metrics import EpochMetrics

CONFIG = TrialConfig(
    arm="resnet18", seed=7, hyperparameters={"max_lr": 0.05, "backbone": "resnet18"}, fixed={"max_epochs": 2}
)
METRICS = EpochMetrics(
    epoch=1,
    train_loss=0.1 + 0.2,
    search_loss=1 / 3,
    macro_f1=0.7,
    per_class_f1=(0.6, 0.8),
    head_lr=0.1,
    backbone_lr=1e-7,
    train_seconds=1.5,
    evaluate_seconds=0.25,
    train_images_per_second=100.0,
    peak_memory_bytes=123,
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
    values = dict(METRICS)
    return TrialRecord(
        trial_id="00000",
        stage="search",
        config=CONFIG,
        fingerprint=CONFIG.fingerprint,
        state=TrialState.FAILED,
        reason="x",
        suggested_order=0,
        diverged=True,
        epochs=(
            EpochRecord(**values, device_seconds=2.0, order=1, decision="continue"),
            EpochRecord(**values | DIVERGED, device_seconds=4.0, order=2, decision="stop"),
        ),
    )


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

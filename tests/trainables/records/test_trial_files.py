"""A trial's files: attempts do not overwrite each other, and damage is always detected."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.config import TrialConfig
from tests.built_values import record_of
from tests.trainables.training.test_checkpoint import METRICS, make_checkpoint
from trainables.damaged_files import DamagedFileError
from trainables.records.record import RECORD, RECORD_COPY, TrialState
from trainables.records.trial_files import CHECKPOINTS, RESULTS, LostTrialError, TrialFiles
from trainables.storage.store import Store
from trainables.training.checkpoint import Checkpoint
from trainables.training.predictions import Predictions


def write_record(store: Store, *, attempts: int = 1, state: TrialState = TrialState.RUNNING) -> None:
    config = TrialConfig(arm="a", seed=0, hyperparameters={}, fixed={})
    record = record_of(config, state=state, attempts=attempts)
    store.write_text(RECORD, record.to_json())
    store.write_text(RECORD_COPY, record.to_json())


def at_step(num_steps: int) -> Checkpoint:
    return replace(make_checkpoint(), num_steps=num_steps)


@pytest.fixture
def files(tmp_path: Path) -> TrialFiles:
    files = TrialFiles(Store(tmp_path))
    write_record(files.store)
    return files


def test_the_last_two_checkpoints_are_kept_and_the_latest_is_read(files: TrialFiles) -> None:
    assert files.read_checkpoint() == (None, ())
    for step in (7, 14, 21):
        files.write_checkpoint(at_step(step), 1)
    assert files.store.list_folder(CHECKPOINTS) == ("000000014-0001.safetensors", "000000021-0001.safetensors")
    checkpoint, problems = files.read_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.num_steps, problems) == (21, ())


def test_last_finite_checkpoint_has_finite_weights_after_a_finite_epoch(files: TrialFiles) -> None:
    assert files.read_finite_checkpoint() is None
    files.write_checkpoint(replace(at_step(7), history=(METRICS,)), 1)
    files.write_checkpoint(at_step(14), 1)  # its last epoch diverged
    found = files.read_finite_checkpoint()
    assert found is not None
    assert found.num_steps == 7
    spoilt = {"fc.weight": torch.tensor([1.0, torch.nan])}
    files.write_checkpoint(replace(at_step(21), history=(METRICS,), model_state=spoilt), 1)
    assert files.read_finite_checkpoint() is None


def test_two_attempts_never_write_the_same_file(files: TrialFiles) -> None:
    files.write_checkpoint(at_step(7), 1)
    before = files.store.read_bytes(f"{CHECKPOINTS}/000000007-0001.safetensors")
    write_record(files.store, attempts=2)
    with pytest.raises(LostTrialError, match="attempt 1 of trial 00000 is over: the study is at attempt 2"):
        files.write_checkpoint(at_step(14), 1)
    files.write_checkpoint(at_step(7), files.read_num_attempts())
    assert files.store.list_folder(CHECKPOINTS) == ("000000007-0001.safetensors", "000000007-0002.safetensors")
    assert files.store.read_bytes(f"{CHECKPOINTS}/000000007-0001.safetensors") == before


def test_trial_that_has_ended_accepts_no_more_files(files: TrialFiles) -> None:
    write_record(files.store, state=TrialState.PRUNED)
    with pytest.raises(LostTrialError, match="PRUNED"):
        files.check_attempt(1)


def test_an_attempt_that_is_over_changes_no_result(files: TrialFiles) -> None:
    """A process that was taken for lost predicts on while the next attempt finishes the trial."""
    digests = files.write_predictions(predictions_of(1.0), 2) | files.write_weights({"fc.bias": torch.ones(2)}, 2)
    late = files.write_predictions(predictions_of(1.0000001), 1) | files.write_weights({"fc.bias": torch.zeros(2)}, 1)
    assert files.read_predictions("search", digests).logits[0, 0] == 1.0
    files.read_weights(digests)
    files.delete_lost_results(digests)
    assert all(files.store.exists(path) for path in digests)
    assert not any(files.store.exists(path) for path in late)
    files.delete_weights(digests)
    assert list(files.without_weights(digests)) == [f"{RESULTS}/{path}" for path in files.store.list_states(RESULTS)]


def predictions_of(logit: float) -> Predictions:
    ids = np.arange(4)
    logits = np.full((4, 2), logit, dtype=np.float32)
    return Predictions(sample_ids=ids, labels=ids % 2, logits=logits, split="search")


def test_token_is_read_from_the_copy_where_the_record_is_damaged(files: TrialFiles) -> None:
    write_record(files.store, attempts=5)
    files.store.write_text(RECORD, "{")
    assert files.read_num_attempts() == 5


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_damaged_checkpoint_is_skipped_and_named(files: TrialFiles, damage: bytes | None) -> None:
    files.write_checkpoint(at_step(7), 1)
    files.write_checkpoint(at_step(14), 1)
    newest = f"{CHECKPOINTS}/000000014-0001.safetensors"
    whole = files.store.read_bytes(newest)
    files.store.write_bytes(newest, whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    checkpoint, problems = files.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.num_steps == 7
    assert len(problems) == 1
    assert newest in problems[0]
    assert problems[0].endswith("the trial continued from an earlier state")


def test_without_an_intact_checkpoint_the_trial_starts_over_with_a_message(files: TrialFiles) -> None:
    files.write_checkpoint(at_step(7), 1)
    files.store.write_bytes(f"{CHECKPOINTS}/000000007-0001.safetensors", b"")
    checkpoint, problems = files.read_checkpoint()
    assert checkpoint is None
    assert len(problems) == 1


def test_files_that_do_not_match_the_record_are_refused_by_name(files: TrialFiles) -> None:
    predictions = Predictions(
        sample_ids=np.arange(3), labels=np.zeros(3, dtype=np.int64), logits=np.ones((3, 2), np.float32), split="test"
    )
    model = nn.Linear(2, 2)
    digests = files.write_predictions(predictions, 1) | files.write_weights(model.state_dict(), 1)
    assert np.array_equal(files.read_predictions("test", digests).logits, predictions.logits)
    assert torch.equal(files.load_weights(nn.Linear(2, 2), digests).weight, model.weight)  # type: ignore[arg-type]
    other = Predictions(sample_ids=np.arange(3), labels=predictions.labels, logits=predictions.logits * 2, split="test")
    files.write_predictions(other, 1)
    files.write_weights(nn.Linear(2, 2).state_dict(), 1)
    with pytest.raises(DamagedFileError, match=r"best/0001/test\.npz is damaged: its digest is not the one"):
        files.read_predictions("test", digests)
    with pytest.raises(DamagedFileError, match=r"best/0001/weights\.safetensors is damaged: its digest is not the one"):
        files.load_weights(nn.Linear(2, 2), digests)
    with pytest.raises(DamagedFileError, match=r"record\.json names no search\.npz"):
        files.read_predictions("search", digests)
    files.store.delete("best/0001/test.npz")
    with pytest.raises(DamagedFileError, match=r"best/0001/test\.npz is missing"):
        files.read_predictions("test", digests)

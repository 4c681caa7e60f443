"""Checkpoints survive serialization, and any change to them is refused."""

import hashlib
import json
import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save

from tests.built_values import metrics_of
from trainables.damaged_files import DamagedFileError
from trainables.training.checkpoint import Checkpoint
from trainables.training.epoch_metrics import EpochMetrics

# The values of the first release, whose bytes are known.
MEASURED: dict[str, Any] = {"backbone_lr": 1e-7, "train_seconds": 1.5, "peak_memory_bytes": 123_456_789}
METRICS = metrics_of(1, 0.7, train_loss=0.1 + 0.2, search_loss=1 / 3, per_class_f1=(0.6, 0.8), **MEASURED)
LOSSES = {"train_loss": math.inf, "search_loss": math.nan}
DIVERGED = metrics_of(2, math.nan, per_class_f1=(math.nan, 0.5), **LOSSES, **MEASURED)


def make_checkpoint() -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 5, 5, generator=generator)
    return Checkpoint(
        fingerprint="0123456789abcdef",
        epoch=2,
        model_state={
            "conv1.weight": weight.contiguous(memory_format=torch.channels_last),
            "bn1.num_batches_tracked": torch.tensor(7),
            "half": weight.half(),
            "empty": torch.zeros(0, 3),
        },
        optimizer_state={"conv1.weight": -weight},
        num_steps=14,
        learning_rates=(0.1 + 0.2, 1e-9),
        history=(METRICS, DIVERGED),
    )


@pytest.fixture(scope="module")
def blob() -> bytes:
    return make_checkpoint().to_bytes()


def assert_equal(first: Checkpoint, second: Checkpoint) -> None:
    for name in ("fingerprint", "epoch", "num_steps", "learning_rates"):
        assert getattr(first, name) == getattr(second, name)
    assert first.history == second.history
    for name in ("model_state", "optimizer_state"):
        tensors, others = getattr(first, name), getattr(second, name)
        assert sorted(tensors) == sorted(others)
        for key, tensor in tensors.items():
            assert tensor.dtype == others[key].dtype
            assert torch.equal(tensor, others[key])


def test_serialization_preserves_everything(blob: bytes) -> None:
    assert_equal(make_checkpoint(), Checkpoint.from_bytes(blob))
    assert_equal(make_checkpoint(), Checkpoint.from_bytes(Checkpoint.from_bytes(blob).to_bytes()))


def test_equal_checkpoints_are_equal_bytes(blob: bytes) -> None:
    for _ in range(10):
        assert Checkpoint.from_bytes(blob).to_bytes() == make_checkpoint().to_bytes()


def test_any_changed_byte_is_detected(blob: bytes) -> None:
    """A flipped bit is refused or changes nothing."""
    original = make_checkpoint()
    for position in range(0, len(blob), 3):
        changed = bytearray(blob)
        changed[position] ^= 1
        try:
            read = Checkpoint.from_bytes(bytes(changed))
        except DamagedFileError:
            continue
        assert_equal(original, read)


def test_truncated_extended_and_foreign_files_are_refused(blob: bytes) -> None:
    foreign = [
        b"",
        b"\0" * 8,
        b"garbage",
        bytes(range(256)) * 10,
        pickle.dumps({"model": 1}),
        save({"weight": torch.zeros(3)}),
        save({"weight": torch.zeros(3)}, metadata={"abstudy_checkpoint": "0 {}"}),
        blob + b"x",
        (10).to_bytes(8, "little") + b'["a", 1]  ',
    ]
    for data in [*foreign, *(blob[:length] for length in range(0, len(blob), 97))]:
        with pytest.raises(DamagedFileError, match="the file x is damaged"):
            Checkpoint.from_bytes(data, where="the file x")


def test_a_pickle_is_never_opened(monkeypatch: pytest.MonkeyPatch, blob: bytes) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read or written")

    for module in (pickle, torch):
        for function in ("load", "save", "loads", "dumps"):
            if hasattr(module, function):
                monkeypatch.setattr(module, function, refuse)
    assert Checkpoint.from_bytes(blob).to_bytes()


def test_metrics_survive_strict_json_and_numbers_that_are_not_finite_become_null() -> None:
    for metrics in (METRICS, DIVERGED):
        assert EpochMetrics.model_validate_json(metrics.model_dump_json()) == metrics
        json.dumps(metrics.model_dump(mode="json"), allow_nan=False)
    assert METRICS.is_finite
    assert not DIVERGED.is_finite
    assert (DIVERGED.train_loss, DIVERGED.search_loss, DIVERGED.macro_f1) == (None, None, None)
    assert DIVERGED.per_class_f1 == (None, 0.5)
    with pytest.raises(ValidationError, match="unknown"):
        EpochMetrics.model_validate({**dict(METRICS), "unknown": 1})


def test_checkpoint_of_the_first_release_has_the_same_bytes() -> None:
    """The digest is that of the first release's code."""
    values = {**dict(METRICS), "epoch": 2, "train_loss": None, "search_loss": None, "macro_f1": None}
    diverged = EpochMetrics.model_validate({**values, "per_class_f1": (None, None)})
    data = replace(make_checkpoint(), history=(METRICS, diverged)).to_bytes()
    assert hashlib.sha256(data).hexdigest() == "d148b88e6e83e969b045ce768c3e331c7840272ef15b4f3e7143efc01b124dc7"

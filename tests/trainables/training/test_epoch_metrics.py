"""The stopwatch adds up parts, and measures nothing if disabled."""

import time

import pytest
import torch

from trainables.training.epoch_metrics import PARTS, Stopwatch

CPU = torch.device("cpu")


def test_parts_add_up_and_are_reset() -> None:
    watch = Stopwatch(CPU, enabled=True)
    for _ in range(2):
        with watch.part("forward"):
            time.sleep(0.02)
    watch.add("idle", 1.5)
    taken = watch.take()
    assert set(taken) == {"forward", "idle"} <= set(PARTS)
    assert 0.04 <= taken["forward"] < 0.5
    assert taken["idle"] == 1.5
    assert watch.take() == {}


def test_a_part_that_raises_counts_too() -> None:
    watch = Stopwatch(CPU, enabled=True)
    with pytest.raises(KeyError), watch.part("data"):
        raise KeyError
    assert watch.take()["data"] >= 0


def test_disabled_it_measures_nothing() -> None:
    watch = Stopwatch(CPU, enabled=False)
    with watch.part("forward"):
        pass
    watch.add("idle", 1.0)
    assert watch.take() == {}

"""What a trial is expected to cost: by a line through two measurements on a GPU, by the proportion on a CPU."""

from typing import Any

import pytest
import torch

from tests.built_values import metrics_of
from tests.trainables.training.test_loop import DATA, change
from trainables.training import trial_cost
from trainables.training.trial_cost import extrapolate, measure_trial_cost


@pytest.mark.parametrize(
    ("before", "earlier", "expected"),
    [
        (0, 0.0, 20.0),  # one measurement: ten times as many images
        (100, 0.2, 20.0),  # twice as long for ten times as many images each
        (100, 1.1, 11.0),  # a second before the first image, and a millisecond for each
        (100, 2.5, 20.0),  # the longer one was faster
        (100, 0.1, 20.0),  # begins below 0
        (1000, 2.0, 20.0),  # no more images than before
    ],
)
def test_a_line_through_two_measurements_or_the_proportion(before: int, earlier: float, expected: float) -> None:
    assert extrapolate(10_000, (1000, 2.0), (before, earlier)) == pytest.approx(expected)


@pytest.mark.parametrize(("device", "num_measured"), [("cpu", 1), ("cuda", 2)])
def test_a_gpu_is_measured_over_about_a_second(device: str, num_measured: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of this trial starts in 0.25 s, and its batch of one image takes 0.01 s."""
    sizes: list[tuple[int, int]] = []

    def measure(_: object, data: Any, *__: object) -> tuple[float, Any]:
        sizes.append((len(data.splits.train), len(data.splits.search)))
        seconds = {"train_seconds": 0.25 + 0.01 * sizes[-1][0], "evaluate_seconds": 0.001 * sizes[-1][1]}
        return 3.0, metrics_of(1, 0.5, **seconds)

    monkeypatch.setattr(trial_cost, "_measure_epoch", measure)
    config, splits = change(batch_size=1), DATA.splits
    cost = measure_trial_cost(config, DATA, device=torch.device(device), weights=None)
    assert sizes == [(3, 3), (11, 11)][:num_measured]
    assert cost.setup_seconds == 3.0
    exact = 0.25 + 0.01 * len(splits.train) + 0.001 * len(splits.search)
    assert (cost.epoch_seconds == pytest.approx(exact)) == (num_measured == 2)
    assert cost.epoch_seconds > 3 * exact or num_measured == 2

"""A trial that does not fit into the memory of its GPU says what would."""

import pytest
import torch

from search_spaces.config import TrialConfig, Value
from tests.trainables.training.test_loop import CONFIG
from trainables.devices import DeviceMemoryError, describe_shortage, explaining_device_memory


def change(**fixed: Value) -> TrialConfig:
    return TrialConfig(arm=CONFIG.arm, seed=1, hyperparameters=CONFIG.hyperparameters, fixed={**CONFIG.fixed, **fixed})


@pytest.mark.parametrize(
    ("num_gpus", "batch_size", "advice"),
    [
        (0.5, 128, "do not fit into 0.5 of a GPU of 16.0 GB; alone on a GPU they may: raise resources.gpu"),
        (1.0, 128, "do not fit into a GPU of 16.0 GB; batches of half the size take about half of the memory: "
         "train.batch_size = 64 with train.accumulate = 6 has the same steps"),
        (2.0, 1, "do not fit into a GPU of 16.0 GB; lower train.image_size, or use GPUs with more memory"),
    ],
)  # fmt: skip
def test_the_message_says_what_would_fit(num_gpus: float, batch_size: int, advice: str) -> None:
    text = describe_shortage(change(batch_size=batch_size, accumulate=3, image_size=224), num_gpus, 16_000_000_000)
    assert text.startswith(f"batches of {batch_size} at 224 px ")
    assert advice in text


def test_the_advice_is_one_that_the_spec_takes() -> None:
    graphs = change(compile="cuda_graphs")
    assert 'train.accumulate = 2 and train.compile = "none"' in describe_shortage(graphs, 1.0, 10**9)
    for small in (change(batch_size=3), change(batch_size=6, processes=2)):
        assert "train.batch_size" not in describe_shortage(small, 1.0, 10**9)
        assert "lower train.image_size" in describe_shortage(small, 1.0, 10**9)


def test_other_errors_pass() -> None:
    cpu = torch.device("cpu")
    words = r"batches of 16 at 16 px .* \(CUDA out of memory\. Tried to allocate"
    with pytest.raises(DeviceMemoryError, match=words), explaining_device_memory(CONFIG, cpu, 1.0):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")
    with pytest.raises(ValueError, match="another"), explaining_device_memory(CONFIG, cpu, 1.0):
        raise ValueError("another")

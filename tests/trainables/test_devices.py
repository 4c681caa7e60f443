"""Devices: a trial that holds a GPU uses it or fails; there is no silent fallback."""

import pytest
import torch

from search_spaces.errors import UserInputError
from trainables.devices import choose_device, device_name


def test_cpu_is_used_without_a_gpu_or_on_request() -> None:
    assert choose_device("auto", 0) == torch.device("cpu")
    assert choose_device("cpu", 1) == torch.device("cpu")
    assert device_name(torch.device("cpu")) == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a CUDA device here")
@pytest.mark.parametrize(("device", "num_gpus"), [("auto", 1), ("auto", 0.5), ("cuda", 0), ("cuda", 1)])
def test_gpu_that_torch_cannot_use_is_an_error(device: str, num_gpus: float) -> None:
    with pytest.raises(UserInputError, match="torch finds no CUDA device"):
        choose_device(device, num_gpus)


@pytest.mark.gpu
def test_held_gpu_is_used() -> None:
    assert choose_device("auto", 1).type == "cuda"
    assert device_name(torch.device("cuda")) != "cuda"

"""Devices: a trial that holds a GPU uses it or fails; there is no silent fallback."""

from pathlib import Path

import pytest
import torch

from search_spaces.errors import UserInputError
from trainables.devices import choose_device, describe_libraries, device_name, read_driver_version


def test_cpu_is_used_without_a_gpu_or_on_request() -> None:
    assert choose_device("auto", 0) == torch.device("cpu")
    assert choose_device("cpu", 1) == torch.device("cpu")
    assert device_name(torch.device("cpu")) == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a CUDA device here")
@pytest.mark.parametrize(("device", "num_gpus"), [("auto", 1), ("auto", 0.5), ("cuda", 0), ("cuda", 1)])
def test_gpu_that_torch_cannot_use_is_an_error(device: str, num_gpus: float) -> None:
    with pytest.raises(UserInputError, match="torch finds no CUDA device"):
        choose_device(device, num_gpus)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U22)",
            "570.86.15",
        ),
        ("nothing", "unknown"),
    ],
)
def test_the_libraries_of_a_trial_on_a_gpu_name_driver_and_capability(
    text: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version").write_text(text)
    assert read_driver_version(tmp_path / "version") == version
    assert read_driver_version(tmp_path / "missing") == "unknown"
    monkeypatch.setattr("trainables.devices.read_driver_version", lambda: version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert describe_libraries(torch.device("cuda")).endswith(f", driver {version}, compute capability 9.0")
    assert describe_libraries(torch.device("cpu")) == f"torch {torch.__version__}"


@pytest.mark.gpu
def test_held_gpu_is_used() -> None:
    assert choose_device("auto", 1).type == "cuda"
    assert device_name(torch.device("cuda")) != "cuda"

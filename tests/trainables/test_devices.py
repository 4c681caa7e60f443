"""Devices: a trial that holds a GPU uses it or fails; there is no silent fallback."""

from pathlib import Path

import pytest
import torch

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from tests.trainables.training.test_loop import CONFIG
from trainables.devices import (
    CONTEXT_BYTES,
    DeviceMemoryError,
    choose_device,
    compute_memory_fraction,
    describe_libraries,
    describe_shortage,
    device_name,
    explaining_device_memory,
    is_out_of_memory,
    read_driver_version,
)


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
    for other in (ValueError("another"), RuntimeError("CUDA error: an illegal memory access was encountered")):
        with pytest.raises(type(other), match=str(other)), explaining_device_memory(CONFIG, cpu, 1.0):
            raise other


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call.",
        "CUDA driver error: out of memory",
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "NCCL error in: ncclUtils.cpp:77, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
        "process 1 of the trial ended with status 1\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_every_library_says_it_in_words_of_its_own(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    with pytest.raises(DeviceMemoryError) as caught, explaining_device_memory(CONFIG, torch.device("cpu"), 0.5):
        raise RuntimeError(words)
    assert "alone on a GPU they may: raise resources.gpu" in str(caught.value)
    assert any(line and line in str(caught.value) for line in words.splitlines())
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_too_full_to_be_asked_is_described_without_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    words = "do not fit into 0.5 of the GPU; alone"
    with pytest.raises(DeviceMemoryError, match=words), explaining_device_memory(CONFIG, torch.device("cuda"), 0.5):
        refuse(None)


@pytest.mark.parametrize("shares", [(0.25,) * 4, (0.5,) * 2, (0.3,) * 3, (0.6, 0.2, 0.2), (0.5, 0.25, 0.25)])
@pytest.mark.parametrize("total", [8e9, 24e9, 80e9])
def test_processes_that_share_a_gpu_fit_with_their_contexts(shares: tuple[float, ...], total: float) -> None:
    taken = sum(compute_memory_fraction(share, int(total)) * total + CONTEXT_BYTES for share in shares)
    assert taken <= total * (1 + 1e-9)
    assert taken == pytest.approx(total * sum(shares))


def test_a_whole_gpu_has_no_limit_and_a_share_without_room_is_refused() -> None:
    assert [compute_memory_fraction(held, 80_000_000_000) for held in (0.0, 1.0, 2.0)] == [1.0] * 3
    with pytest.raises(
        UserInputError, match=r"resources.gpu = 0.05 of a GPU of 8.0 GB is less than the 0.6 GB .* raise"
    ):
        compute_memory_fraction(0.05, 8_000_000_000)

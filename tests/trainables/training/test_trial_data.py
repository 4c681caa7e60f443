"""Images that stay where they are from trial to trial, and how much of a GPU's memory counts as free; GPUs are imitated."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.cuda._utils import _get_device_index

from trainables.devices import CONTEXT_BYTES
from trainables.training import trial_data
from trainables.training.trial_data import (
    ResidentImages,
    copy_ahead,
    describe_place,
    find_free_memory,
    gather_images,
    limit_memory,
    place_images,
    read_batches,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the memory of an imitated GPU, which can be changed."""
    found = SimpleNamespace(free=2 * GIB, total=8 * GIB, reserved=0, allocated=0, fractions=[])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (found.free, found.total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: found.reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: found.allocated)

    def limit(share: float, device: torch.device | int | None = None) -> None:
        if device is not None:
            _get_device_index(device)  # As torch does, which refuses a device without an index.
        found.fractions.append(share)

    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limit)
    return found


def test_what_the_allocator_keeps_is_free_and_a_share_of_a_gpu_is_a_limit(memory: SimpleNamespace) -> None:
    assert find_free_memory(CUDA) == 2 * GIB
    memory.reserved, memory.allocated = 3 * GIB, 1 * GIB
    assert find_free_memory(CUDA) == 4 * GIB, "two free, and two that the allocator keeps"
    assert find_free_memory(CUDA, num_gpus=0.5) == pytest.approx(3 * GIB - CONTEXT_BYTES), (
        "half of eight, one of which is in use"
    )
    assert find_free_memory(CUDA, num_gpus=0.9) == 4 * GIB


def test_trials_that_share_a_gpu_are_kept_within_their_share(memory: SimpleNamespace) -> None:
    for num_gpus in (0.25, 1.0, 2.0, 0.0):
        limit_memory(CUDA, num_gpus)
    limit_memory(torch.device("cuda", 1), 0.5)
    limit_memory(CPU, 0.5)
    context = CONTEXT_BYTES / (8 * GIB)
    assert memory.fractions == pytest.approx([0.25 - context, 1.0, 1.0, 1.0, 0.5 - context])


def test_images_that_do_not_fit_stay_on_the_host(memory: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    copied: list[torch.device] = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **_: copied.append(device) or tensor)
    memory.free = 4 * images.nbytes
    place_images(images, CUDA)
    assert copied == [CUDA]
    memory.free -= 1
    place_images(images, CUDA)
    assert copied == [CUDA]


def test_the_images_of_a_process_are_placed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[int] = []

    def place(images: np.ndarray, device: torch.device, num_gpus: float) -> torch.Tensor:
        placed.append(id(images))
        return place_images(images, device, num_gpus)

    monkeypatch.setattr(trial_data, "place_images", place)
    first, second = (np.full((2, 4, 4, 3), value, dtype=np.uint8) for value in (1, 2))
    resident = ResidentImages()
    tensor = resident.place(first, CPU)
    assert tensor.data_ptr() == first.ctypes.data
    assert resident.place(first, CPU) is tensor
    assert resident.place(second, CPU).data_ptr() == second.ctypes.data
    resident.place(first, CPU)
    assert placed == [id(first), id(second), id(first)]


def test_the_place_is_named_for_a_gpu_alone() -> None:
    images = torch.zeros((2, 4, 4, 3), dtype=torch.uint8)
    assert describe_place(images, CPU) == ""
    assert describe_place(images, CUDA) == "host"
    assert describe_place(torch.empty((1,), device="meta"), torch.device("meta")) == "device"
    assert gather_images(images, torch.tensor([1]), CPU).shape == (1, 4, 4, 3)


def test_batches_are_copied_ahead_in_their_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    batches = torch.split(torch.randperm(40, generator=torch.Generator().manual_seed(0)), 7)
    gathered: list[int] = []
    whole = torch.index_select

    def note(*arguments: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        gathered.append(len(gathered))
        return whole(*arguments, out=out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "index_select", note)
        found = copy_ahead(torch.from_numpy(images), batches, CPU)
        assert np.array_equal(next(found).numpy(), images[batches[0].numpy()])
        found.close()  # type: ignore[attr-defined]
        assert len(gathered) <= 1 + trial_data.NUM_AHEAD, "an epoch that is left early gathers no more"
        for batch, pixels in zip(batches, copy_ahead(torch.from_numpy(images), batches, CPU), strict=True):
            assert np.array_equal(pixels.numpy(), images[batch.numpy()])
    assert list(copy_ahead(torch.from_numpy(images), (), CPU)) == []
    with pytest.raises(IndexError):
        list(copy_ahead(torch.from_numpy(images), [torch.tensor([40])], CPU))


@pytest.mark.gpu
def test_images_reach_a_gpu_from_its_memory_and_from_the_host_alike() -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    chosen, host = torch.tensor([5, 0, 63]), torch.from_numpy(images)
    placed = place_images(images, CUDA)
    assert describe_place(placed, CUDA) == "device"
    for where in (placed, host):
        assert np.array_equal(gather_images(where, chosen, CUDA).cpu().numpy(), images[chosen.numpy()])
        batches = [chosen, chosen + 0, chosen[:1]] * 20
        for batch, pixels in zip(batches, read_batches(where, batches, CUDA), strict=True):
            assert np.array_equal(pixels.cpu().numpy(), images[batch.numpy()])
    assert 0 < find_free_memory(CUDA, 0.5) <= find_free_memory(CUDA)

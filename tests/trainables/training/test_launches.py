"""What a batch costs a GPU in launches of kernels and in copies that wait for it, counted on tensors without data."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from search_spaces.settings import PRESETS, resolve_preset
from tests.trainables.data.augmentation.changed_settings import change
from tests.trainables.data.augmentation.test_added_augmentations import ADDITIONS
from tests.trainables.data.augmentation.test_pipeline import EVERYTHING
from trainables.data.augmentation import pipeline
from trainables.data.augmentation.pipeline import AugmentationSettings
from trainables.training.steps import WeightAverage

META = "meta"
MOST_LAUNCHES = 150
BATCH, SIZE, STORED_SIZE = 128, 64, 80
# Operations that make another view of the same memory, or memory without content.
WITHOUT_LAUNCH = {
    *(
        "view",
        "_unsafe_view",
        "_reshape_alias",
        "permute",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "t",
        "transpose",
    ),
    *("detach", "alias", "split", "split_with_sizes", "unbind", "as_strided", "lift_fresh", "unfold"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
}
WAITING = frozenset(["item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"])
# Swapping rings looks at the batch, to leave out what only padded images need; no preset swaps rings.
LOOKS_AT_ITS_BATCH = "ring_swap_probability"
PRESET_SETTINGS: dict[str, dict[str, Any]] = {
    **{name: resolve_preset(name, SIZE) for name in PRESETS},
    **{name: {name: value} for name, value in ADDITIONS.items() if name != LOOKS_AT_ITS_BATCH},
    "random crops": {"crop_min_area": 0.35},
    "all": {k: v for k, v in ADDITIONS.items() if k != LOOKS_AT_ITS_BATCH} | {"crop_min_area": 0.35},
}


class _Waits(TorchFunctionMode):
    """Counts calls after which the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        result = func(*args, **kwargs)
        on_device = isinstance(result, Tensor) and result.device.type == META
        if name in ("tensor", "as_tensor", "from_numpy") and on_device:
            self.found.append(name)
        came = args and isinstance(args[0], Tensor)
        if name == "to" and came and args[0].device.type == "cpu" and on_device and not kwargs.get("non_blocking"):
            self.found.append("to")
        if name in WAITING and came and args[0].device.type == META:
            self.found.append(name)
        return result


class _Launches(TorchDispatchMode):
    """Counts operations that launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), func._schema.name.partition("::")[2]
        leaves = torch.utils._pytree.tree_leaves((result, args))
        if name not in WITHOUT_LAUNCH and any(isinstance(t, Tensor) and t.device.type == META for t in leaves):
            self.found[name] += 1
        return result


@contextmanager
def counting() -> Iterator[tuple[Counter[str], list[str]]]:
    """Count what the context launches on the device without data, and what waits for it."""
    with _Launches() as launches, _Waits() as waits:
        yield launches.found, waits.found


def without_generator(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function of random numbers that takes a generator of the CPU for the device without data, too."""

    def drawn(*sizes: Any, generator: Any = None, device: Any = None, **options: Any) -> Tensor:
        if device is not None:
            return draw(*sizes, device=device, **options)
        return draw(*sizes, generator=generator, **options)

    return drawn


@pytest.mark.parametrize("name", PRESET_SETTINGS)
def test_augmentation_waits_for_nothing_and_a_preset_launches_few_kernels(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for draw in ("rand", "randperm"):
        monkeypatch.setattr(torch, draw, without_generator(getattr(torch, draw)))
    monkeypatch.setattr(pipeline, "seed_of_state", lambda _: 123)
    settings = change(EVERYTHING, image_size=SIZE, **PRESET_SETTINGS[name])

    def augment(settings: AugmentationSettings) -> None:
        images = torch.empty(BATCH, STORED_SIZE, STORED_SIZE, 3, dtype=torch.uint8, device=META)
        labels = torch.empty(BATCH, dtype=torch.int64, device=META)
        pipeline.augment_batch(images, labels, generator=torch.Generator(), settings=settings, num_classes=10)

    augment(settings)  # constants are copied once
    with counting() as (launches, waits):
        augment(settings)
    assert waits == []
    if name in PRESETS:
        assert 10 < sum(launches.values()) <= MOST_LAUNCHES, launches.most_common(12)


def test_a_counter_counts_what_waits_and_what_launches() -> None:
    """Otherwise the test above would hold for anything."""
    with counting() as (launches, waits):
        tensor = torch.tensor([1.0], device=META)
        tensor.add(1).view(1)
        torch.ones(1).to(META)
        torch.ones(1).to(META, non_blocking=True)
        with pytest.raises(Exception, match="meta"):
            tensor.item()
    assert waits == ["tensor", "to"]
    assert launches["add"] == 1
    assert launches["_to_copy"] == 2


def test_the_weight_average_takes_a_handful_of_launches() -> None:
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)) for _ in range(50)]
    average = WeightAverage(nn.Sequential(*blocks).to(META), 0.99)
    average.update()
    with counting() as (launches, waits):
        average.update()
    assert waits == []
    assert launches == {"_foreach_lerp_": 1, "_foreach_copy_": 1}

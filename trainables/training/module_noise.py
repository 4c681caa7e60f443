"""Random numbers that modules draw while they train: dropout and stochastic depth use torch's global generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainables.seeds import derive_seed


@contextmanager
def seeded_modules(
    seed: int, epoch: int, device: torch.device, state: Tensor | None = None
) -> Iterator[torch.Generator]:
    """Seed the global generator of the device for an epoch; yield it, and restore its state at the end.

    Args:
        seed: Of the trial.
        epoch: Number of the epoch.
        device: That the modules compute on.
        state: To continue from in the middle of the epoch, from `torch.Generator.get_state`.
    """
    generator = _find_generator(device)
    before = generator.get_state()
    generator.manual_seed(derive_seed(seed, "modules", epoch))
    if state is not None:
        generator.set_state(state)
    try:
        yield generator
    finally:
        generator.set_state(before)


def _find_generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]

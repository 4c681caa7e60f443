"""One random generator per purpose, derived from a seed and the purpose's name, instead of global random state."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed derived from `seed` and the purpose's `names` by SHA-256."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return NumPy's default generator for the purpose `names` under `seed`."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator on `device` for the purpose `names` under `seed`."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, *names))
    return generator


def seed_of_state(generator: torch.Generator) -> int:
    """Return a 63-bit seed derived from the present state of `generator`, which draws nothing and does not wait for its device.

    What is drawn under it leaves the stream of `generator` as it is, and continues where a restored state continues.
    """
    digest = hashlib.sha256(generator.get_state().numpy().tobytes()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

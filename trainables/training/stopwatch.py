"""Profile of an epoch: seconds by part."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# In their order within an epoch. "start" builds model and optimizer, in a trial's first epoch; "idle" is the time between a
# report and the next step.
PARTS = ("start", "data", "augment", "forward", "backward", "optimizer", "evaluate", "checkpoint", "report", "idle")


class Stopwatch:
    """Adds up wall seconds by part, if enabled.

    On a CUDA device it synchronizes at both ends of a part, so that seconds are attributed to the part that spends them.
    This slows training down, so it is disabled by default.
    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled
        self._device = device
        self._seconds: dict[str, float] = {}

    def part(self, name: str) -> AbstractContextManager[None]:
        """Return a context whose duration is added to the part `name`, one of `PARTS`."""
        return self._measure(name) if self.enabled else contextlib.nullcontext()

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        if self.enabled:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Return the seconds by part since the last call, and reset them; empty if disabled."""
        taken, self._seconds = self._seconds, {}
        return taken

    @contextlib.contextmanager
    def _measure(self, name: str) -> Iterator[None]:
        self._wait()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.add(name, time.perf_counter() - started)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)

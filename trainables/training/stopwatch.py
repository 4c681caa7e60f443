"""Where an epoch's time goes: seconds by part, measured only where it is asked for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# In the order in which an epoch goes through them. "start" builds model and optimizer, in a trial's first epoch; "idle" is the
# time in which the trial waits to be told to go on.
PARTS = ("start", "data", "augment", "forward", "backward", "optimizer", "evaluate", "checkpoint", "report", "idle")


class Stopwatch:
    """Adds up wall seconds by part.

    On a CUDA device it waits for the device at both ends of a part, so that the seconds fall where they are spent; this costs
    some speed, which is why it is off unless asked for. Switched off it measures nothing.
    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled
        self._device = device
        self._seconds: dict[str, float] = {}

    def part(self, name: str) -> AbstractContextManager[None]:
        """Return the context whose time counts as `name`, one of `PARTS`."""
        return self._measure(name) if self.enabled else contextlib.nullcontext()

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        if self.enabled:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Return the seconds by part since the last call, and start anew; empty where switched off."""
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

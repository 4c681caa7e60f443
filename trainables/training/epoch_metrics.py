"""`EpochMetrics`: the measurements of one epoch, in memory, in checkpoints and in records, with its profile by part."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

if TYPE_CHECKING:
    import torch

METRIC_TAG = "macro_f1/search"
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


def _null_if_not_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_null_if_not_finite)]


class EpochMetrics(BaseModel):
    """One epoch. A trial that diverges reports None for each number that is not finite; it raises no exception.

    Attributes:
        epoch: 1-based.
        train_loss: Mean over the epoch's batches of the loss that was minimized (weighted, smoothed, mixed).
        search_loss: Plain cross-entropy on the search split, in nats.
        macro_f1: On the search split, in [0, 1].
        per_class_f1: K values on the search split, in [0, 1].
        head_lr: Learning rate of the head in the epoch's last step.
        backbone_lr: Learning rate of the backbone in the epoch's last step; 0 if the backbone is frozen.
        train_seconds: Wall time of the epoch's steps.
        evaluate_seconds: Wall time of the evaluation on the search split.
        train_images_per_second: Images trained on / `train_seconds`.
        peak_memory_bytes: On a CUDA device the epoch's highest allocation; on a CPU the highest resident size of the
            process so far.
        part_seconds: Pairs of a part of the epoch (`trainables.training.epoch_metrics.PARTS`) and its seconds; empty unless
            profiling is on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    epoch: int
    train_loss: Number
    search_loss: Number
    macro_f1: Number
    per_class_f1: tuple[Number, ...]
    head_lr: float
    backbone_lr: float
    train_seconds: float
    evaluate_seconds: float
    train_images_per_second: float
    peak_memory_bytes: int
    part_seconds: tuple[tuple[str, float], ...] = ()

    @property
    def is_finite(self) -> bool:
        """Whether macro-F1 and both losses are finite numbers."""
        return None not in (self.train_loss, self.search_loss, self.macro_f1)

    @property
    def scalars(self) -> dict[str, float | None]:
        """What curves show of the epoch, by tag, without the classes; None for a number that was not finite."""
        return {
            METRIC_TAG: self.macro_f1,
            "loss/train": self.train_loss,
            "loss/search": self.search_loss,
            "learning_rate/head": self.head_lr,
            "learning_rate/backbone": self.backbone_lr,
            "speed/train_images_per_second": self.train_images_per_second,
        }

    @property
    def divergence(self) -> str:
        """Why the trial fails as diverged; "" if macro-F1 and the training loss are finite numbers."""
        not_finite = [name for name in ("macro_f1", "train_loss") if getattr(self, name) is None]
        return f"{not_finite[0]} was not a finite number at epoch {self.epoch}" if not_finite else ""

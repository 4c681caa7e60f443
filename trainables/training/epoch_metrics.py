"""`EpochMetrics`: what one epoch of one trial measured."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics:
    """One epoch. A trial that diverged reports NaN, never an exception.

    Attributes:
        epoch: 1-based.
        train_loss: mean over the epoch's batches of the loss that was minimised (weighted, smoothed, mixed).
        search_loss: plain cross-entropy on the search split, in nats.
        macro_f1: on the search split, in [0, 1].
        per_class_f1: K values on the search split, in [0, 1].
        head_lr: learning rate of the head in the epoch's last step.
        backbone_lr: the same of the backbone; 0 if it is frozen.
        train_seconds: wall time of the epoch's steps.
        evaluate_seconds: wall time of the evaluation on the search split.
        train_images_per_second: images trained on / `train_seconds`.
        peak_memory_bytes: on a CUDA device the epoch's highest allocation; on a CPU the highest resident size of the
            process so far.
        part_seconds: where the epoch's time went, by part (`trainables.training.stopwatch.PARTS`); empty unless it was asked for.
    """

    epoch: int
    train_loss: float
    search_loss: float
    macro_f1: float
    per_class_f1: tuple[float, ...]
    head_lr: float
    backbone_lr: float
    train_seconds: float
    evaluate_seconds: float
    train_images_per_second: float
    peak_memory_bytes: int
    part_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether training and evaluation gave finite numbers."""
        return all(map(math.isfinite, (self.train_loss, self.search_loss, self.macro_f1)))

    def to_dict(self) -> dict[str, Any]:
        """Return the strict JSON form: lists for the tuple and the mapping, None for a number that is not finite.

        The mapping is a list of pairs because Ray Tune flattens mappings inside of what a trial reports.
        """
        values = dataclasses.asdict(self)
        values["part_seconds"] = [[part, seconds] for part, seconds in self.part_seconds.items()]
        values["per_class_f1"] = [_number_or_none(value) for value in self.per_class_f1]
        return {name: _number_or_none(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EpochMetrics":
        """Rebuild from `to_dict`'s form, None becoming NaN; raise TypeError on missing or unknown keys."""
        numbers: dict[str, Any] = {k: math.nan if value is None else value for k, value in values.items()}
        per_class_f1 = tuple(math.nan if value is None else value for value in values["per_class_f1"])
        part_seconds = dict(values.get("part_seconds", ()))
        return cls(**{**numbers, "per_class_f1": per_class_f1, "part_seconds": part_seconds})


def _number_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""A ratio of the performance table: both sides in one run, in turn, with its goal; and how it is measured and told."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One row of the table.

    Attributes:
        number: "P2".
        what: both sides, in words.
        goal: the bound of the median.
        is_at_most: whether the bound is an upper one.
        values: one per repetition.
        note: what else there is to say, with its figures.
    """

    number: str
    what: str
    goal: float
    is_at_most: bool
    values: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """Of the repetitions."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        """Whether the median keeps to the goal."""
        return self.median <= self.goal if self.is_at_most else self.median >= self.goal

    def row(self) -> tuple[str, ...]:
        """Return the cells: number, what, goal, median, range, verdict, note."""
        bound = "<=" if self.is_at_most else ">="
        return (
            self.number,
            self.what,
            f"{bound} {self.goal:g}",
            f"{self.median:.3g}",
            f"{min(self.values):.3g} to {max(self.values):.3g}",
            "met" if self.is_met else "MISSED",
            self.note,
        )


def synchronise(device: torch.device) -> None:
    """Wait until the device has computed what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_seconds(run: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def take_turns(
    one: Callable[[], float], other: Callable[[], float], repeats: int = REPEATS
) -> list[tuple[float, float]]:
    """Return what both sides give, in turn, after one turn of each that does not count."""
    one(), other()
    return [(one(), other()) for _ in range(repeats)]


def describe_sides(names: tuple[str, str], pairs: Sequence[tuple[float, float]], unit: str) -> str:
    """Return both sides' medians, such as "this loop 959, reference 514 images/s"."""
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(names, medians, strict=True)) + f" {unit}"

"""A ratio of the performance table: both sides are measured in one run, in turn, and compared with a goal."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

REPEATS = 5
# Stands in place of a goal where there is none.
NOT_JUDGED = "—"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One row of the table.

    Attributes:
        number: "P2".
        name: both sides, in words.
        goal: bound of the median, such as ">= 1.8", or `NOT_JUDGED`.
        values: one per repetition.
        note: further figures.
        interval: at 95 %, of a ratio that is estimated from many random repetitions; it decides the verdict.
    """

    number: str
    name: str
    goal: str
    values: tuple[float, ...]
    note: str = ""
    interval: tuple[float, float] | None = None

    @property
    def median(self) -> float:
        """Of the repetitions."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """Whether the median meets the goal: "met" or "MISSED", or "open" if the interval holds values of both kinds.

        `NOT_JUDGED` without a goal.
        """
        if self.goal == NOT_JUDGED:
            return NOT_JUDGED
        relation, bound = self.goal.split()
        values = self.interval or (self.median,)
        reached = {value <= float(bound) if relation == "<=" else value >= float(bound) for value in values}
        return "open" if len(reached) == 2 else "met" if reached == {True} else "MISSED"

    def row(self) -> tuple[str, ...]:
        """Return the cells: number, name, goal, median, range or interval, verdict, note."""
        low, high = self.interval or (min(self.values), max(self.values))
        spread = f"[{low:.3g}, {high:.3g}]" if self.interval else f"{low:.3g} to {high:.3g}"
        return (self.number, self.name, self.goal, f"{self.median:.3g}", spread, self.verdict, self.note)


def compare_sides(
    number: str, name: str, goal: str, sides: dict[str, Callable[[], float]], unit: str, turns: int | None = None
) -> Ratio:
    """Return the ratio of the first side to the second, which take turns.

    Each side is a name and a function that measures once and returns a figure in `unit`. The note has both medians, such as
    "this loop 959, reference 514 images/s".
    """
    pairs = take_turns(*sides.values(), turns=turns)
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    note = ", ".join(f"{name} {median:.3g}" for name, median in zip(sides, medians, strict=True))
    return Ratio(number, name, goal, tuple(ours / theirs for ours, theirs in pairs), f"{note} {unit}")


def take_turns(
    one: Callable[[], float], other: Callable[[], float], turns: int | None = None
) -> list[tuple[float, float]]:
    """Return the figures of both sides, in turn, after one turn of each that does not count; `REPEATS` turns by default."""
    one(), other()
    return [(one(), other()) for _ in range(REPEATS if turns is None else turns)]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_seconds(run: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started

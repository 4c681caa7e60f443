"""Goals of simulated rates, judged by exact intervals that hold for all cells of a table together."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.validation.goals import Goal, Judgement, compute_exact_interval, judge_interval

ERROR_RATE = 0.05
LOWEST_COVERAGE, WIDE_COVERAGE = 0.93, 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A simulated rate, and the bounds within which it should lie.

    Attributes:
        name: what was counted.
        hits, count: the rate is hits / count.
        least, most: the goal; a bound of 0 or 1 bounds nothing.
        half_width_pp: mean half-width in percentage points of the intervals whose coverage this is; None for other rates. It is
            stated where the coverage exceeds .99, because intervals that cover so often may be too wide to be of use.
    """

    name: str
    hits: int
    count: int
    least: float = 0.0
    most: float = 1.0
    half_width_pp: float | None = None

    @classmethod
    def of_coverage(cls, name: str, hits: int, count: int, half_width_pp: float) -> "Rate":
        """Return the coverage of 95 % intervals, whose goal is at least .93."""
        return cls(name=name, hits=hits, count=count, least=LOWEST_COVERAGE, half_width_pp=half_width_pp)

    @property
    def rule(self) -> str:
        """The goal, such as "at most 0.05"."""
        if self.least > 0 and self.most < 1:
            return f"{self.least:g} to {self.most:g}"
        return f"at least {self.least:g}" if self.least > 0 else f"at most {self.most:g}"


@dataclass(slots=True)
class Goals:
    """The goals of a run, in the order in which they were judged."""

    judged: list[Goal] = field(default_factory=list)

    def judge(self, cells: Sequence[Rate]) -> list[Judgement]:
        """Return the judgement of each cell of a table, by its exact interval.

        The intervals hold for all cells together at 95 % (Bonferroni): of n cells, each has a confidence of 1 - .05 / n.
        """
        goals = [_judge(cell, len(cells)) for cell in cells]
        self.judged += goals
        return [goal.judgement for goal in goals]


def _judge(cell: Rate, num_cells: int) -> Goal:
    interval = compute_exact_interval(cell.hits, cell.count, 1 - ERROR_RATE / num_cells)
    measured = f"{cell.hits / cell.count:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"
    if num_cells > 1:
        measured += f", {num_cells} cells"
    if cell.half_width_pp is not None and cell.hits / cell.count > WIDE_COVERAGE:
        measured += f"; half-width {cell.half_width_pp:.1f} pp"
    judgement = judge_interval(interval, least=cell.least, most=cell.most)
    return Goal(name=cell.name, rule=cell.rule, measured=measured, judgement=judgement)

"""Goals of a validation, judged by exact intervals: met, missed or open."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean

from scipy import special
from scipy.stats import binomtest

from benchmarks.pages import Table

ERROR_RATE = 0.05
LOWEST_COVERAGE, WIDE_COVERAGE = 0.93, 0.99


class Judgement(StrEnum):
    """Whether a goal is met; open where the worlds are too few to tell."""

    MET = "met"
    MISSED = "missed"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal and what was measured.

    Attributes:
        name: what was counted, such as "null worlds in which a cue is named".
        rule: the goal, such as "at least 0.70".
        measured: as text.
        judgement: met, missed or open.
    """

    name: str
    rule: str
    measured: str
    judgement: Judgement


def at_least(name: str, number: int, total: int, share: float) -> Goal:
    """Return the goal that a share is at least `share`: met or missed where the exact interval lies on one side of it."""
    judgement = judge_interval(compute_exact_interval(number, total), least=share)
    return Goal(name=name, rule=f"at least {share:.2f}", measured=format_share(number, total), judgement=judgement)


def at_most(name: str, number: int, total: int, share: float) -> Goal:
    """Return the goal that a share is at most `share`: met or missed where the exact interval lies on one side of it."""
    judgement = judge_interval(compute_exact_interval(number, total), most=share)
    return Goal(name=name, rule=f"at most {share:.2f}", measured=format_share(number, total), judgement=judgement)


def between(name: str, number: int, total: int, least: float, most: float) -> Goal:
    """Return the goal that a share lies in [least, most]: met where the exact interval does, missed where it lies outside."""
    judgement = judge_interval(compute_exact_interval(number, total), least=least, most=most)
    return Goal(name=name, rule=f"{least:.2f} to {most:.2f}", measured=format_share(number, total), judgement=judgement)


def judge_interval(interval: tuple[float, float], *, least: float = 0.0, most: float = 1.0) -> Judgement:
    """Return "met" if an interval (low, high) lies within [least, most], "missed" if outside, else "open"."""
    low, high = interval
    if least <= low and high <= most:
        return Judgement.MET
    return Judgement.MISSED if high < least or low > most else Judgement.OPEN


def make_plain(name: str, rule: str, measured: str, is_met: bool) -> Goal:
    """Return a goal about something that is no share, and so has no exact interval."""
    return Goal(name=name, rule=rule, measured=measured, judgement=Judgement.MET if is_met else Judgement.MISSED)


def tabulate_goals(goals: Sequence[Goal]) -> Table:
    """Return one row per goal."""
    rows = [[goal.name, goal.rule, goal.measured, goal.judgement.value] for goal in goals]
    title = "Goals, judged by exact intervals at 95 %, all cells of a table together where their number is given"
    return Table(title, ["goal", "rule", "measured", "judgement"], rows)


def list_problems(goals: Sequence[Goal]) -> list[str]:
    """Return the missed goals as texts."""
    return [f"{g.name}: {g.measured}, goal {g.rule}" for g in goals if g.judgement is Judgement.MISSED]


def count_open(goals: Sequence[Goal]) -> str:
    """Return the number of open goals as a text, such as "3 of 12"."""
    return f"{sum(goal.judgement is Judgement.OPEN for goal in goals)} of {len(goals)}"


def compute_exact_interval(number: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share; (0, 1) of none."""
    if not total:
        return 0.0, 1.0
    interval = binomtest(number, total).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def format_share(number: int, total: int) -> str:
    """Return a share such as "28 of 30 = 0.93 [0.78, 0.99]", with the exact interval at 95 %."""
    if not total:
        return "0 of 0"
    low, high = compute_exact_interval(number, total)
    return f"{number} of {total} = {number / total:.2f} [{low:.2f}, {high:.2f}]"


def compute_oracle(squares: Sequence[float], confidence: float = 0.95) -> float:
    """Return the half-width of an oracle that knows the variances: the normal quantile times the root mean square error.

    Args:
        squares: squared errors of the estimates.
        confidence: of the interval.
    """
    return float(special.ndtri(0.5 + confidence / 2)) * math.sqrt(fmean(squares))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A simulated rate, and the bounds within which it should lie.

    Attributes:
        name: what was counted.
        hits, count: the rate is hits / count.
        least, most: the goal; a bound of 0 or 1 bounds nothing.
        beside: what is stated where a coverage exceeds .99, such as the half-width of its intervals over an oracle's, because
            intervals that cover so often may be too wide to be of use; "" for other rates.
    """

    name: str
    hits: int
    count: int
    least: float = 0.0
    most: float = 1.0
    beside: str = ""

    @classmethod
    def of_coverage(cls, name: str, hits: int, count: int, *, half_width: float, oracle: float) -> "Rate":
        """Return the coverage of 95 % intervals, whose goal is at least .93.

        Args:
            name: what is covered.
            hits, count: the rate is hits / count.
            half_width: of the intervals, the mean.
            oracle: that of `compute_oracle`.
        """
        beside = f"half-width x {half_width / oracle:.2f}" if oracle > 0 else "no error"
        return cls(name=name, hits=hits, count=count, least=LOWEST_COVERAGE, beside=beside)

    @property
    def has_goal(self) -> bool:
        """Whether the bounds exclude anything."""
        return self.least > 0 or self.most < 1

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
    if cell.beside and cell.hits / cell.count > WIDE_COVERAGE:
        measured += f"; {cell.beside}"
    judgement = judge_interval(interval, least=cell.least, most=cell.most)
    return Goal(name=cell.name, rule=cell.rule, measured=measured, judgement=judgement)

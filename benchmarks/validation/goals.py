"""Goals for measured rates, judged by exact intervals: met, missed, or open."""

from dataclasses import dataclass, field

from scipy import stats

MET, MISSED, OPEN = "met", "missed", "open"


@dataclass(slots=True)
class Goals:
    """The goals of a run, each judged by the exact 95 % interval of its rate.

    Attributes:
        judged: (name, verdict, text) of each goal so far.
    """

    judged: list[tuple[str, str, str]] = field(default_factory=list)

    def judge(self, name: str, hits: int, count: int, low: float, high: float) -> str:
        """Return "met" if the interval of hits / count lies within [low, high], "missed" if outside of it, else "open"."""
        interval = stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
        outside = interval.high < low or interval.low > high
        verdict = MISSED if outside else MET if low <= interval.low and interval.high <= high else OPEN
        text = f"{hits / count:.3f} [{interval.low:.3f}, {interval.high:.3f}] for {low:g} to {high:g}"
        self.judged.append((name, verdict, text))
        return verdict

    def judge_error(self, name: str, hits: int, count: int, alpha: float) -> str:
        """Return "met" if the error rate is at most alpha + 2 standard errors, else "missed"."""
        limit = alpha + 2 * (alpha * (1 - alpha) / count) ** 0.5
        verdict = MET if hits / count <= limit else MISSED
        self.judged.append((name, verdict, f"{hits / count:.4f} for at most {limit:.4f}"))
        return verdict

    @property
    def missed(self) -> list[str]:
        """Missed goals, with their rates."""
        return [f"{name}: {text}" for name, verdict, text in self.judged if verdict == MISSED]

    @property
    def open(self) -> list[str]:
        """Goals that the count does not decide, with their rates."""
        return [f"{name}: {text}" for name, verdict, text in self.judged if verdict == OPEN]

"""Goals of simulated rates: coverage between two bounds, and errors up to alpha."""

from dataclasses import dataclass, field

from benchmarks.validation.goals import Goal, Judgement, compute_exact_interval


@dataclass(slots=True)
class Goals:
    """The goals of a run, in the order in which they were judged."""

    judged: list[Goal] = field(default_factory=list)

    def judge(self, name: str, hits: int, count: int, low: float, high: float) -> Judgement:
        """Return "met" if the exact interval of hits / count lies within [low, high], "missed" if outside, else "open"."""
        lower, upper = compute_exact_interval(hits, count)
        outside, inside = upper < low or lower > high, low <= lower and upper <= high
        judgement = Judgement.MISSED if outside else Judgement.MET if inside else Judgement.OPEN
        measured = f"{hits / count:.4f} [{lower:.4f}, {upper:.4f}]"
        self.judged.append(Goal(name=name, rule=f"{low:g} to {high:g}", measured=measured, judgement=judgement))
        return judgement

    def judge_error(self, name: str, hits: int, count: int, alpha: float) -> Judgement:
        """Return "met" if the error rate is at most alpha + 2 standard errors, else "missed"."""
        limit = alpha + 2 * (alpha * (1 - alpha) / count) ** 0.5
        judgement = Judgement.MET if hits / count <= limit else Judgement.MISSED
        rule, measured = f"at most {limit:.4f}", f"{hits / count:.4f}"
        self.judged.append(Goal(name=name, rule=rule, measured=measured, judgement=judgement))
        return judgement

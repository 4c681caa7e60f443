"""The leading configuration of an arm: how often it runs, and what another stretch of search would gain over it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, variance

# An arm runs its leader again once so many of its configurations have a score.
MIN_CONFIGURATIONS = 4
# The gain is forecast from the latest configurations, which the sampler suggested last.
NUM_RECENT = 10
# Repeated runs, beyond the first of each configuration, without which the noise between seeds is not known.
MIN_REPEATS = 2
NUM_STEPS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an arm would gain if it were searched twice as long.

    Attributes:
        gain: expected rise of the best macro-F1, a fraction.
        noise: standard deviation of macro-F1 between seeds, from the configurations that ran several times.
        num_configurations: with a score so far, and as many more in the forecast.
    """

    gain: float
    noise: float
    num_configurations: int

    @property
    def is_saturated(self) -> bool:
        """Whether the expected gain is below the noise between seeds."""
        return self.gain < self.noise


@dataclass(slots=True)
class ArmLeaders:
    """The scores of an arm's configurations, by the trial that ran each of them first.

    Attributes:
        num_runs: that a leading configuration gets, the first included; 1 for no repeated runs.
        scores: macro-F1 of each run that ended, the first trial's first, in the order in which first trials ended.
        running: repeated runs that have not ended.
        failed: repeated runs that ended without a score; as many are made up for as a leader gets runs.
        counts_divergence_as_noise: whether the 0 of a repeated run that diverged counts as noise between seeds.
    """

    num_runs: int
    scores: dict[str, list[float]] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    counts_divergence_as_noise: bool = False

    def start_repeat(self, first: str) -> None:
        """Record that a configuration runs again."""
        self.running[first] = self.running.get(first, 0) + 1

    def finish(self, trial_id: str, first: str, macro_f1: float | None) -> None:
        """Record the end of a full trial.

        Args:
            trial_id: of the trial.
            first: of the trial whose configuration it repeats; "" if it is a first one.
            macro_f1: at the last epoch, 0 for a repeated run that diverged; None for one that says nothing.
        """
        if first:
            self.running[first] -= 1
            self.failed[first] = self.failed.get(first, 0) + (macro_f1 is None)
        if macro_f1 is not None:
            self.scores.setdefault(first or trial_id, []).append(macro_f1)

    def find_due(self) -> str:
        """Return the first trial of the leading configuration if that is to run again; else ""."""
        if self.num_runs == 1 or len(self.scores) < MIN_CONFIGURATIONS:
            return ""
        leader = self._find_leader()
        has_run = len(self.scores[leader]) + self.running.get(leader, 0)
        # A configuration that fails again and again would cost nothing but trials, and be due for ever.
        return leader if has_run < self.num_runs and self.failed.get(leader, 0) < self.num_runs else ""

    def forecast(self) -> Forecast | None:
        """Return the gain of a search twice as long; None as long as too few trials have ended to tell.

        The scores of the next configurations are taken as normal, with the mean of the latest ones and their spread beyond the
        noise between seeds; the gain is that of the best of as many more as have a score already.
        """
        # A run that diverged is an outcome of its configuration, tens of points from the others, and no noise between seeds.
        lowest = -1.0 if self.counts_divergence_as_noise else 0.0
        finished = [[score for score in runs if score > lowest] for runs in self.scores.values()]
        repeated = [runs for runs in finished if len(runs) > 1]
        freedom = sum(len(runs) - 1 for runs in repeated)
        if freedom < MIN_REPEATS or len(self.scores) < NUM_RECENT:
            return None
        noise = math.sqrt(sum(variance(runs) * (len(runs) - 1) for runs in repeated) / freedom)
        recent = [runs[0] for runs in self.scores.values()][-NUM_RECENT:]
        spread = math.sqrt(max(variance(recent) - noise**2, 0.0))
        best, count = fmean(self.scores[self._find_leader()]), len(self.scores)
        return Forecast(gain=_expect_gain(fmean(recent), spread, best, count), noise=noise, num_configurations=count)

    def _find_leader(self) -> str:
        """Return the configuration with the highest mean; ties go to the smallest trial id."""
        return min(self.scores, key=lambda first: (-fmean(self.scores[first]), first))


def _expect_gain(mean: float, spread: float, best: float, count: int) -> float:
    """Return by how much the best of `count` normal draws exceeds `best` on average, draws that do not counting as 0."""
    if spread == 0:
        return max(mean - best, 0.0)
    distribution, width = NormalDist(mean, spread), max(best, mean) + 6 * spread - best
    # The trapezoidal rule over what the best draw exceeds `best` by.
    points = [1 - distribution.cdf(best + width * step / NUM_STEPS) ** count for step in range(NUM_STEPS + 1)]
    return width / NUM_STEPS * (sum(points) - (points[0] + points[-1]) / 2)


def describe_forecasts(forecasts: Mapping[str, Forecast | None]) -> list[str]:
    """Return a sentence for each arm whose gain is known."""
    return [
        f"{arm}: {found.num_configurations} more configurations would gain about {100 * found.gain:.2f} pp of macro-F1, "
        f"{'less' if found.is_saturated else 'not less'} than the noise between seeds of its leaders, {100 * found.noise:.2f} pp"
        f"{': its search is saturated' if found.is_saturated else ''}"
        for arm, found in forecasts.items()
        if found is not None
    ]

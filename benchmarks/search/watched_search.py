"""A search that is watched: the device time after which its choice stays good enough, and the choice after a shorter budget.

A choice is made by noisy scores, so that it is worse than the best configuration that the search has trained. That one is watched
beside it: it tells what the sampler found, whatever is chosen of it.
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from analysis.statistics.interval import Interval
from benchmarks.ratios import Ratio
from benchmarks.search.curve_surrogate import CurveSurrogate
from benchmarks.search.replay_curves import Hyperparameters
from benchmarks.search.replay_sides import Setting, full_trial_seconds, make_side, make_spec
from benchmarks.search.replay_simulation import Side, Started, simulate
from search_spaces.designs import POOLED_ARM
from study.spec.study_spec import StudySpec
from trainables.seeds import numpy_generator

NUM_WORKERS = 4
BUDGET_IN_FULL_TRIALS = 80.0
# After so many full trials, the choices of searches are compared.
EARLY_IN_FULL_TRIALS = 40.0
TOLERANCES_PP = (3.0, 2.0, 1.5)
NUM_RESAMPLES = 2000
# Where more than this share of studies is not there at the end, resampled medians are the budget itself. The row then stays open
# for the first side; for the second, the ratio is at most what is measured.
MAX_CENSORED = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What one watched search did.

    Attributes:
        seconds: device-seconds until the choice stays within each of `TOLERANCES_PP`, at most the budget.
        regrets_pp: of the choices after 1, 2, ... full trials, up to the budget: true best of all arms minus the choice's true
            value; all of it where there is no choice yet.
        is_wrong: whether the choice after `EARLY_IN_FULL_TRIALS` is not of the arm that has the true best.
        spent_seconds: device-seconds that the search took.
        diverged_seconds: of them, those of trials that diverged.
        trained_seconds: device-seconds until a configuration within each of `TOLERANCES_PP` was trained in full, at most the
            budget.
        trained_pp: regret of the best configuration that was trained in full, after `EARLY_IN_FULL_TRIALS`.
    """

    seconds: tuple[float, ...]
    regrets_pp: tuple[float, ...]
    is_wrong: bool
    spent_seconds: float
    diverged_seconds: float = 0.0
    trained_seconds: tuple[float, ...]
    trained_pp: float

    @property
    def regret_pp(self) -> float:
        """Of the choice after `EARLY_IN_FULL_TRIALS`, or at the end of a smaller budget."""
        return self.regrets_pp[: round(EARLY_IN_FULL_TRIALS)][-1]


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice that differs from the one before, the device-seconds that were spent by then, and its regret."""

    device_seconds: float
    hyperparameters: Hyperparameters
    regret_pp: float


class WatchedSide:
    """A search that records when its choice stays good enough.

    Attributes:
        reached: device-seconds after which it does, by tolerance.
        choices: in their order.
        best: the true macro-F1 of the best configuration.
        diverged: trials that reported a macro-F1 that is not finite.
        seconds: device-seconds of every trial.
        trained: configurations that were trained in full, and the device-seconds that were spent by then.
    """

    def __init__(self, side: Side, landscape: CurveSurrogate) -> None:
        """Watch `side`."""
        self.reached: dict[float, float] = {}
        self.choices: list[Choice] = []
        self.best = max(landscape.true_best.values())
        self.diverged: set[str] = set()
        self.seconds: dict[str, float] = {}
        self.trained: list[tuple[float, Hyperparameters]] = []
        self._running: dict[str, Hyperparameters] = {}
        self._side, self._landscape, self._spent = side, landscape, 0.0

    def next_trial(self) -> Started | None:
        """Return the side's next trial."""
        started = self._side.next_trial()
        if started is not None:
            self._running[started.trial_id] = started.hyperparameters
        return started

    def on_report(self, trial_id: str, epoch: int, macro_f1: float, device_seconds: float) -> bool:
        """Report one epoch; look at the choice when a trial has ended."""
        is_continued = self._side.on_report(trial_id, epoch, macro_f1, device_seconds)
        self._spent += device_seconds
        self.seconds[trial_id] = self.seconds.get(trial_id, 0.0) + device_seconds
        if not np.isfinite(macro_f1):
            self.diverged.add(trial_id)
        elif trial_id in self._running and epoch == self._landscape.num_epochs:
            self.trained.append((self._spent, self._running[trial_id]))
        last = self.choices[-1].hyperparameters if self.choices else None
        if not is_continued and (chosen := self.choose()) is not None and chosen != last:
            true_value = float(np.nan_to_num(self._landscape.mean_curve(chosen)[-1]))
            missing = 100.0 * (self.best - true_value)
            self.choices.append(Choice(self._spent, chosen, missing))
            for tolerance in TOLERANCES_PP:
                if missing <= tolerance:
                    self.reached.setdefault(tolerance, self._spent)
                else:
                    self.reached.pop(tolerance, None)
        return is_continued

    def choose(self) -> Hyperparameters | None:
        """Return the side's choice."""
        return self._side.choose()

    def choice_after(self, device_seconds: float) -> Choice | None:
        """Return the choice once so many device-seconds were spent; None before the first one."""
        number = bisect.bisect_right(self.choices, device_seconds, key=lambda choice: choice.device_seconds)
        return self.choices[number - 1] if number else None

    def regret_after(self, device_seconds: float) -> float:
        """Return the regret of that choice in pp; before the first one, that of a macro-F1 of 0."""
        choice = self.choice_after(device_seconds)
        return 100.0 * self.best if choice is None else choice.regret_pp

    def best_trained(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (n,) device-seconds by which 1, 2, ... n trials had run in full, and the least regret in pp among them."""
        seconds = np.array([spent for spent, _ in self.trained])
        values = self._landscape.last_scores([hyperparameters for _, hyperparameters in self.trained])
        return seconds, np.minimum.accumulate(100.0 * (self.best - np.nan_to_num(values)))


def watch_search(
    landscape: CurveSurrogate, recorded: StudySpec, setting: Setting, seed: int, budget_in_full_trials: float
) -> Watched:
    """Return what one simulated search does with a budget of so many full trials of mean cost over the arms."""
    full_trial = full_trial_seconds(landscape)[POOLED_ARM]
    budget = budget_in_full_trials * full_trial
    spec = make_spec(recorded, setting, budget_seconds=budget, seed=seed)
    side = make_side(spec, landscape, setting, budget_seconds=budget)
    watched = WatchedSide(side, landscape)
    outcome = simulate(watched, landscape, num_workers=NUM_WORKERS, seed=seed)
    best_arm = max(landscape.true_best, key=lambda arm: landscape.true_best[arm])
    early = watched.choice_after(EARLY_IN_FULL_TRIALS * full_trial)
    ends = [number * full_trial for number in range(1, round(budget_in_full_trials) + 1)]
    trained_at, trained = watched.best_trained()
    num_early = np.searchsorted(trained_at, EARLY_IN_FULL_TRIALS * full_trial, side="right")
    return Watched(
        seconds=tuple(watched.reached.get(tolerance, budget) for tolerance in TOLERANCES_PP),
        regrets_pp=tuple(watched.regret_after(end) for end in ends),
        is_wrong=early is None or str(early.hyperparameters[landscape.factor]) != best_arm,
        spent_seconds=sum(outcome.device_seconds.values()),
        diverged_seconds=sum(watched.seconds[trial_id] for trial_id in watched.diverged),
        trained_seconds=tuple(min([budget, *trained_at[trained <= tolerance][:1]]) for tolerance in TOLERANCES_PP),
        trained_pp=float(trained[num_early - 1]) if num_early else 100.0 * watched.best,
    )


def compare_times(what: str, sides: Mapping[str, NDArray[np.float64]], goal: str, budget: float) -> Ratio:
    """Return the ratio of the (seeds,) device-seconds until `what` of two sides, the first over the second."""
    (one, mine), (other, theirs) = sides.items()
    notes = [
        f"{name} {np.median(seconds):.0f} ({100 * (seconds >= budget).mean():.0f} % not there)"
        for name, seconds in sides.items()
    ]
    # The other side's median can only be larger than the budget that stands for it, so that the upper end holds all the same.
    low, high = compute_ratio_interval(mine, theirs)
    low = 0.0 if (theirs >= budget).mean() > MAX_CENSORED else low
    is_identified = (mine >= budget).mean() <= MAX_CENSORED
    return Ratio(
        "P7",
        f"device time until {what}: {one} / {other}, {len(mine)} seeds",
        goal,
        (float(np.median(mine) / np.median(theirs)),),
        f"median device-s: {', '.join(notes)}; budget {budget:.0f}",
        (low, high) if is_identified else (0.0, np.inf),
    )


def compute_ratio_interval(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bootstrap interval at 95 % of the ratio of the medians of two sides, over their common (n,) seeds."""

    def ratio(one: NDArray[np.float64], other: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(np.median(one, axis=axis) / np.median(other, axis=axis))

    found = bootstrap(
        (mine, theirs),
        ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=NUM_RESAMPLES,
        rng=numpy_generator(0, "P7"),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def compare_trials(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> Interval:
    """Return the full trials after which the mean regret of one side stays at or below a given one of the other.

    Args:
        mine: (seeds, n) regrets after 1, 2, ... n full trials.
        theirs: (seeds,) regrets of the other side with the same seeds.

    Returns:
        1 to n, or n + 1 where n do not suffice, and the bootstrap interval at 95 % over the seeds.
    """

    def count(drawn: NDArray[np.int64]) -> float:
        is_worse = mine[drawn].mean(axis=0) > theirs[drawn].mean()
        return float(np.flatnonzero(is_worse)[-1] + 2 if is_worse.any() else 1)

    seeds = np.arange(len(mine))
    found = bootstrap(
        (seeds,),
        count,
        vectorized=False,
        method="percentile",
        n_resamples=NUM_RESAMPLES,
        rng=numpy_generator(0, "equal regret"),
    )
    estimate, (low, high) = count(seeds), found.confidence_interval
    return Interval(estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate))

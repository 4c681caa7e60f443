"""What searches of pools did, as tables: regret after so many full trials, searches that are stuck, and what pruning saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.statistics.interval import Interval
from benchmarks.pages import Table
from benchmarks.search.pool_search import PoolSearch, Trial
from benchmarks.search.pools import Pool, load_pool
from benchmarks.search.replay_curves import FloatArray
from benchmarks.search.replay_measures import CONFIDENCE, compute_mean_interval, format_interval
from benchmarks.search.watched_search import compare_trials

RANDOM, TPE = "random", "TPE"
Found = Mapping[tuple[str, str], Sequence[tuple[Trial, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The searches of one side in one pool.

    Attributes:
        regrets: (seeds, n) after 1 to n full trials of every arm, in pp, the mean over the arms.
        is_right: (seeds,) whether the choice over all arms is of the arm that has the best.
        shares: (seeds,) device time of the arm that got least, of an equal part.
        saved: (seeds,) part of the device time of all trials, had they run to their end, that pruning saved.
    """

    regrets: FloatArray
    is_right: FloatArray
    shares: FloatArray
    saved: FloatArray


def measure_side(searches: Sequence[tuple[Trial, ...]], pool: Pool, *, is_stock: bool) -> Side:
    """Return what searches did; Ray chooses among all trials, the product among those that ran to their end."""
    regrets, is_right, shares, saved = [], [], [], []
    best = {name: float(arm.truth.max()) for name, arm in pool.arms_by_name.items()}
    for trials in searches:
        by_arm = {name: [trial for trial in trials if trial.arm == name] for name in pool.arms}
        chosen = {name: _follow(own, pool, name, is_stock=is_stock) for name, own in by_arm.items()}
        regrets.append(np.mean([100 * (best[name] - truth) for name, (truth, _) in chosen.items()], axis=0))
        is_right.append(max(chosen, key=lambda name: chosen[name][1]) == max(best, key=lambda name: best[name]))
        spent = [sum(trial.seconds for trial in own) for own in by_arm.values()]
        shares.append(min(spent) / np.mean(spent))
        full = sum(float(pool.arms_by_name[trial.arm].seconds[trial.number].sum()) for trial in trials)
        saved.append(1 - sum(spent) / full)
    return Side(regrets=np.array(regrets), is_right=np.array(is_right), shares=np.array(shares), saved=np.array(saved))


def _follow(trials: Sequence[Trial], pool: Pool, arm: str, *, is_stock: bool) -> tuple[FloatArray, float]:
    """Return the truth of an arm's choice after 1 to n full trials, 0 before there is one, and the last choice's own score."""
    recorded, number = pool.arms_by_name[arm], pool.trials[-1]
    found, spent, score, truth = np.zeros(number), 0.0, -np.inf, 0.0
    full_seconds = recorded.full_seconds
    for trial in trials:
        spent += trial.seconds
        if trial.score is not None and (trial.is_full or is_stock) and trial.score > score:
            score, truth = trial.score, float(recorded.truth[trial.number])
        # From the full trial on in whose time it ended; rounding must not move the last one.
        found[max(0, int(np.ceil(spent / full_seconds - 1e-6)) - 1) :] = truth
    return found, score


def tabulate_pools(pools: Sequence[str]) -> Table:
    """Return who recorded each pool, and what its trainings are like."""
    rows = []
    for name in pools:
        pool = load_pool(name)
        for arm, found in pool.arms_by_name.items():
            best, guess = 100 * found.truth.max(), 100 * found.guessing
            failed = f"{100 * found.failed_fraction:.0f} %"
            cells = [str(len(found.truth)), failed, f"{best:.2f}", f"{guess:.0f}", pool.use, pool.recorded_by]
            rows.append([f"{name}, {arm}" if len(pool.arms) > 1 else name, *cells])
    columns = ["", "configurations", "failed", "best", "failed at or below", "use", "recorded by"]
    return Table("The pools", columns, rows)


@dataclass(frozen=True, slots=True)
class Measured:
    """The sides of every pool, by pool and side, in the order in which they are listed."""

    sides: Mapping[tuple[str, str], Side] = field(default_factory=dict)

    def of_pool(self, pool: str) -> dict[str, Side]:
        """Return the sides of a pool by name."""
        return {side: found for (name, side), found in self.sides.items() if name == pool}

    def differ(self, pool: str, one: str, other: str, trials: int) -> "pd.Series[float]":
        """Return the regrets of one side minus those of another after so many full trials, over the seeds of both."""
        first, second = (pd.Series(self.sides[pool, side].regrets[:, trials - 1]) for side in (one, other))
        return (first - second).dropna()

    def count_stuck(self, pool: str, side: str) -> tuple[int, int]:
        """Return the searches whose last regret is above the median of random search long before, and all."""
        limit = float(np.median(self.sides[pool, RANDOM].regrets[:, min(10, load_pool(pool).trials[1]) - 1]))
        last = self.sides[pool, side].regrets[:, -1]
        return int((last > limit).sum()), len(last)


def measure(found: Found, searches: Mapping[tuple[str, str], PoolSearch]) -> Measured:
    """Return the measures of all searches."""
    sides = {}
    for (pool, side), trials in found.items():
        is_stock = searches[pool, side].setting.side == "stock"
        sides[pool, side] = measure_side(trials, load_pool(pool), is_stock=is_stock)
    return Measured(sides)


def tabulate_regrets(measured: Measured, pool: str) -> Table:
    """Return regret after each number of full trials, stuck searches, time to random's last regret, and saved time."""
    trials, rows = load_pool(pool).trials, []
    random = measured.sides[pool, RANDOM]
    for name, side in measured.of_pool(pool).items():
        cells = [format_interval(_mean(side.regrets[:, number - 1])) for number in trials]
        common = min(len(side.regrets), len(random.regrets))
        time = compare_trials(side.regrets[:common], random.regrets[:common, -1])
        reached = [
            f"{value:.0f}" if value <= trials[-1] else f"over {trials[-1]}"
            for value in (time.estimate, time.low, time.high)
        ]
        saved = "" if side.saved.max() < 1e-9 else f"{100 * side.saved.mean():.0f} %"
        stuck = _format_rate(*measured.count_stuck(pool, name))
        rows.append([name, str(len(side.regrets)), *cells, stuck, f"{reached[0]} [{reached[1]}, {reached[2]}]", saved])
    columns = ["", "searches", *(f"regret after {number}, pp" for number in trials)]
    columns += ["stuck", f"trials to random's after {trials[-1]}", "not trained"]
    return Table(f"Searches of {pool}", columns, rows)


def tabulate_arms(measured: Measured, pool: str) -> Table:
    """Return how often each side chooses the arm that has the best, and how equal the device time is."""
    rows = []
    for name, side in measured.of_pool(pool).items():
        right = _format_rate(int(side.is_right.sum()), len(side.is_right))
        rows.append([name, right, f"{side.shares.mean():.3f}", f"{side.shares.min():.3f}"])
    return Table(f"Arms of {pool}", ["", "right arm", "least share, mean", "lowest"], rows)


def compute_excess(measured: Measured, side: str, pools: Sequence[str], part: int) -> Interval:
    """Return the mean over pools of a side's regret above TPE's, of random search's, after the `part`-th number of trials.

    The interval is Student's for each pool's paired differences, summed as of independent pools.
    """
    means, variances = [], []
    for pool in pools:
        number = load_pool(pool).trials[part]
        base = measured.sides[pool, RANDOM].regrets[:, number - 1].mean()
        differences = measured.differ(pool, side, TPE, number) / base
        means.append(differences.mean())
        variances.append(differences.var() / len(differences))
    mean, half = float(np.mean(means)), 1.96 * float(np.sqrt(np.sum(variances))) / len(pools)
    return Interval(estimate=mean, low=mean - half, high=mean + half)


def tabulate_excess(measured: Measured, names: Sequence[str], pools: Sequence[str]) -> Table:
    """Return for each side its regret above TPE's, over all pools and in each one, and the searches that are stuck."""
    rows = []
    for name in names:
        excess = [format_interval(compute_excess(measured, name, pools, part)) for part in (1, 2)]
        each = [_format_difference(measured, pool, (name, TPE), load_pool(pool).trials[2]) for pool in pools]
        counts = [measured.count_stuck(pool, name) for pool in pools]
        stuck = [f"{number}/{total}" for number, total in counts]
        rows.append([name, *excess, *each, " ".join(stuck)])
    columns = ["", "above TPE's, of random's: middle", "at the end", *(f"{pool}, pp" for pool in pools), "stuck"]
    return Table("Regret above TPE's", columns, rows)


def tabulate_random(measured: Measured, names: Sequence[str], pools: Sequence[str]) -> Table:
    """Return each side's regret minus that of random search with the same seeds, after the last two numbers of trials."""
    rows = [
        [pool, str(number), *(_format_difference(measured, pool, (name, RANDOM), number) for name in names)]
        for pool in pools
        for number in load_pool(pool).trials[1:]
    ]
    return Table("Regret minus random search's, pp", ["", "trials", *names], rows)


def tabulate_pruning(measured: Measured, names: Sequence[str], without: str, pools: Sequence[str]) -> Table:
    """Return for each way to prune the device time to the last regret of the search without, and the regret at equal time."""
    rows = []
    for pool in pools:
        number = load_pool(pool).trials[-1]
        base = measured.sides[pool, without]
        for name in names:
            side = measured.sides[pool, name]
            common = min(len(side.regrets), len(base.regrets))
            time = compare_trials(side.regrets[:common], base.regrets[:common, -1])
            saved = [
                f"{100 * (1 - value / number):.0f}" if value <= number else "none"
                for value in (time.estimate, time.high, time.low)
            ]
            difference = _format_difference(measured, pool, (name, without), number)
            rows.append(
                [pool, name, f"{100 * side.saved.mean():.0f} %", f"{saved[0]} [{saved[1]}, {saved[2]}]", difference]
            )
    columns = ["", "", "of its trials not trained", "device time saved at equal regret, %", "regret at equal time, pp"]
    return Table(f"Pruning, against {without!r}", columns, rows)


def _format_difference(measured: Measured, pool: str, sides: tuple[str, str], trials: int) -> str:
    return format_interval(compute_mean_interval(measured.differ(pool, *sides, trials)))


def _mean(values: FloatArray) -> Interval:
    return compute_mean_interval(pd.Series(values))


def _format_rate(number: int, total: int) -> str:
    exact = binomtest(number, total).proportion_ci(CONFIDENCE, method="exact")
    return f"{number}/{total} [{exact.low:.2f}, {exact.high:.2f}]"

"""Tables of `benchmarks.search.search_goals`: what the searches of each side did, and whether that meets the goals."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from benchmarks.pages import Table
from benchmarks.ratios import NOT_JUDGED
from benchmarks.search.goal_sides import (
    AT_PEAK,
    NO_ASHA,
    NO_PORTFOLIO,
    OURS,
    PLAIN_RANDOM,
    PLAIN_STOCK,
    RANDOM,
    RIGHT_PRIOR,
    STOCK_BY_ARM,
    STOCK_PORTFOLIO,
    TPE,
    WITH_DIVERGENCE,
    WITHOUT_PORTFOLIO,
    WRONG_PRIOR,
    Call,
    Landscape,
    list_sides,
)
from benchmarks.search.replay_measures import (
    CONFIDENCE,
    compute_mean_interval,
    compute_rate_ratio,
    format_interval,
    judge_wrong,
)
from benchmarks.search.replay_sides import full_trial_seconds
from benchmarks.search.watched_search import (
    BUDGET_IN_FULL_TRIALS,
    EARLY_IN_FULL_TRIALS,
    NUM_WORKERS,
    TOLERANCES_PP,
    Watched,
    compare_times,
    compare_trials,
)
from search_spaces.designs import POOLED_ARM

TOLERANCE_PP = 1.5
WIDER_PP = tuple(tolerance for tolerance in TOLERANCES_PP if tolerance > TOLERANCE_PP)
# Sides whose choices after 40 full trials are not compared.
TIMES_ALONE = (RIGHT_PRIOR, *WITHOUT_PORTFOLIO)
# One side, the other, the goal of the first one's device time over the second one's, and the tolerances.
COMPARED_TIMES = (
    (OURS, RANDOM, NOT_JUDGED, WIDER_PP),
    (OURS, RANDOM, "<= 0.6", (TOLERANCE_PP,)),
    (OURS, PLAIN_STOCK, NOT_JUDGED, WIDER_PP),
    (OURS, PLAIN_STOCK, "<= 0.25", (TOLERANCE_PP,)),
    (OURS, TPE, NOT_JUDGED, TOLERANCES_PP),
    (OURS, PLAIN_RANDOM, "<= 0.4", TOLERANCES_PP),
    (NO_PORTFOLIO, PLAIN_RANDOM, NOT_JUDGED, TOLERANCES_PP),
    (WRONG_PRIOR, NO_PORTFOLIO, "<= 1.5", TOLERANCES_PP),
    (RIGHT_PRIOR, NO_PORTFOLIO, NOT_JUDGED, TOLERANCES_PP),
)
# Sides whose times until they have trained a good configuration are compared, the first over the second.
COMPARED_TRAINED = ((OURS, RANDOM), (OURS, PLAIN_STOCK), (OURS, TPE), (NO_PORTFOLIO, PLAIN_RANDOM))
# One side, and the other whose mean regret after 40 full trials it is to reach.
COMPARED_REGRETS = (
    (OURS, PLAIN_STOCK),
    (OURS, STOCK_PORTFOLIO),
    (OURS, STOCK_BY_ARM),
    (OURS, RANDOM),
    (OURS, PLAIN_RANDOM),
    (OURS, TPE),
    (PLAIN_STOCK, OURS),
    (RANDOM, OURS),
)


def tabulate_searches(found: Mapping[Call, Watched], name: str, landscape: Landscape) -> list[Table]:
    """Return the tables of the searches in one landscape."""
    if landscape.has_divergence:
        return [tabulate_divergence(found, name)]
    tables = [tabulate_times(found, name, landscape), tabulate_trained(found, name, landscape)]
    return [*tables, tabulate_trials(found, name), tabulate_choices(found, name), tabulate_goals(found, name)]


def tabulate_times(found: Mapping[Call, Watched], name: str, landscape: Landscape) -> Table:
    """Return the ratios of the device times until the choices of two sides stay within the tolerances, over common seeds."""
    rows = []
    for mine, other, goal, tolerances in COMPARED_TIMES:
        judged = goal if landscape.has_goals else NOT_JUDGED
        runs = {side: [one.seconds for one in _of(found, name, side)] for side in (mine, other)}
        rows += _compare_times(runs, landscape, judged, tolerances)
    title = f"Device time until the choice stays within so many pp of the best, {name}, {NUM_WORKERS} workers"
    return Table(title, ["", "pp", "seeds", "ratio of medians", "95 % interval", "goal", "", ""], rows)


def tabulate_trained(found: Mapping[Call, Watched], name: str, landscape: Landscape) -> Table:
    """Return the ratios of the device times until the sides have trained a configuration within the tolerances."""
    rows = []
    for mine, other in COMPARED_TRAINED:
        runs = {side: [one.trained_seconds for one in _of(found, name, side)] for side in (mine, other)}
        rows += [row[:5] + row[7:] for row in _compare_times(runs, landscape, NOT_JUDGED, TOLERANCES_PP)]
    title = f"Device time until a configuration within so many pp of the best has been trained in full, {name}"
    return Table(title, ["", "pp", "seeds", "ratio of medians", "95 % interval", ""], rows)


def _compare_times(
    runs: Mapping[str, Sequence[tuple[float, ...]]], landscape: Landscape, goal: str, tolerances: Sequence[float]
) -> list[tuple[str, ...]]:
    """Return a row per tolerance of the device-seconds of two sides, each with one per tolerance and seed."""
    budget = BUDGET_IN_FULL_TRIALS * full_trial_seconds(landscape.surrogate)[POOLED_ARM]
    rows: list[tuple[str, ...]] = []
    common = min(map(len, runs.values()))
    for tolerance in tolerances if common else ():
        number = TOLERANCES_PP.index(tolerance)
        pair = {side: np.array([one[number] for one in seen[:common]]) for side, seen in runs.items()}
        ratio = compare_times(f"within {tolerance:g} pp of the best", pair, goal, budget)
        low, high = ratio.interval or (np.nan, np.nan)
        figures = (f"{ratio.median:.3f}", f"[{low:.3f}, {high:.3f}]", ratio.goal, ratio.verdict, ratio.note)
        rows.append((" / ".join(runs), f"{tolerance:g}", str(common), *figures))
    return rows


def tabulate_trials(found: Mapping[Call, Watched], name: str) -> Table:
    """Return the full trials after which one side is as good as the other after 40, over common seeds."""
    rows = []
    for mine, other in COMPARED_REGRETS:
        pairs = list(zip(_of(found, name, mine), _of(found, name, other), strict=False))
        if not pairs:
            continue
        regrets, target = np.array([one.regrets_pp for one, _ in pairs]), np.array([one.regret_pp for _, one in pairs])
        trials, most = compare_trials(regrets, target), regrets.shape[1]
        estimate, low, high = (
            f"{value:.0f}" if value <= most else f"over {most}" for value in (trials.estimate, trials.low, trials.high)
        )
        rows.append((mine, other, str(len(pairs)), f"{target.mean():.2f}", f"{estimate} [{low}, {high}]"))
    title = f"Full trials that reach the mean regret of another side after {EARLY_IN_FULL_TRIALS:g}, {name}"
    return Table(title, ["", "reaches", "seeds", "mean regret pp", "full trials"], rows)


def tabulate_choices(found: Mapping[Call, Watched], name: str) -> Table:
    """Return regret of the choice and of the best trained configuration, and wrong arms, of each side after 40 full trials."""
    rows = []
    for side in (side for side in list_sides() if side not in TIMES_ALONE and _of(found, name, side)):
        regrets, num_wrong = _regrets(found, name, side), sum(one.is_wrong for one in _of(found, name, side))
        wrong = binomtest(num_wrong, len(regrets)).proportion_ci(CONFIDENCE, method="exact")
        trained = pd.Series([one.trained_pp for one in _of(found, name, side)])
        cells = [format_interval(compute_mean_interval(values)) for values in (regrets, trained)]
        rows.append([side, str(len(regrets)), *cells, f"{num_wrong} [{wrong.low:.2f}, {wrong.high:.2f}]"])
    title = f"Choices after {EARLY_IN_FULL_TRIALS:g} full trials, {name}"
    return Table(title, ["", "seeds", "mean regret pp", "of the best that was trained in full", "wrong arm"], rows)


def tabulate_divergence(found: Mapping[Call, Watched], name: str) -> Table:
    """Return what trials that diverge cost each side, and its choices."""
    rows = []
    for side in (side for side in WITH_DIVERGENCE if _of(found, name, side)):
        runs = _of(found, name, side)
        shares = pd.Series([100 * one.diverged_seconds / one.spent_seconds for one in runs])
        losses = _compare_regrets(found, name, side, OURS)
        cells = [
            format_interval(compute_mean_interval(values)) for values in (shares, _regrets(found, name, side), losses)
        ]
        rows.append([side, str(len(runs)), *cells[:2], "" if side == OURS else cells[2]])
    title = f"Trials that diverge, {name}, {EARLY_IN_FULL_TRIALS:g} full trials"
    columns = ["", "seeds", "device time of trials that diverged %", "mean regret pp", "minus that of the default pp"]
    return Table(title, columns, rows)


def tabulate_goals(found: Mapping[Call, Watched], name: str) -> Table:
    """Return the goals of the choices after 40 full trials, judged by their intervals."""
    rows = []
    for mine in (side for side in (OURS, AT_PEAK, NO_ASHA) if _of(found, name, side)):
        for other in (PLAIN_STOCK, STOCK_PORTFOLIO, RANDOM, *([TPE] if mine == OURS else [])):
            difference = compute_mean_interval(_compare_regrets(found, name, mine, other))
            verdict = "met" if difference.high < 0 else "MISSED" if difference.low > 0 else "open"
            rows.append([f"{mine}: regret below that of {other}", f"{format_interval(difference)} pp", verdict])
        counts = [
            (sum(one.is_wrong for one in _of(found, name, side)), len(_of(found, name, side)))
            for side in (mine, STOCK_BY_ARM)
        ]
        text = " against ".join(f"{number} of {total}" for number, total in counts)
        wrong = f"{text}, ratio {format_interval(compute_rate_ratio(*counts))}"
        rows.append([f"{mine}: at most half the wrong arms of {STOCK_BY_ARM}", wrong, judge_wrong(*counts)])
    return Table(f"Goals after {EARLY_IN_FULL_TRIALS:g} full trials, {name}", ["", "measured", ""], rows)


def _of(found: Mapping[Call, Watched], landscape: str, side: str) -> list[Watched]:
    return [one for call, one in found.items() if (call.landscape, call.side) == (landscape, side)]


def _regrets(found: Mapping[Call, Watched], landscape: str, side: str) -> "pd.Series[float]":
    return pd.Series([one.regret_pp for one in _of(found, landscape, side)])


def _compare_regrets(found: Mapping[Call, Watched], landscape: str, one: str, other: str) -> "pd.Series[float]":
    """Return the differences of two sides over the seeds that both have."""
    return (_regrets(found, landscape, one) - _regrets(found, landscape, other)).dropna()

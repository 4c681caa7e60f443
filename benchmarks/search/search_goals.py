"""The default search against stock Ray Tune and random search, on two data sets; writes SEARCH.md.

    python -m benchmarks.search.search_goals [--whole]

All sides search simulated curves with the same noise, costs and workers. They are compared by the device time until their choice
stays within 1.5 pp of the best, and by their choices after 40 full trials: regret, and wrong arms. Rungs that are complete
schedules are simulated beside the default, for the same goals. The default was chosen on the curves of CIFAR-10. So the goals are
judged on those of refuse, and CIFAR-10's stand beside them; of the default, the place of the first rung and the sampler had been
looked at on refuse too. A third recording has learning rates at which trials diverge; there, the sides are compared by what those
trials cost. A suggestion of a Gaussian process takes a fifth of a second, so a run without `--whole` has a fifth of the seeds.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from scipy.stats import binomtest

from benchmarks.pages import Table, describe_machine, today, write_page
from benchmarks.parallel import run_parallel
from benchmarks.ratios import NOT_JUDGED
from benchmarks.search.curve_surrogate import CurveSurrogate, RegressorKind, tabulate_quality
from benchmarks.search.replay_curves import CURVES, PARQUET, Recording, load_curves
from benchmarks.search.replay_measures import (
    CONFIDENCE,
    compute_mean_interval,
    compute_rate_ratio,
    format_interval,
    judge_wrong,
)
from benchmarks.search.replay_sides import STOCK, STOCK_PER_ARM, STOCK_WITH_PORTFOLIO, Setting, full_trial_seconds
from benchmarks.search.search_replay import default_setting
from benchmarks.search.short_schedules import (
    tabulate_beside,
    tabulate_correlations,
    tabulate_epochs,
    tabulate_preferences,
)
from benchmarks.search.watched_search import (
    BUDGET_IN_FULL_TRIALS,
    EARLY_IN_FULL_TRIALS,
    NUM_WORKERS,
    TOLERANCES_PP,
    Watched,
    compare_times,
    compare_trials,
    watch_search,
)
from search_spaces.arms import POOLED_ARM
from study.spec.defaults import FIRST_VERSION
from study.spec.study_spec import FIRST_RUNG_PART, StudySpec

PAGE = Path(__file__).parents[1] / "SEARCH.md"
# Of a run without `--whole`, and of one with it.
NUM_SEEDS = (60, 300)
# Landscapes beside that of the goals have a part of the seeds, and so have sides that no goal names.
PART_BESIDE = 15
PART_OF_OTHERS = 32
MIN_SEEDS = 4
TOLERANCE_PP = 1.5
WIDER_PP = tuple(tolerance for tolerance in TOLERANCES_PP if tolerance > TOLERANCE_PP)
OURS, RANDOM, PLAIN_STOCK, STOCK_BY_ARM = "default", "random, portfolio", "stock", "stock, one per arm"
STOCK_PORTFOLIO = "stock, portfolio"
COMPLETE, COMPLETE_RANDOM = "complete rungs", "complete rungs, random"
COMPLETE_TOLD = "complete rungs, full trials told"
LEADERS, SATURATED = "3 runs of leaders", "3 runs of leaders, until saturated"
TPE, LATE = "tpe_multivariate", "tpe_multivariate, divergence told at its last epoch"
AT_PEAK, NO_ASHA = "rungs from the peak of the learning rate on", "no ASHA"
NO_PORTFOLIO, PLAIN_RANDOM, WRONG_PRIOR = "no portfolio", "random", "no portfolio, worst prior"
# Sides of the goals; the others are simulated with `--whole` alone, in the landscape of the goals.
JUDGED = (OURS, TPE, RANDOM, PLAIN_STOCK, STOCK_BY_ARM, STOCK_PORTFOLIO)
# Sides that begin with nothing, which goals name too.
WITHOUT_PORTFOLIO = (NO_PORTFOLIO, PLAIN_RANDOM, WRONG_PRIOR)
# Sides of which the choices after 40 full trials are of interest alone, so that they end there.
CHOICES_ALONE = (STOCK_BY_ARM, STOCK_PORTFOLIO, AT_PEAK, NO_ASHA, COMPLETE_TOLD)
# Sides that need recordings of complete schedules.
NEED_COMPLETE = (COMPLETE, COMPLETE_RANDOM, COMPLETE_TOLD)
# Sides that are simulated where trials diverge, and there alone.
WITH_DIVERGENCE = (OURS, RANDOM, PLAIN_STOCK, TPE, LATE)
# Sides whose choices after 40 full trials are not compared.
TIMES_ALONE = (SATURATED, *WITHOUT_PORTFOLIO)
# Recorded curves of each landscape, and what models them. The first one is that of the goals. A Gaussian process is also a
# sampler, so that extra trees model the same curves beside it.
LANDSCAPES: dict[str, tuple[Path, RegressorKind]] = {
    "refuse": (CURVES / "refuse_small.parquet", "gaussian_process"),
    "refuse, extra trees": (CURVES / "refuse_small.parquet", "extra_trees"),
    "cifar10": (PARQUET, "gaussian_process"),
    "cifar10, diverging": (CURVES / "cifar10_diverging.parquet", "gaussian_process"),
}
# One side, the other, the goal of the first one's device time over the second one's, and the tolerances.
COMPARED_TIMES = (
    (OURS, RANDOM, NOT_JUDGED, WIDER_PP),
    (OURS, RANDOM, "<= 0.6", (TOLERANCE_PP,)),
    (OURS, PLAIN_STOCK, NOT_JUDGED, WIDER_PP),
    (OURS, PLAIN_STOCK, "<= 0.25", (TOLERANCE_PP,)),
    (OURS, TPE, NOT_JUDGED, TOLERANCES_PP),
    (COMPLETE, RANDOM, "<= 0.6", (TOLERANCE_PP,)),
    (COMPLETE, PLAIN_STOCK, "<= 0.25", (TOLERANCE_PP,)),
    (COMPLETE, OURS, NOT_JUDGED, (TOLERANCE_PP,)),
    (COMPLETE_RANDOM, OURS, NOT_JUDGED, (TOLERANCE_PP,)),
    (LEADERS, OURS, NOT_JUDGED, (TOLERANCE_PP,)),
    (OURS, PLAIN_RANDOM, "<= 0.4", TOLERANCES_PP),
    (NO_PORTFOLIO, PLAIN_RANDOM, NOT_JUDGED, TOLERANCES_PP),
    (WRONG_PRIOR, NO_PORTFOLIO, "<= 1.5", TOLERANCES_PP),
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
NUM_LEADER_RUNS = 3
RATES = ("max_lr", "backbone_lr_ratio")
PRIOR_WIDTH = 2.0
Prior = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Landscape:
    """What searches are simulated on: a surrogate, the spec of the trainings, and whether goals are judged on it."""

    surrogate: CurveSurrogate
    spec: StudySpec
    has_goals: bool

    @property
    def has_complete(self) -> bool:
        """Whether complete schedules were recorded."""
        return all(bool(self.surrogate.surrogate(arm).complete) for arm in self.surrogate.arms)

    @property
    def has_divergence(self) -> bool:
        """Whether recorded trials diverged."""
        return any(quality.num_diverged for quality in self.surrogate.qualities.values())

    def count_seeds(self, side: str, num_seeds: int, *, is_whole: bool = False) -> int:
        """Return the number of searches of a side, given that of the default.

        Without `is_whole`, sides that no goal names have none.
        """
        if self.has_divergence:
            is_simulated = side in WITH_DIVERGENCE and (is_whole or side in JUDGED)
            return min(num_seeds, max(MIN_SEEDS, num_seeds // PART_BESIDE)) if is_simulated else 0
        if side == LATE or (side in NEED_COMPLETE and not self.has_complete):
            return 0
        if side not in JUDGED and not (is_whole and self.has_goals):
            return 0
        part = 1 if side in (*JUDGED, *WITHOUT_PORTFOLIO) else PART_OF_OTHERS
        return min(num_seeds, max(MIN_SEEDS, num_seeds // (part if self.has_goals else part * PART_BESIDE)))


@dataclass(frozen=True, slots=True)
class Call:
    """One search to simulate."""

    landscape: str
    side: str
    seed: int


def list_sides(prior: Prior = ()) -> dict[str, Setting]:
    """Return the sides by name; `prior` is that of the side with the worst one."""
    ours = default_setting()
    plain = Setting(side="ours", sampler="random", allocation=ours.allocation, asha=False, has_portfolio=True)
    leaders, no_portfolio = replace(ours, leader_runs=NUM_LEADER_RUNS), replace(ours, has_portfolio=False)
    return {
        OURS: ours,
        TPE: replace(ours, sampler="tpe_multivariate"),
        RANDOM: plain,
        PLAIN_STOCK: STOCK,
        STOCK_BY_ARM: STOCK_PER_ARM,
        STOCK_PORTFOLIO: STOCK_WITH_PORTFOLIO,
        COMPLETE: replace(ours, rungs="complete"),
        COMPLETE_RANDOM: replace(ours, rungs="complete", sampler="random"),
        COMPLETE_TOLD: replace(ours, rungs="complete", tells_promoted=True),
        LEADERS: leaders,
        SATURATED: replace(leaders, stop_when="saturated"),
        NO_PORTFOLIO: no_portfolio,
        PLAIN_RANDOM: replace(plain, has_portfolio=False),
        WRONG_PRIOR: replace(no_portfolio, prior=prior),
        LATE: replace(ours, sampler="tpe_multivariate", defaults_version=FIRST_VERSION, rung_part=FIRST_RUNG_PART),
        AT_PEAK: replace(ours, rung_part=0.3),
        NO_ASHA: replace(ours, asha=False),
    }


def find_worst_prior(landscape: CurveSurrogate, recorded: StudySpec) -> Prior:
    """Return priors of both learning rates where the landscape is worst: at the corner of their ranges with the lowest scores."""

    def score(corner: tuple[float, float]) -> float:
        rates = dict(zip(RATES, corner, strict=True))
        return sum(float(landscape.mean_curve({**arm.space.middle(), **rates})[-1]) for arm in recorded.arms())

    space = recorded.arms()[0].space
    ends = [(float(low), float(high)) for low, high in (space.values_of(name) for name in RATES)]
    worst = min(itertools.product(*ends), key=score)
    return tuple((name, center, PRIOR_WIDTH) for name, center in zip(RATES, worst, strict=True))


def simulate_sides(
    landscapes: Mapping[str, Landscape], num_seeds: int, *, is_whole: bool = False
) -> dict[Call, Watched]:
    """Return what each side does in each landscape, by seed.

    Of some sides, and where trials diverge, the choice after 40 full trials is of interest alone, and that is the budget.
    """
    calls, options = [], []
    for name, landscape in landscapes.items():
        worst = find_worst_prior(landscape.surrogate, landscape.spec)
        for side, setting in list_sides(worst).items():
            is_short = side in CHOICES_ALONE or landscape.has_divergence
            budget = EARLY_IN_FULL_TRIALS if is_short else BUDGET_IN_FULL_TRIALS
            for seed in range(landscape.count_seeds(side, num_seeds, is_whole=is_whole)):
                calls.append(Call(name, side, seed))
                options.append((landscape.surrogate, landscape.spec, setting, seed, budget))
    return dict(zip(calls, run_parallel(watch_search, options), strict=True))


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


def tabulate_saturation(found: Mapping[Call, Watched], name: str) -> Table:
    """Return what searches that end when they are saturated save, and what they lose, against the whole budget."""
    stopped, whole = _of(found, name, SATURATED), _of(found, name, LEADERS)
    spent = np.array([one.spent_seconds for one in stopped]) / np.median([one.spent_seconds for one in whole])
    differences = pd.Series([a.last_regret_pp - b.last_regret_pp for a, b in zip(stopped, whole, strict=True)])
    low, middle, high = (f"{100 * share:.0f} %" for share in np.quantile(spent, (0.1, 0.5, 0.9)))
    regret = format_interval(compute_mean_interval(pd.Series([one.last_regret_pp for one in stopped])))
    title = f"Searches that end when they are saturated, {name}, against {BUDGET_IN_FULL_TRIALS:g} full trials"
    columns = ["seeds", "device time: median (80 % range)", "mean regret pp", "minus that of the whole budget pp"]
    row = [
        str(len(stopped)),
        f"{middle} ({low} to {high})",
        regret,
        format_interval(compute_mean_interval(differences)),
    ]
    return Table(title, columns, [row])


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
    for mine in (side for side in (OURS, AT_PEAK, NO_ASHA, *NEED_COMPLETE) if _of(found, name, side)):
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


def load_landscapes() -> tuple[dict[str, Landscape], dict[str, Recording]]:
    """Return the landscapes, each fitted in a process of its own, and the recordings."""
    recordings = {name: load_curves(path) for name, (path, _) in LANDSCAPES.items()}
    kinds = [(recordings[name], regressor) for name, (_, regressor) in LANDSCAPES.items()]
    surrogates = run_parallel(CurveSurrogate.fit, kinds)
    landscapes = {
        name: Landscape(surrogate, recording.spec, has_goals=place == 0)
        for place, ((name, recording), surrogate) in enumerate(zip(recordings.items(), surrogates, strict=True))
    }
    return landscapes, recordings


def tabulate_searches(found: Mapping[Call, Watched], name: str, landscape: Landscape) -> list[Table]:
    """Return the tables of the searches in one landscape."""
    if landscape.has_divergence:
        return [tabulate_divergence(found, name)]
    tables = [tabulate_times(found, name, landscape), tabulate_trained(found, name, landscape)]
    tables += [tabulate_trials(found, name), tabulate_choices(found, name), tabulate_goals(found, name)]
    return [*tables, tabulate_saturation(found, name)] if _of(found, name, SATURATED) else tables


def tabulate_recording(recording: Recording, landscape: Landscape) -> list[Table]:
    """Return how well short schedules rank the recorded configurations."""
    tables = [] if landscape.has_divergence else [tabulate_epochs(recording)]
    if landscape.has_complete:
        surrogates = {arm: landscape.surrogate.surrogate(arm) for arm in landscape.surrogate.arms}
        tables += [tabulate_correlations(recording), tabulate_preferences(surrogates)]
    return [*tables, tabulate_beside(recording)] if recording.beside else tables


def main(
    seeds: Annotated[
        int | None, typer.Option(min=4, help=f"Default: {NUM_SEEDS[0]}, or {NUM_SEEDS[1]} with --whole.")
    ] = None,
    whole: Annotated[bool, typer.Option(help="The sides beside the default too, and more seeds.")] = False,
    output: Path = PAGE,
) -> None:
    """Print the tables and write them to SEARCH.md."""
    started = time.perf_counter()
    landscapes, recordings = load_landscapes()
    found = simulate_sides(landscapes, seeds or NUM_SEEDS[whole], is_whole=whole)
    tables: list[Table] = []
    described: set[Path] = set()
    for name, landscape in landscapes.items():
        tables += tabulate_searches(found, name, landscape)
        path, regressor = LANDSCAPES[name]
        if path not in described:
            tables += tabulate_recording(recordings[name], landscape)
        described.add(path)
        title = f"Surrogate of {path.name}, {regressor.replace('_', ' ')}: 10-fold cross-validation"
        tables.append(tabulate_quality(landscape.surrogate.qualities, title))
    for table in tables:
        table.print()
    minutes = (time.perf_counter() - started) / 60
    machine = describe_machine("ray", "optuna", "scikit-learn")
    write_page(output, [f"{today()}, {machine}; {minutes:.1f} minutes{', --whole' if whole else ''}.", *tables])


if __name__ == "__main__":
    typer.run(main)

"""Searches replayed on recorded curves: every sampler and allocation of this product, and stock OptunaSearch + ASHAScheduler.

    python -m benchmarks.search.search_replay

Simulates whole studies on the surrogate of the recorded curves (`benchmarks.search.curve_surrogate`), many seeds of each setting,
with the same workers, noise, costs and budget of device-seconds for all. Prints the tables and writes them to SEARCH.md.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pages import Table, describe_machine, today, write_page
from benchmarks.parallel import run_parallel
from benchmarks.search import replay_measures
from benchmarks.search.curve_surrogate import CurveSurrogate, tabulate_quality
from benchmarks.search.replay_curves import PARQUET, load_curves
from benchmarks.search.replay_measures import Measures, Summary, compute_mean_interval, format_interval
from benchmarks.search.replay_sides import STOCK, Setting, full_trial_seconds, simulate_study
from search_spaces.arms import POOLED_ARM
from search_spaces.errors import UserInputError, nearest_name
from study.scheduling.sampler import SAMPLERS
from study.spec.sections import SearchSpec
from study.spec.study_spec import StudySpec

SEARCH_MD = Path(__file__).parents[1] / "SEARCH.md"
ALLOCATIONS = ("per_arm", "pooled")
# All settings are simulated on this number of workers, and on others those that depend on it.
REFERENCE_WORKERS = 8
GAPS_PP = (0.5, 1.0, 2.0)

Landscapes = Mapping[float | None, CurveSurrogate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the grid: a way to search, on so many workers, at a true gap between the arms (None: as recorded)."""

    setting: Setting
    num_workers: int
    gap_pp: float | None = None


def default_setting() -> Setting:
    """Return the product's default way to search."""
    search = SearchSpec()
    return Setting(side="ours", sampler=search.sampler, allocation=search.allocation, asha=search.asha.enabled)


def make_plan(samplers: Sequence[str], workers: Sequence[int], gaps_pp: Sequence[float]) -> list[Cell]:
    """Return the cells to simulate; stock and the default setting are in every part.

    Settings that are slow to simulate and tell little are left out: see `_is_affordable`. Gaps are shifted on
    REFERENCE_WORKERS workers only.
    """
    for sampler in samplers:
        if sampler not in SAMPLERS:
            raise UserInputError(f"there is no sampler {sampler!r}{nearest_name(sampler, SAMPLERS)}")
    default = default_setting()
    settings = [
        Setting(side="ours", sampler=sampler, allocation=allocation, asha=asha)
        for sampler in samplers
        for allocation in ALLOCATIONS
        for asha in (True, False)
    ]
    cells = []
    for num_workers in workers:
        chosen = [s for s in settings if s != default and _is_affordable(s, num_workers)]
        cells += [Cell(setting=s, num_workers=num_workers) for s in (STOCK, default, *chosen)]
    if REFERENCE_WORKERS in workers:
        pairs = itertools.product(gaps_pp, (STOCK, default))
        cells += [Cell(setting=s, num_workers=REFERENCE_WORKERS, gap_pp=gap_pp) for gap_pp, s in pairs]
    return cells


def _is_affordable(setting: Setting, num_workers: int) -> bool:
    if setting.sampler == "gp":
        return setting.allocation == "per_arm" and setting.asha and num_workers == REFERENCE_WORKERS
    if num_workers > REFERENCE_WORKERS:
        return setting.allocation == "per_arm" and setting.asha
    return setting.asha or num_workers == REFERENCE_WORKERS


def budget_in_full_trials(num_workers: int) -> float:
    """Return the budget of a study, in full trials of mean cost over the arms."""
    return max(40.0, 1.5 * num_workers)


def _simulate_one(landscape: CurveSurrogate, recorded: StudySpec, cell: Cell, seed: int) -> Measures:
    budget = budget_in_full_trials(cell.num_workers) * full_trial_seconds(landscape)[POOLED_ARM]
    options = {"num_workers": cell.num_workers, "seed": seed}
    outcome = simulate_study(landscape, recorded, cell.setting, budget_seconds=budget, **options)
    return replay_measures.measure(outcome, landscape, budget)


def run_plan(
    plan: Sequence[Cell], landscapes: Landscapes, recorded: StudySpec, *, num_seeds: int
) -> dict[Cell, Summary]:
    """Simulate seeds 0 to num_seeds - 1 of every cell."""
    # Long studies first, so that no process ends late.
    tasks = [(c, seed) for c in sorted(plan, key=lambda c: -c.num_workers) for seed in range(num_seeds)]
    results = run_parallel(_simulate_one, ((landscapes[c.gap_pp], recorded, c, seed) for c, seed in tasks))
    measures: dict[Cell, list[Measures]] = defaultdict(list)
    for (cell, _), result in zip(tasks, results, strict=True):
        measures[cell].append(result)
    return {cell: Summary(measures[cell]) for cell in plan}


def tabulate_results(summaries: Mapping[Cell, Summary], gap_pp: float | None, num_workers: int, title: str) -> Table:
    """Return the table of the cells with this gap and number of workers, least regret first, stock's differences shown."""
    cells = [c for c in summaries if (c.gap_pp, c.num_workers) == (gap_pp, num_workers)]
    stock = summaries[Cell(setting=STOCK, num_workers=num_workers, gap_pp=gap_pp)]
    rows = []
    for cell in sorted(cells, key=lambda c: summaries[c].regret_pp.estimate):
        s = summaries[cell]
        difference = compute_mean_interval(s.measures["regret_pp"] - stock.measures["regret_pp"])
        label = cell.setting.label + (" (default)" if cell.setting == default_setting() else "")
        regret = (format_interval(s.regret_pp), "" if cell.setting == STOCK else format_interval(difference))
        wrong = f"{s.num_wrong}/{s.num_studies} [{s.wrong.low:.2f}, {s.wrong.high:.2f}]"
        share = f"{s.median('least_share'):.2f} ({s.lowest_share:.2f})"
        spent, idle = (f"{100 * s.median(name):.0f} %" for name in ("spent_fraction", "idle_fraction"))
        rows.append((label, *regret, wrong, share, f"{s.median('num_trials'):.0f}", spent, idle))
    columns = ("", "regret pp", "minus stock pp", "wrong arm", "least share (lowest)", "trials", "spent", "idle")
    return Table(title, columns, rows)


def tabulate_goals(summaries: Mapping[Cell, Summary]) -> Table:
    """Return the three goals, for the default setting against stock, wherever both were simulated."""
    rows = []
    for stock_cell in (c for c in summaries if c.setting == STOCK):
        ours = Cell(setting=default_setting(), num_workers=stock_cell.num_workers, gap_pp=stock_cell.gap_pp)
        where = f"{_gap_label(stock_cell.gap_pp)}, {stock_cell.num_workers} workers"
        for goal in replay_measures.judge_goals(summaries[ours], summaries[stock_cell]):
            verdict = {True: "met", False: "MISSED", None: "open: neither was wrong"}[goal.is_met]
            rows.append((where, goal.name, goal.figures, verdict))
    return Table(f"Goals: {default_setting().label} against stock", ("", "goal", "", ""), rows)


def _gap_label(gap_pp: float | None) -> str:
    return "gap as recorded" if gap_pp is None else f"gap {gap_pp:g} pp"


def tabulate_all(summaries: Mapping[Cell, Summary], landscapes: Landscapes) -> list[Table]:
    """Return every result table, then the goals."""
    tables = []
    for gap_pp, num_workers in dict.fromkeys((c.gap_pp, c.num_workers) for c in summaries):
        best = ", ".join(f"{arm} {100 * value:.2f}" for arm, value in landscapes[gap_pp].true_best.items())
        budget = f"{budget_in_full_trials(num_workers):.0f} full trials"
        title = f"{_gap_label(gap_pp)} (true best {best}), {num_workers} workers, budget {budget}"
        tables.append(tabulate_results(summaries, gap_pp, num_workers, title))
    return [*tables, tabulate_goals(summaries)]


def main(
    path: Path = PARQUET,
    seeds: Annotated[int, typer.Option(min=2)] = 40,
    workers: Annotated[list[int] | None, typer.Option(help="Simulated workers; repeat for several.")] = None,
    samplers: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    output: Path = SEARCH_MD,
) -> None:
    """Print the surrogate's quality, the replay tables and the goals; write them to SEARCH.md."""
    started = time.perf_counter()
    recording = load_curves(path)
    surrogate = CurveSurrogate.fit(recording)
    landscapes: dict[float | None, CurveSurrogate] = {None: surrogate}
    landscapes |= {gap_pp: surrogate.with_gap(gap_pp / 100.0) for gap_pp in GAPS_PP}
    plan = make_plan(samplers or SAMPLERS, workers or [4, REFERENCE_WORKERS, 64], GAPS_PP)
    summaries = run_plan(plan, landscapes, recording.spec, num_seeds=seeds)
    quality = tabulate_quality(surrogate.qualities, f"Surrogate of {path.name}: 10-fold cross-validation")
    tables = [quality, *tabulate_all(summaries, landscapes)]
    minutes = (time.perf_counter() - started) / 60
    machine = (
        f"{today()}, {describe_machine('ray', 'optuna', 'scikit-learn')}; {len(plan)} settings x {seeds} seeds in "
    )
    for table in tables:
        table.print()
    write_page(output, [f"{machine}{minutes:.1f} minutes.", *tables])


if __name__ == "__main__":
    typer.run(main)

"""Searches replayed on recorded curves: every sampler and allocation of this product, and stock OptunaSearch + ASHAScheduler.

    python -m benchmarks.search.search_replay

Simulates whole studies on the surrogate of the recorded curves (`benchmarks.search.curve_surrogate`), many seeds of each setting,
with the same workers, noise, costs and budget of device-seconds for all. Prints the tables and writes them to SEARCH.md.
"""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import threadpoolctl  # type: ignore[import-untyped]
import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.search.curve_surrogate import CurveSurrogate, make_quality_grid
from benchmarks.search.record_curves import PARQUET
from benchmarks.search.replay_curves import load_curves
from benchmarks.search.replay_measures import (
    Measures,
    Summary,
    compute_mean_interval,
    format_interval,
    judge_goals,
    measure,
    summarise,
)
from benchmarks.search.replay_sides import STOCK, Setting, full_trial_seconds, simulate_study
from benchmarks.search.replay_simulation import Landscape
from benchmarks.search.replay_tables import Grid
from search_spaces.arms import POOLED_ARM
from search_spaces.errors import UserInputError, nearest_name
from study.scheduling.sampler import SAMPLERS
from study.spec.study_spec import SearchSpec, StudySpec

SEARCH_MD = Path(__file__).parents[1] / "SEARCH.md"
ALLOCATIONS = ("per_arm", "pooled")
# The setting that is looked at from every side; the others are looked at for what depends on the number of workers.
REFERENCE_WORKERS = 8
GAPS_PP = (0.5, 1.0, 2.0)

Landscapes = Mapping[float | None, Landscape]


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


def make_plan(samplers: Sequence[str], workers: Sequence[int], gaps_pp: Sequence[float], *, whole: bool) -> list[Cell]:
    """Return the cells to simulate; stock and the default setting are in every part.

    Unless `whole`, what is dear and says little is left out: searches without ASHA and shifted gaps on other than
    REFERENCE_WORKERS workers, pooled searches on more, and GP but for one setting.
    """
    for sampler in samplers:
        if sampler not in SAMPLERS:
            raise UserInputError(f"there is no sampler {sampler!r}{nearest_name(sampler, SAMPLERS)}")
    cells = [
        Cell(setting=setting, num_workers=num_workers)
        for num_workers in workers
        for setting in _settings(samplers, num_workers, whole=whole)
    ]
    gap_workers = [w for w in workers if whole or w == REFERENCE_WORKERS]
    for gap_pp in gaps_pp:
        for num_workers in gap_workers:
            cells += [Cell(setting=s, num_workers=num_workers, gap_pp=gap_pp) for s in (STOCK, default_setting())]
    return cells


def _settings(samplers: Sequence[str], num_workers: int, *, whole: bool) -> list[Setting]:
    default = default_setting()
    chosen = [STOCK, default]
    for sampler in samplers:
        for allocation in ALLOCATIONS:
            for asha in (True, False):
                setting = Setting(side="ours", sampler=sampler, allocation=allocation, asha=asha)
                if setting != default and (whole or _is_affordable(setting, num_workers)):
                    chosen.append(setting)
    return chosen


def _is_affordable(setting: Setting, num_workers: int) -> bool:
    if setting.sampler == "gp":
        return setting.allocation == "per_arm" and setting.asha and num_workers == REFERENCE_WORKERS
    if num_workers > REFERENCE_WORKERS:
        return setting.allocation == "per_arm" and setting.asha
    return setting.asha or num_workers == REFERENCE_WORKERS


def budget_in_full_trials(num_workers: int) -> float:
    """Return the budget of a study, in full trials of mean cost over the arms."""
    return max(40.0, 1.5 * num_workers)


_landscapes: Landscapes
_recorded: StudySpec


def _start_process(landscapes: Landscapes, recorded: StudySpec) -> None:
    global _landscapes, _recorded
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    _landscapes, _recorded = landscapes, recorded


def _simulate_one(task: tuple[Cell, int]) -> Measures:
    cell, seed = task
    landscape = _landscapes[cell.gap_pp]
    budget_seconds = budget_in_full_trials(cell.num_workers) * full_trial_seconds(landscape)[POOLED_ARM]
    outcome = simulate_study(
        landscape,
        _recorded,
        cell.setting,
        num_workers=cell.num_workers,
        budget_seconds=budget_seconds,
        seed=seed,
    )
    return measure(outcome, landscape, budget_seconds)


def run_plan(
    plan: Sequence[Cell], landscapes: Landscapes, recorded: StudySpec, *, num_seeds: int, num_processes: int
) -> dict[Cell, Summary]:
    """Simulate seeds 0 to num_seeds - 1 of every cell on a pool of processes of one thread each."""
    # Long studies first, so that no process ends late.
    tasks = [(c, seed) for c in sorted(plan, key=lambda c: -c.num_workers) for seed in range(num_seeds)]
    measures: dict[Cell, list[Measures]] = defaultdict(list)
    pool = ProcessPoolExecutor(
        num_processes, mp_context=get_context("spawn"), initializer=_start_process, initargs=(landscapes, recorded)
    )
    with pool:
        results = pool.map(_simulate_one, tasks, chunksize=4)
        for (cell, _), result in track(zip(tasks, results, strict=True), "studies", total=len(tasks)):
            measures[cell].append(result)
    return {cell: summarise(measures[cell]) for cell in plan}


def make_result_grid(summaries: Mapping[Cell, Summary], gap_pp: float | None, num_workers: int, title: str) -> Grid:
    """Return the table of the cells with this gap and number of workers, least regret first, stock's differences shown."""
    cells = [c for c in summaries if (c.gap_pp, c.num_workers) == (gap_pp, num_workers)]
    stock = summaries[Cell(setting=STOCK, num_workers=num_workers, gap_pp=gap_pp)]
    rows = []
    for cell in sorted(cells, key=lambda c: summaries[c].regret_pp.estimate):
        s, is_stock = summaries[cell], cell.setting == STOCK
        difference = compute_mean_interval(s.regrets_pp - stock.regrets_pp)
        mark = " (default)" if cell.setting == default_setting() else ""
        rows.append(
            (
                cell.setting.label + mark,
                format_interval(s.regret_pp),
                "" if is_stock else format_interval(difference),
                f"{s.num_wrong}/{s.num_studies} [{s.wrong.low:.2f}, {s.wrong.high:.2f}]",
                f"{s.median_share:.2f} ({s.lowest_share:.2f})",
                f"{s.num_trials:.0f}",
                f"{100 * s.spent_fraction:.0f} %",
                f"{100 * s.idle_fraction:.0f} %",
            )
        )
    columns = ("", "regret pp", "minus stock pp", "wrong arm", "least share (lowest)", "trials", "spent", "idle")
    return Grid(title=title, columns=columns, rows=rows)


def make_goal_grid(summaries: Mapping[Cell, Summary]) -> Grid:
    """Return the three goals, for the default setting against stock, wherever both were simulated."""
    rows = []
    for stock_cell in (c for c in summaries if c.setting == STOCK):
        ours = Cell(setting=default_setting(), num_workers=stock_cell.num_workers, gap_pp=stock_cell.gap_pp)
        where = f"{_gap_label(stock_cell.gap_pp)}, {stock_cell.num_workers} workers"
        for goal in judge_goals(summaries[ours], summaries[stock_cell]):
            verdict = {True: "met", False: "MISSED", None: "open: nobody was wrong"}[goal.is_met]
            rows.append((where, goal.name, goal.figures, verdict))
    return Grid(title=f"Goals: {default_setting().label} against stock", columns=("", "goal", "", ""), rows=rows)


def _gap_label(gap_pp: float | None) -> str:
    return "gap as recorded" if gap_pp is None else f"gap {gap_pp:g} pp"


def make_grids(summaries: Mapping[Cell, Summary], landscapes: Landscapes) -> list[Grid]:
    """Return every result table, then the goals."""
    grids = []
    for gap_pp, num_workers in dict.fromkeys((c.gap_pp, c.num_workers) for c in summaries):
        best = ", ".join(f"{arm} {100 * value:.2f}" for arm, value in landscapes[gap_pp].true_best.items())
        budget = f"{budget_in_full_trials(num_workers):.0f} full trials"
        title = f"{_gap_label(gap_pp)} (true best {best}), {num_workers} workers, budget {budget}"
        grids.append(make_result_grid(summaries, gap_pp, num_workers, title))
    return [*grids, make_goal_grid(summaries)]


def describe_run(plan: Sequence[Cell], num_seeds: int, seconds: float, *, whole: bool) -> str:
    """Return the lines above the tables: machine, versions, date, how to read them, what was left out."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "optuna", "scikit-learn"))
    left_out = (
        ""
        if whole
        else (
            " Left out to stay under ten minutes (`--whole` has them): GP pooled, without ASHA and on other than "
            f"{REFERENCE_WORKERS} workers; searches without ASHA and shifted gaps on other than {REFERENCE_WORKERS} workers; "
            "pooled searches on more."
        )
    )
    return (
        f"{datetime.now(UTC).date()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, {packages}; "
        f"{len(plan)} settings x {num_seeds} seeds in {seconds / 60:.1f} minutes.\n\n"
        "Regret is the true best over all arms minus the true (noise-free) last-epoch macro-F1 of the configuration that the "
        "study hands out. Noise is whole out-of-fold residual curves of recorded trials with similar curves: seed noise and "
        "misfit of the surrogate together, so more than a real study's. The budget is device-seconds, in full trials of mean "
        "cost over the arms; both sides start a trial while their committed seconds leave room for it. A shifted gap moves the "
        "weaker arm's whole curves by a constant. Least share: device time of the arm that got least, 1 is equal. Spent: of the "
        "budget. Trials, spent and idle are medians. Intervals: 95 %, Student's for means, Clopper-Pearson's for rates."
        f"{left_out}\n"
    )


def main(
    path: Path = PARQUET,
    seeds: Annotated[int, typer.Option(min=2)] = 40,
    workers: Annotated[list[int] | None, typer.Option(help="simulated workers; repeat for several")] = None,
    samplers: Annotated[list[str] | None, typer.Option(help="repeat for several")] = None,
    processes: int = 2,
    quick: Annotated[bool, typer.Option("--quick", help="ten seeds, no GP, 8 workers")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="every combination, hours")] = False,
    output: Path = SEARCH_MD,
) -> None:
    """Print the surrogate's quality, the replay tables and the goals; write them to SEARCH.md."""
    started = time.perf_counter()
    recording = load_curves(path)
    surrogate = CurveSurrogate.fit(recording)
    landscapes: dict[float | None, Landscape] = {None: surrogate}
    landscapes |= {gap_pp: surrogate.with_gap(gap_pp / 100.0) for gap_pp in GAPS_PP}
    chosen_samplers = samplers or (SAMPLERS[:-1] if quick else SAMPLERS)
    chosen_workers = workers or ([REFERENCE_WORKERS] if quick else [4, REFERENCE_WORKERS, 64])
    plan = make_plan(chosen_samplers, chosen_workers, GAPS_PP, whole=whole)
    num_seeds = min(seeds, 10) if quick else seeds
    summaries = run_plan(plan, landscapes, recording.spec, num_seeds=num_seeds, num_processes=processes)
    quality = make_quality_grid(surrogate.qualities, f"Surrogate of {path.name}: 10-fold cross-validation")
    grids = [quality, *make_grids(summaries, landscapes)]
    description = describe_run(plan, num_seeds, time.perf_counter() - started, whole=whole)
    console = Console(width=150)
    console.print(description)
    for grid in grids:
        console.print(grid.to_rich())
    text = "\n".join(["# Searches replayed on recorded curves\n", description, *(grid.to_markdown() for grid in grids)])
    output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

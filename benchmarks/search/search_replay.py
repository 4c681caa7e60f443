"""Searches replayed on recorded curves: every sampler and allocation of this product, and stock OptunaSearch + ASHAScheduler.

    python -m benchmarks.search.search_replay

Simulates whole studies on the surrogate of the recorded curves (`benchmarks.search.curve_surrogate`), many seeds of each setting,
with the same workers, noise, costs and budget of device-seconds for all. Prints the tables and writes them to SEARCH_GRID.md.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pages import Table, describe_machine, today, write_page
from benchmarks.parallel import run_parallel
from benchmarks.search import replay_measures
from benchmarks.search.curve_surrogate import CurveSurrogate, tabulate_quality
from benchmarks.search.replay_curves import PARQUET, Recording, load_curves
from benchmarks.search.replay_measures import Measures, Summary, compare_wrong, compute_mean_interval, format_interval
from benchmarks.search.replay_sides import (
    STOCK,
    STOCK_PER_ARM,
    STOCK_WITH_PORTFOLIO,
    Setting,
    full_trial_seconds,
    simulate_study,
)
from search_spaces.designs import POOLED_ARM
from search_spaces.errors import UserInputError, nearest_name
from study.spec.sections import SAMPLERS, SearchSpec
from study.spec.study_spec import StudySpec

SEARCH_MD = Path(__file__).parents[1] / "SEARCH_GRID.md"
# All settings are simulated on this number of workers, and on others, and in other landscapes, those that tell most.
REFERENCE_WORKERS = 8
GAPS_PP = (0.5, 2.0)
# Above this maximum learning rate, every trial of the diverging landscape diverges: a sixth of the space on its log scale.
DIVERGES_ABOVE = 0.3
RECORDED, EXTRA_TREES, DIVERGING = "recorded", "extra trees", f"trials with max_lr > {DIVERGES_ABOVE:g} diverge"
# So few trials as here, "auto" suggests by "gp" alone.
WITH_GP = ("auto", "gp")
RANDOM_PER_ARM = Setting(side="ours", sampler="random", allocation="per_arm", asha=True, has_portfolio=True)

Landscapes = Mapping[str, CurveSurrogate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the grid: a way to search, on so many workers, in one landscape."""

    setting: Setting
    num_workers: int
    landscape: str = RECORDED


def default_setting() -> Setting:
    """Return the product's default way to search."""
    search = SearchSpec()
    return Setting(
        side="ours", sampler=search.sampler, allocation=search.allocation, asha=search.asha.enabled, has_portfolio=True
    )


def make_landscapes(recording: Recording) -> dict[str, CurveSurrogate]:
    """Return the landscapes by name: as recorded, with shifted gaps between the arms, of other trees, and with divergence."""
    surrogate = CurveSurrogate.fit(recording)
    return {
        RECORDED: surrogate,
        **{name_gap(gap_pp): surrogate.with_gap(gap_pp / 100.0) for gap_pp in GAPS_PP},
        EXTRA_TREES: CurveSurrogate.fit(recording, "extra_trees"),
        DIVERGING: surrogate.with_divergence(DIVERGES_ABOVE),
    }


def name_gap(gap_pp: float) -> str:
    """Return the name of the landscape with this gap between the arms."""
    return f"gap {gap_pp:g} pp"


def make_plan(samplers: Sequence[str], workers: Sequence[int]) -> list[Cell]:
    """Return the cells to simulate.

    Stock, stock with one study per arm, random search per arm and the default are in every part, so that the part of the
    allocation and that of the sampler can be told apart; on few workers also stock with the portfolio, and random search and the
    default without it. Every other setting is simulated on REFERENCE_WORKERS workers in the recorded landscape; those with a
    Gaussian process, which is slow, per arm with ASHA alone.
    """
    for sampler in samplers:
        if sampler not in SAMPLERS:
            raise UserInputError(f"there is no sampler {sampler!r}{nearest_name(sampler, SAMPLERS)}")
    default = default_setting()
    core = (STOCK, STOCK_PER_ARM, default, RANDOM_PER_ARM)
    other_start = (
        STOCK_WITH_PORTFOLIO,
        replace(default, has_portfolio=False),
        replace(RANDOM_PER_ARM, has_portfolio=False),
    )
    cells = [Cell(setting=s, num_workers=num_workers) for num_workers in workers for s in core]
    few = [num_workers for num_workers in workers if num_workers <= REFERENCE_WORKERS]
    cells += [Cell(setting=s, num_workers=num_workers) for num_workers in few for s in other_start]
    if REFERENCE_WORKERS in workers:
        kinds = [(sampler, "per_arm", asha) for sampler in samplers for asha in (True, False)]
        kinds += [(sampler, "pooled", True) for sampler in samplers]
        settings = [
            Setting(side="ours", sampler=s, allocation=allocation, asha=asha, has_portfolio=True)
            for s, allocation, asha in kinds
        ]
        settings = [s for s in settings if s.sampler not in WITH_GP or (s.allocation == "per_arm" and s.asha)]
        cells += [Cell(setting=s, num_workers=REFERENCE_WORKERS) for s in settings if s not in core]
        others = itertools.product((*map(name_gap, GAPS_PP), EXTRA_TREES, DIVERGING), core)
        cells += [Cell(setting=s, num_workers=REFERENCE_WORKERS, landscape=name) for name, s in others]
        cells += [Cell(setting=s, num_workers=REFERENCE_WORKERS, landscape=EXTRA_TREES) for s in other_start]
    return cells


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
    results = run_parallel(_simulate_one, ((landscapes[c.landscape], recorded, c, seed) for c, seed in tasks))
    measures: dict[Cell, list[Measures]] = defaultdict(list)
    for (cell, _), result in zip(tasks, results, strict=True):
        measures[cell].append(result)
    return {cell: Summary(measures[cell]) for cell in plan}


def tabulate_results(summaries: Mapping[Cell, Summary], landscape: str, num_workers: int, title: str) -> Table:
    """Return the table of one landscape and number of workers, least regret first, each row compared with stock."""
    cells = [c for c in summaries if (c.landscape, c.num_workers) == (landscape, num_workers)]
    stock = summaries[Cell(setting=STOCK, num_workers=num_workers, landscape=landscape)]
    rows = []
    for cell in sorted(cells, key=lambda c: summaries[c].regret_pp.estimate):
        s = summaries[cell]
        difference = compute_mean_interval(s.measures["regret_pp"] - stock.measures["regret_pp"])
        label = cell.setting.label + (" (default)" if cell.setting == default_setting() else "")
        regret = (format_interval(s.regret_pp), "" if cell.setting == STOCK else format_interval(difference))
        wrong = f"{s.num_wrong}/{s.num_studies} [{s.wrong.low:.2f}, {s.wrong.high:.2f}]"
        p_value = "" if cell.setting == STOCK else f"{compare_wrong(s, stock):.3f}"
        share = f"{s.median('least_share'):.2f} ({s.lowest_share:.2f})"
        spent, idle = (f"{100 * s.median(name):.0f} %" for name in ("spent_fraction", "idle_fraction"))
        rows.append((label, *regret, wrong, p_value, share, f"{s.median('num_trials'):.0f}", spent, idle))
    columns = ("", "regret pp", "minus stock pp", "wrong arm", "p", "least share (lowest)", "trials", "spent", "idle")
    return Table(title, columns, rows)


def tabulate_goals(summaries: Mapping[Cell, Summary]) -> Table:
    """Return the three goals, for the default setting against stock, wherever both were simulated."""
    rows: list[tuple[str, ...]] = []
    for stock_cell in (c for c in summaries if c.setting == STOCK):
        ours = replace(stock_cell, setting=default_setting())
        where = f"{stock_cell.landscape}, {stock_cell.num_workers} workers"
        goals = replay_measures.judge_goals(summaries[ours], summaries[stock_cell])
        rows += [(where, goal.name, goal.figures, goal.verdict) for goal in goals]
    return Table(f"Goals: {default_setting().label} against stock", ("", "goal", "", ""), rows)


def tabulate_all(summaries: Mapping[Cell, Summary], landscapes: Landscapes) -> list[Table]:
    """Return every result table, then the goals."""
    tables = []
    for landscape, num_workers in dict.fromkeys((c.landscape, c.num_workers) for c in summaries):
        best = ", ".join(f"{arm} {100 * value:.2f}" for arm, value in landscapes[landscape].true_best.items())
        budget = f"{budget_in_full_trials(num_workers):.0f} full trials"
        title = f"{landscape} (true best {best}), {num_workers} workers, budget {budget}"
        tables.append(tabulate_results(summaries, landscape, num_workers, title))
    return [*tables, tabulate_goals(summaries)]


def main(
    path: Path = PARQUET,
    seeds: Annotated[int, typer.Option(min=2)] = 40,
    workers: Annotated[list[int] | None, typer.Option(help="Simulated workers; repeat for several.")] = None,
    samplers: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    output: Path = SEARCH_MD,
) -> None:
    """Print the surrogate's quality, the replay tables and the goals; write them to SEARCH_GRID.md."""
    started = time.perf_counter()
    recording = load_curves(path)
    landscapes = make_landscapes(recording)
    plan = make_plan(samplers or [name for name in SAMPLERS if name != "gp"], workers or [4, REFERENCE_WORKERS, 64])
    summaries = run_plan(plan, landscapes, recording.spec, num_seeds=seeds)
    qualities = [
        tabulate_quality(landscapes[name].qualities, f"Surrogate of {path.name}, {name}: 10-fold cross-validation")
        for name in (RECORDED, EXTRA_TREES)
    ]
    tables = [*qualities, *tabulate_all(summaries, landscapes)]
    minutes = (time.perf_counter() - started) / 60
    machine = (
        f"{today()}, {describe_machine('ray', 'optuna', 'scikit-learn')}; {len(plan)} settings x {seeds} seeds in "
    )
    for table in tables:
        table.print()
    write_page(output, [f"{machine}{minutes:.1f} minutes.", *tables])


if __name__ == "__main__":
    typer.run(main)

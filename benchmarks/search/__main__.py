"""The search on pools of recorded trainings, without a model of them; writes SEARCH.md.

    python -m benchmarks.search [--sample]

Finished searches are kept in .venv/cache/worlds, so that a run that was stopped resumes. Needs the folder named by STUDY_DATA.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pages import describe_machine, today, write_page
from benchmarks.search.candidates import CANDIDATES
from benchmarks.search.pool_search import PoolSearch, run_search
from benchmarks.search.pool_tables import (
    RANDOM,
    TPE,
    measure,
    tabulate_arms,
    tabulate_excess,
    tabulate_pools,
    tabulate_pruning,
    tabulate_regrets,
)
from benchmarks.search.pools import POOLS, load_pool
from benchmarks.search.replay_sides import STOCK_PER_ARM, Setting, default_setting
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "SEARCH.md"
# Searches of each side, in pools of 1,000 configurations and in smaller ones.
NUM_LARGE, NUM_SMALL, NUM_SAMPLE = 200, 60, 4
CHOOSING = tuple(name for name, (_, _, _, use) in POOLS.items() if use == "choosing")
DEFAULT, NO_PRUNING = "default", "no pruning"
OURS = replace(default_setting(), has_portfolio=False)
SIDES: dict[str, Setting] = {
    DEFAULT: OURS,
    f"{DEFAULT}, recipes": replace(OURS, has_portfolio=True),
    NO_PRUNING: replace(OURS, asha=False),
    "stock": STOCK_PER_ARM,
    "stock, recipes": replace(STOCK_PER_ARM, has_portfolio=True),
    TPE: replace(OURS, sampler="tpe_multivariate", asha=False),
    RANDOM: replace(OURS, sampler="random", asha=False),
}
RUNGS = {f"rungs from {part:g}": replace(OURS, rung_part=part) for part in (0.25, 0.5, 0.75)}
TRIED = {name: replace(OURS, sampler=name, asha=False) for name in CANDIDATES}


def list_searches(pools: list[str], sides: dict[str, Setting]) -> dict[tuple[str, str], PoolSearch]:
    """Return the searches by pool and side; recipes are of image classifiers alone."""
    return {
        (pool, name): PoolSearch(pool=pool, setting=setting)
        for pool in pools
        for name, setting in sides.items()
        if not setting.has_portfolio or load_pool(pool).spec.train.trainable == "network"
    }


def main(
    sample: Annotated[
        bool, typer.Option(help=f"{NUM_SAMPLE} searches of each side: a quarter of an hour of a core.")
    ] = False,
    candidates: Annotated[bool, typer.Option(help="The candidates for the default's sampler.")] = False,
    pruning: Annotated[bool, typer.Option(help="The places of ASHA's first rung.")] = False,
    kept: Annotated[bool, typer.Option(help="The pools that are kept to confirm the default, too.")] = False,
    searches: Annotated[int | None, typer.Option(min=2, help="Searches of each side, at most.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Sides alone, beside TPE and random; repeat for several.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Of finished searches.")] = DEFAULT_FOLDER,
    output: Path | None = PAGE,
) -> None:
    """Print the tables and write them to SEARCH.md."""
    started, cache = time.perf_counter(), WorldCache(folder=folder)
    sides = {**(TRIED if candidates else RUNGS if pruning else SIDES), **{name: SIDES[name] for name in (TPE, RANDOM)}}
    if pruning:
        sides |= {NO_PRUNING: SIDES[NO_PRUNING]}
    sides = {name: side for name, side in sides.items() if not only or name in (*only, TPE, RANDOM)}
    pools = list(POOLS) if kept else list(CHOOSING)
    plan = list_searches(pools, sides)
    most = searches or (NUM_SAMPLE if sample else NUM_LARGE)
    counts = {pool: min(most, NUM_LARGE if load_pool(pool).trials[-1] == 40 else NUM_SMALL) for pool in pools}
    calls = {place: [(search, seed) for seed in range(counts[place[0]])] for place, search in plan.items()}
    cache.compute(run_search, [call for own in calls.values() for call in own])
    measured = measure({place: cache.recall(run_search, own) for place, own in calls.items()}, plan)
    names = [name for name in sides if all((pool, name) in plan for pool in pools)]
    tables = [tabulate_pools(), *(tabulate_regrets(measured, pool) for pool in pools)]
    tables += [tabulate_arms(measured, pool) for pool in pools if len(load_pool(pool).arms) > 1]
    tables.append(tabulate_excess(measured, [n for n in names if n not in (TPE, RANDOM)], pools, "Regret above TPE's"))
    if NO_PRUNING in names:
        ways = [name for name in names if sides[name].asha]
        tables.append(tabulate_pruning(measured, ways, NO_PRUNING, pools))
    for table in tables:
        table.print()
    minutes = (time.perf_counter() - started) / 60
    if output is not None:
        write_page(output, [f"{today()}, {describe_machine('ray', 'optuna')}; {minutes:.1f} minutes.", *tables])


if __name__ == "__main__":
    typer.run(main)

"""The search on pools of recorded trainings, without a model of them; writes SEARCH.md.

    python -m benchmarks.search [--sample]

Finished searches are kept in .venv/cache/worlds, so that a run that was stopped resumes. Needs the folder named by STUDY_DATA.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pages import Table, describe_machine, today, write_page
from benchmarks.search.pool_search import PoolSearch, run_search
from benchmarks.search.pool_tables import (
    RANDOM,
    TPE,
    Measured,
    measure,
    tabulate_arms,
    tabulate_excess,
    tabulate_pools,
    tabulate_pruning,
    tabulate_random,
    tabulate_regrets,
)
from benchmarks.search.pools import POOLS, load_pool
from benchmarks.search.replay_sides import STOCK_PER_ARM, Setting, default_setting
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "SEARCH.md"
# Searches of each side, in pools of 1,000 configurations and in smaller ones, and of a sample.
NUM_LARGE, NUM_SMALL, NUM_SAMPLE = 200, 60, 24
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


def list_searches(pools: list[str]) -> dict[tuple[str, str], PoolSearch]:
    """Return the searches by pool and side; recipes are of image classifiers alone."""
    return {
        (pool, name): PoolSearch(pool=pool, setting=setting)
        for pool in pools
        for name, setting in SIDES.items()
        if not setting.has_portfolio or load_pool(pool).spec.train.trainable == "network"
    }


def tabulate_searches(measured: Measured, pools: list[str]) -> list[Table]:
    """Return the tables of all pools, then those over pools."""
    tables = [tabulate_pools(pools), *(tabulate_regrets(measured, pool) for pool in pools)]
    tables += [tabulate_arms(measured, pool) for pool in pools if len(load_pool(pool).arms) > 1]
    tables.append(tabulate_random(measured, [DEFAULT, "stock", TPE], pools))
    tables.append(tabulate_excess(measured, [DEFAULT, NO_PRUNING, "stock"], pools))
    return [*tables, tabulate_pruning(measured, [DEFAULT], NO_PRUNING, pools)]


def main(
    sample: Annotated[
        bool, typer.Option(help=f"{NUM_SAMPLE} searches of each side, a quarter of an hour of a core.")
    ] = False,
    kept: Annotated[bool, typer.Option(help="The pools too that are kept to confirm the default.")] = False,
    folder: Annotated[Path, typer.Option(help="Of finished searches.")] = DEFAULT_FOLDER,
    output: Path = PAGE,
) -> None:
    """Print the tables and write them to SEARCH.md."""
    cache = WorldCache(folder=folder)
    pools = [name for name, (_, _, _, use) in POOLS.items() if kept or use == "choosing"]
    plan = list_searches(pools)
    counts = {pool: NUM_SAMPLE if sample else NUM_LARGE if load_pool(pool).is_large else NUM_SMALL for pool in pools}
    calls = {place: [(search, seed) for seed in range(counts[place[0]])] for place, search in plan.items()}
    cache.compute(run_search, [call for own in calls.values() for call in own])
    tables = tabulate_searches(
        measure({place: cache.recall(run_search, own) for place, own in calls.items()}, plan), pools
    )
    for table in tables:
        table.print()
    write_page(output, [f"{today()}, {describe_machine('ray', 'optuna')}.", *tables])


if __name__ == "__main__":
    typer.run(main)

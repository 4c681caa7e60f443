"""Verdicts and intervals on data as users have them, drawn from pools of predictions; writes benchmarks/POOLS.md.

A run that was stopped resumes: the blocks of finished rounds are stored, and the page is written from them.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from benchmarks.pages import Table, publish_simulation
from benchmarks.validation.goals import WIDE_COVERAGE, Goals, Judgement, Rate, count_open, list_problems
from benchmarks.validation.pool_rounds import (
    ALPHA,
    DECIDED,
    FLAGGED,
    NULL_MARGIN,
    WITHHELD,
    WRONG_CLAIM,
    WRONG_EQUIVALENT,
    Arms,
    Kind,
    PoolCell,
    Round,
    measure_block,
    score_pool,
)
from benchmarks.validation.prediction_pools import (
    CATS_AND_DOGS,
    CIFAR10,
    DIGITS,
    EASY_DIGITS,
    FITTED,
    GROUPED,
    NUMBERS,
    ONES_AND_EIGHTS,
    POOL_MAKERS,
    UNEQUAL,
    load_pool,
)
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "POOLS.md"
FALSE_DISCOVERY_RATE = 0.10
GOALS = {WRONG_CLAIM: ALPHA, WRONG_EQUIVALENT: ALPHA / 2, WITHHELD: 0.2, FLAGGED: FALSE_DISCOVERY_RATE}
# Blocks of a sample and of a whole run, and rounds of a block with few classes; with many, rounds take longer.
BLOCKS = {True: 2, False: 40}
NUM_ROUNDS = {Kind.ROW: 100, Kind.CLASSES: 30, Kind.CONFUSIONS: 30, Kind.SIDE_METRICS: 30}
FEWER = 10
ROW_COLUMNS = ("macro-F1 (%)", "difference (pp)", "margin (pp)", "models: coverage", "recipe: coverage")
ROW_COLUMNS += (WRONG_CLAIM, WRONG_EQUIVALENT, WITHHELD, DECIDED)
FAMILY_COLUMNS = ("what", "models: coverage", "recipe: coverage")

# (N, S) of each pool: chosen before any of them was run, and all of them are published.
ROWS = {
    CIFAR10: ((40, 3), (100, 1), (200, 5), (500, 2), (2_000, 3), (2_000, 10), (20_000, 3)),
    CATS_AND_DOGS: ((40, 2), (100, 3), (500, 5), (2_000, 10)),
    DIGITS: ((40, 1), (40, 3), (100, 2), (200, 10), (500, 3), (2_000, 5), (20_000, 10)),
    EASY_DIGITS: ((40, 1), (40, 3), (100, 1), (100, 5), (200, 3), (500, 2), (2_000, 3), (20_000, 3)),
    ONES_AND_EIGHTS: ((40, 1), (40, 3), (100, 3), (200, 1), (500, 10), (2_000, 3)),
    GROUPED: ((100, 3), (200, 1), (500, 3), (2_000, 10)),
    UNEQUAL: ((100, 3), (200, 5), (500, 2), (2_000, 3)),
    NUMBERS: ((200, 3), (500, 2), (2_000, 3), (20_000, 5)),
    FITTED: ((2_000, 3), (20_000, 3)),
}
TIES = {DIGITS: ((40, 1), (100, 3)), EASY_DIGITS: ((40, 3), (500, 1))}
CLASSES = {
    CIFAR10: ((100, 1), (500, 3), (2_000, 3)),
    CATS_AND_DOGS: ((100, 3),),
    DIGITS: ((40, 3), (200, 2), (2_000, 10)),
    EASY_DIGITS: ((40, 3), (500, 3)),
    GROUPED: ((200, 3), (2_000, 3)),
    UNEQUAL: ((100, 3), (2_000, 3)),
    NUMBERS: ((500, 3), (2_000, 3)),
    FITTED: ((2_000, 3),),
}
CONFUSIONS = {
    CIFAR10: ((100, 1), (500, 3), (2_000, 3)),
    CATS_AND_DOGS: ((100, 3),),
    DIGITS: ((40, 3), (200, 2), (2_000, 10)),
    EASY_DIGITS: ((40, 3), (500, 3)),
    GROUPED: ((200, 3),),
    UNEQUAL: ((100, 3), (2_000, 3)),
    NUMBERS: ((2_000, 3),),
}
SIDE_METRICS = {
    CIFAR10: ((100, 1), (500, 3), (2_000, 10)),
    CATS_AND_DOGS: ((100, 3), (2_000, 3)),
    DIGITS: ((40, 3), (200, 2), (2_000, 3)),
    EASY_DIGITS: ((40, 3), (500, 5)),
    GROUPED: ((500, 3),),
    UNEQUAL: ((100, 3), (2_000, 3)),
}
CELLS = (
    *((Kind.ROW, arms, ROWS) for arms in (Arms.APART, Arms.SAME)),
    (Kind.ROW, Arms.IDENTICAL, TIES),
    *((Kind.CLASSES, arms, CLASSES) for arms in (Arms.APART, Arms.SAME)),
    (Kind.CONFUSIONS, Arms.APART, CONFUSIONS),
    (Kind.SIDE_METRICS, Arms.APART, SIDE_METRICS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The rounds of a cell.

    Attributes:
        cell: what was drawn.
        pool: its name.
        rounds: of all blocks.
    """

    cell: PoolCell
    pool: str
    rounds: Sequence[Round]

    def count_coverage(self, name: str) -> Rate | None:
        """Return the coverage of the intervals of this name, beside their half-width over that of an oracle; None without any.

        Both are over the normal quantile here: a mean width, and the root mean square error.
        """
        found = [one.found[name] for one in self.rounds if name in one.found]
        if not found:
            return None
        name, hits = self._label(f"coverage of {name}"), sum(one.covered for one in found)
        width, error = fmean(one.width for one in found), math.sqrt(fmean(one.square for one in found))
        return Rate.of_coverage(name, hits, len(found), half_width=width, oracle=error)

    def count_flag(self, name: str) -> Rate | None:
        """Return how often a flag is raised; None where the rounds say nothing about it."""
        flags = [one.flags[name] for one in self.rounds if name in one.flags]
        if not flags:
            return None
        return Rate(name=self._label(name), hits=sum(flags), count=len(flags), most=GOALS.get(name, 1.0))

    def _label(self, what: str) -> str:
        sizes = f"N = {self.cell.num_images}, S = {self.cell.num_seeds}"
        return f"{what}, {self.cell.kind}: {self.pool}, {self.cell.arms}, {sizes}"


def list_cells(files: Mapping[str, Path]) -> list[tuple[str, PoolCell]]:
    """Return all cells with the names of their pools; with many classes, blocks of families have fewer rounds."""
    cells = []
    for kind, arms, table in CELLS:
        for pool, sizes in table.items():
            is_slow = kind is not Kind.ROW and pool in (NUMBERS, FITTED)
            rounds = NUM_ROUNDS[kind] // (FEWER if is_slow else 1)
            for images, seeds in sizes:
                cell = PoolCell(
                    kind=kind, pool=files[pool], arms=arms, num_images=images, num_seeds=seeds, num_rounds=rounds
                )
                cells.append((pool, cell))
    return cells


def tabulate_pools(files: Mapping[str, Path]) -> Table:
    """Return what the pools are."""
    rows = []
    for name, file in files.items():
        pool = load_pool(file)
        accuracies = 100 * (pool.predicted == pool.labels).mean(axis=2)
        spreads = 100 * score_pool(file)[..., 2].mean(axis=2).std(axis=1, ddof=1)
        discordant = 100 * float((pool.predicted[0] != pool.predicted[1]).mean())
        shown = [f"{one:.1f}" for one in accuracies.mean(axis=1)]
        shown += [f"{one:.2f}" for one in spreads]
        rows.append([name, f"{pool.num_classes:,}", f"{len(pool.labels):,}", *shown, f"{discordant:.1f}"])
    head = ["pool", "classes", "images", "accuracy (%)", "of the other arm", "SD of macro-F1 between seeds (pp)"]
    head += ["of the other arm", "images on which two models of both arms differ (%)"]
    return Table("The pools", head, rows)


def tabulate_cells(measured: Sequence[Measured], goals: Goals) -> list[Table]:
    """Return a table of each kind of cell; the rates of all tables are judged together."""
    rows = {kind: [row for one in measured if one.cell.kind is kind for row in _list_rows(one)] for kind in Kind}
    rates = [c for table in rows.values() for row in table for c in row if isinstance(c, Rate) and c.has_goal]
    judged = dict(zip(rates, goals.judge(rates), strict=True))
    tables = []
    for kind, found in rows.items():
        columns = ROW_COLUMNS if kind is Kind.ROW else FAMILY_COLUMNS
        shown = [[c if isinstance(c, str) else _format(c, judged) for c in row] for row in found]
        tables.append(Table(kind[0].upper() + kind[1:], ["pool", "arms", "N", "S", "rounds", *columns], shown))
    return tables


def _list_rows(one: Measured) -> list[list[str | Rate | None]]:
    """Return the rows of a cell: texts, and rates that are not judged yet."""
    cell = one.cell
    head = [one.pool, str(cell.arms), f"{cell.num_images:,}", str(cell.num_seeds), str(len(one.rounds))]
    if cell.kind is Kind.ROW:
        flags = (WRONG_CLAIM, WRONG_EQUIVALENT, WITHHELD, DECIDED)
        return [[*head, *_describe_difference(cell), *_count_both(one, "macro-F1"), *map(one.count_flag, flags)]]
    names = sorted({name.rpartition(", ")[0] for found in one.rounds for name in found.found})
    rows: list[list[str | Rate | None]] = [[*head, name, *_count_both(one, name)] for name in names]
    flagged = one.count_flag(FLAGGED)
    return rows if flagged is None else [*rows, [*head, FLAGGED, None, flagged]]


def _count_both(one: Measured, name: str) -> list[Rate | None]:
    return [one.count_coverage(f"{name}, {question}") for question in ("models", "recipe")]


def _describe_difference(cell: PoolCell) -> list[str]:
    """Return the macro-F1 of the treatment, the true difference and the margin."""
    scores = 100 * score_pool(cell.pool)[..., 2].mean(axis=(1, 2))
    difference = scores[1] - scores[0] if cell.arms is Arms.APART else 0.0
    return [f"{scores[1]:.1f}", f"{difference:+.2f}", f"{abs(difference) or 100 * NULL_MARGIN:.2f}"]


def _format(rate: Rate | None, judged: Mapping[Rate, Judgement]) -> str:
    """Return a rate with its judgement, a coverage above .99 beside its half-width over an oracle's."""
    if rate is None:
        return "—"
    share = rate.hits / rate.count
    beside = f", {rate.beside}" if rate.beside and share > WIDE_COVERAGE else ""
    return f"{share:.3f}{f' {judged[rate]}' if rate in judged else ''}{beside}"


def main(
    sample: Annotated[bool, typer.Option("--sample", help="Two blocks of rounds of each cell, not forty.")] = False,
    stored: Annotated[
        bool, typer.Option("--stored", help="Draw nothing; the page has the cells that are stored.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Pools, and blocks of finished rounds.")] = DEFAULT_FOLDER,
) -> None:
    """Draw the rounds of every cell, print the tables, and write the page."""
    started, goals, cache = time.perf_counter(), Goals(), WorldCache(folder=folder)
    files = cache.make_files(POOL_MAKERS, ".npz")
    cells, num_blocks = list_cells(files), BLOCKS[sample]
    # One block of every cell after the other, so that a run that was stopped has as many of each.
    calls = [(cell, block) for block in range(num_blocks) for _, cell in cells]
    blocks = cache.recall(measure_block, calls) if stored else cache.compute(measure_block, calls)
    drawn = [(pool, cell, blocks[place :: len(cells)]) for place, (pool, cell) in enumerate(cells)]
    measured = [
        Measured(cell=cell, pool=pool, rounds=[one for block in found if block for one in block])
        for pool, cell, found in drawn
        if any(found)
    ]
    tables = [tabulate_pools(files), *tabulate_cells(measured, goals)]
    num_open = f"{count_open(goals.judged)}. Cells: {len(measured)} of {len(cells)}"
    publish_simulation(started, tables, list_problems(goals.judged), num_open, PAGE)


if __name__ == "__main__":
    typer.run(main)

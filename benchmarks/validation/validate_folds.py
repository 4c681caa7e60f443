"""Folds of small sets against one test split: coverage, errors and power; writes benchmarks/FOLDS.md.

A run that was stopped resumes where it was.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from analysis.comparison.values import Verdict
from benchmarks.pages import Table, publish_simulation
from benchmarks.validation.fold_rounds import (
    ALPHA,
    GOOD,
    WORSE,
    Design,
    FoldWorld,
    make_features,
    measure_block,
    measure_truth,
)
from benchmarks.validation.goals import Goals, Rate, compute_oracle, count_open, list_problems
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "FOLDS.md"
# Blocks of rounds, and of fresh sets: of a sample, and of a whole run.
BLOCKS = {True: 2, False: 20}


def list_worlds(features: Path) -> Iterator[FoldWorld]:
    """Yield the worlds, which were chosen before any of them was run."""
    for num_classes in (2, 10):
        for num_images in (150, 400, 1500):
            for control in (GOOD, WORSE[num_classes]):
                yield FoldWorld(
                    features=features,
                    num_classes=num_classes,
                    num_images=num_images,
                    design=Design.FOLDS,
                    control=control,
                )
        for design in (Design.FIVE, Design.SPLIT):
            for control in (GOOD, WORSE[num_classes]):
                yield FoldWorld(
                    features=features, num_classes=num_classes, num_images=400, design=design, control=control
                )
        for control in (GOOD, WORSE[num_classes]):
            yield FoldWorld(
                features=features,
                num_classes=num_classes,
                num_images=600,
                design=Design.FOLDS,
                control=control,
                group_size=3,
            )


def tabulate(worlds: Sequence[FoldWorld], cache: WorldCache, num_blocks: int, goals: Goals) -> Table:
    """Return a row per world; its rates are judged together with all others."""
    rows, rates = [], []
    for world in worlds:
        rounds = [one for block in cache.repeat(measure_block, world, num_blocks) for one in block]
        truth = float(np.mean(cache.repeat(measure_truth, world, BLOCKS[False])))
        count, is_null = len(rounds), world.treatment == world.control
        groups = f", groups of {world.group_size}" if world.group_size > 1 else ""
        name = f"{world.design}, N = {world.num_images}, K = {world.num_classes}{groups}, {100 * truth:.1f} pp"
        width = 50 * float(np.mean([one.high - one.low for one in rounds]))
        error = 100 * float(np.std([one.estimate for one in rounds]))
        covered = [
            sum(one.low <= truth <= one.high for one in rounds),
            sum(one.low <= one.truth_here <= one.high for one in rounds),
        ]
        oracles = [
            100 * compute_oracle([(one.estimate - true) ** 2 for one, true in zip(rounds, truths, strict=True)])
            for truths in ([truth] * count, [one.truth_here for one in rounds])
        ]
        counts = {verdict: sum(one.verdict is verdict for one in rounds) for verdict in Verdict}
        wrong = counts[Verdict.BETTER] + counts[Verdict.WORSE] if is_null else counts[Verdict.WORSE]
        own = [
            *(
                Rate.of_coverage(f"coverage, {where}, {name}", hits, count, half_width=width, oracle=oracle)
                for where, hits, oracle in zip(("fresh sets", "these images"), covered, oracles, strict=True)
            ),
            Rate(name=f"wrong BETTER or WORSE, {name}", hits=wrong, count=count, most=ALPHA),
        ]
        if not is_null:
            own.append(
                Rate(name=f"wrong EQUIVALENT, {name}", hits=counts[Verdict.EQUIVALENT], count=count, most=ALPHA / 2)
            )
        shown = [f"{rate.hits / count:.3f}" for rate in own] + ["—"] * (4 - len(own))
        found = "—" if is_null else f"{counts[Verdict.BETTER] / count:.2f}"
        rates += own
        rows.append(
            [
                str(world.design),
                f"{world.num_images:,}{groups}",
                str(world.num_classes),
                f"{100 * truth:.2f}",
                f"{error:.2f}",
                f"{width:.2f}",
                *shown,
                found,
            ]
        )
    goals.judge(rates)
    head = ["design", "N", "K", "difference (pp)", "SD of the estimate (pp)", "half-width (pp)"]
    head += [
        "coverage, fresh sets",
        "coverage, these images",
        "wrong BETTER or WORSE",
        "wrong EQUIVALENT",
        "found BETTER",
    ]
    return Table(f"Folds and splits of small sets, {count} comparisons a row", head, rows)


def main(
    sample: Annotated[bool, typer.Option("--sample", help="40 comparisons of each world, not 400.")] = False,
    folder: Annotated[Path, typer.Option(help="Features, and blocks of finished comparisons.")] = DEFAULT_FOLDER,
) -> None:
    """Compare the designs in every world, print the table, and write the page."""
    started, goals, cache = time.perf_counter(), Goals(), WorldCache(folder=folder)
    worlds = list(list_worlds(cache.make_files({"cifar10": make_features}, ".npz")["cifar10"]))
    num_blocks = BLOCKS[sample]
    cache.compute(measure_block, ((world, block) for world in worlds for block in range(num_blocks)))
    cache.compute(measure_truth, ((world, block) for world in worlds for block in range(BLOCKS[False])))
    table = tabulate(worlds, cache, num_blocks, goals)
    publish_simulation(started, [table], list_problems(goals.judged), count_open(goals.judged), PAGE)


if __name__ == "__main__":
    typer.run(main)

"""The error rates of the forensics where the truth is known; prints their tables and writes benchmarks/FORENSICS.md."""

import math
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from analysis.classes.clusters import ALPHA, compute_pair_test, find_clusters
from benchmarks.pages import Table, publish_simulation
from benchmarks.parallel import repeat
from benchmarks.validation.cluster_simulation import NUM_CLASSES, ConfusedArm
from benchmarks.validation.planted_tables import pretrain_all, tabulate_audits, tabulate_causes

PAGE = Path(__file__).parents[1] / "FORENSICS.md"
USUAL_COUNT = 600
USUAL_WORLDS = 2
NUM_PERMUTATIONS = 199
NAMES = tuple(f"class {i}" for i in range(NUM_CLASSES))


def tabulate_level(count: int, problems: list[str]) -> Table:
    """Return how often the cluster test finds a pair where there is none."""
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / count)
    rows = []
    for num_images in (300, 1000):
        for num_seeds in (1, 3, 6):
            arm = ConfusedArm(num_images=num_images, num_seeds=num_seeds)
            rate = float(np.mean(repeat(_finds_a_pair, arm, count)))
            rows.append([str(num_images), str(num_seeds), f"{rate:.3f}"])
            if rate > limit:
                problems.append(f"family-wise error {rate:.3f} > {limit:.3f} at N = {num_images}, S = {num_seeds}")
    title = f"Cluster test, family-wise error on {count} null matrices with unequal margins (goal at most {limit:.3f})"
    return Table(title, ["images", "seeds", "a pair is found"], rows)


def tabulate_power(count: int) -> Table:
    """Return how often the confused pairs of a group are found, and how often a wrong one beside them."""
    rows = []
    for num_images in (1000, 2000, 4000):
        for share in (0.15, 0.3, 0.5):
            arm = ConfusedArm(num_images=num_images, group=(2, 4, 7), share=share)
            found = repeat(_find_planted, arm, count // 10)
            hits, wrong, whole = np.mean(found, axis=0)
            rows.append([str(num_images), f"{share:.2f}", f"{hits:.2f}", f"{whole:.2f}", f"{wrong:.3f}"])
    head = ["images", "share of the errors inside", "pairs found", "whole cluster found", "a wrong pair beside"]
    return Table(f"Cluster test, power for a group of three classes, three seeds, {count // 10} arms a row", head, rows)


def _finds_a_pair(arm: ConfusedArm, seed: int) -> bool:
    test = compute_pair_test(arm.draw(seed), np.random.default_rng(seed), NUM_PERMUTATIONS)
    return bool((test.p_adjusted <= ALPHA).any())


def _find_planted(arm: ConfusedArm, seed: int) -> tuple[float, float, float]:
    pairs, clusters = find_clusters(arm.draw(seed), NAMES)
    planted = {NAMES[i] for i in arm.group}
    inside = [pair for pair in pairs if set(pair.classes) <= planted]
    whole = any(set(cluster.classes) == planted for cluster in clusters)
    return len(inside) / 3, float(len(pairs) > len(inside)), float(whole)


def main(
    count: Annotated[int, typer.Option(help="Simulated null arms per cell.", min=60)] = USUAL_COUNT,
    worlds: Annotated[int, typer.Option(help="Planted worlds per shortcut, rho and cue.", min=1)] = USUAL_WORLDS,
) -> None:
    """Run every simulation, print the tables, and write the page where the counts are the usual ones."""
    started = time.perf_counter()
    problems: list[str] = []
    tables = [tabulate_level(count, problems), tabulate_power(count)]
    with tempfile.TemporaryDirectory(prefix="pretrained-") as folder:
        weights = pretrain_all(Path(folder))
        tables += [*tabulate_audits(worlds, weights, problems), tabulate_causes(worlds, weights, problems)]
    publish_simulation(started, tables, problems, PAGE if (count, worlds) == (USUAL_COUNT, USUAL_WORLDS) else None)


if __name__ == "__main__":
    typer.run(main)

"""The gate in projects of many candidates: false yes, false discoveries and power; writes benchmarks/GATE.md.

A run that was stopped resumes: finished projects are stored.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.pages import Table, publish_simulation
from benchmarks.validation.gate_projects import ALPHA, RATE, Errors, GatedCandidate, GateProject, gate_project
from benchmarks.validation.goals import Goals, Rate, count_open, list_problems
from benchmarks.validation.prediction_pools import CATS_AND_DOGS, CIFAR10, DIGITS, POOL_MAKERS
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "GATE.md"
# Images of projects with many candidates, and of those that end with one that has an effect.
POOLS = {DIGITS: (500, 2000), CATS_AND_DOGS: (400, 2000), CIFAR10: (1000, 10_000)}
NUM_CANDIDATES, NUM_MIXED, EVERY, EFFECT, POWER = 200, 60, 10, 3.0, 0.8
# The noise of one score: the standard deviation of a difference over the root of two.
EFFECTS = (EFFECT, EFFECT / math.sqrt(2))
# Projects of each kind, and of those with a goal for the power: of a sample, and of a whole run.
PROJECTS = {True: (6, 12), False: (100, 200)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedProjects:
    """The projects of a kind.

    Attributes:
        project: the kind.
        pool: its name.
        found: the candidates of each project.
    """

    project: GateProject
    pool: str
    found: Sequence[Sequence[GatedCandidate]]

    @property
    def head(self) -> list[str]:
        """The first cells of a row."""
        return [self.pool, f"{self.project.num_images:,}", str(self.project.errors), str(len(self.found))]

    @property
    def agent(self) -> str:
        """What the agent does."""
        return "keeps the best" if self.project.keeps_best else "keeps none"

    def name(self, what: str) -> str:
        """Return what was counted, with the kind of project."""
        project, size = self.project, f"N = {self.project.num_images}"
        kind = f"{self.pool}, {size}, {project.errors}, effect {project.effect:.1f}, {self.agent}"
        return f"{what}: {kind}, candidate {project.first}, every {project.every}"


def list_kinds(files: Mapping[str, Path]) -> list[tuple[str, GateProject]]:
    """Return the kinds of projects: without an effect, with several, and with one at the first or tenth candidate."""
    kinds = []
    for pool, (few, many) in POOLS.items():
        common = {"pool": files[pool], "num_images": few}
        null = [
            GateProject(**common, errors=errors, num_candidates=NUM_CANDIDATES, keeps_best=keeps_best)
            for errors in Errors
            for keeps_best in (True, False)
        ]
        several = {"num_candidates": NUM_MIXED, "effect": EFFECT, "first": 1, "every": EVERY}
        single = [
            GateProject(
                pool=files[pool], num_images=size, errors=errors, num_candidates=place, effect=effect, first=place
            )
            for size in (few, many)
            for errors in Errors
            for effect in EFFECTS
            for place in (1, 10)
        ]
        kinds += [(pool, one) for one in (*null, GateProject(**common, errors=Errors.SAME, **several), *single)]
    return kinds


def has_power_goal(pool: str, project: GateProject) -> bool:
    """Return whether the candidate with an effect should be found: on many images, against one that errs on the same ones."""
    is_large = project.effect == EFFECT and project.num_images == POOLS[pool][1]
    return is_large and project.errors is Errors.SAME and not project.every


def tabulate_errors(projects: Sequence[GatedProjects], goals: Goals) -> Table:
    """Return how often candidates without an effect are a yes, alone and in the log; all rates are judged together."""
    rows, rates, spoiled_nulls = [], [], []
    for one in projects:
        false, real = ([c for found in one.found for c in found if c.is_real is which] for which in (False, True))
        spoiled = [sum(c.is_logged_yes and not c.is_real for c in found) for found in one.found]
        totals = [max(sum(c.is_logged_yes for c in found), 1) for found in one.found]
        spoiled_nulls += [] if real else spoiled
        alone = Rate(name=one.name("false yes"), hits=sum(c.is_yes for c in false), count=len(false), most=ALPHA)
        rates.append(alone)
        shares = [f"{alone.hits / alone.count:.4f}", f"{np.mean(np.divide(spoiled, totals)):.4f}"]
        shares.append(f"{np.mean([c.is_logged_yes for c in real]):.2f}" if real else "—")
        rows.append([*one.head, one.agent, f"{len(false):,}", *shares])
    name, hits = "projects without an effect that have a yes in the log", sum(map(bool, spoiled_nulls))
    rates.append(Rate(name=name, hits=hits, count=len(spoiled_nulls), most=RATE))
    goals.judge(rates)
    head = ["pool", "N", "candidates err on", "projects", "agent", "candidates without effect", "of them a yes alone"]
    head += ["false share of the yes in the log", "candidates with an effect found in the log"]
    title = f"{NUM_CANDIDATES} candidates without an effect, or {NUM_MIXED} of which every tenth has one"
    return Table(title, head, rows)


def tabulate_power(projects: Sequence[GatedProjects], goals: Goals) -> Table:
    """Return how often a candidate with an effect is found, alone and in the log; all rates are judged together."""
    rows, rates = [], []
    for one in projects:
        last = [found[-1] for found in one.found]
        shares = []
        for what, hits in (("alone", [c.is_yes for c in last]), ("in the log", [c.is_logged_yes for c in last])):
            least = POWER if has_power_goal(one.pool, one.project) else 0.0
            rate = Rate(name=one.name(f"found {what}"), hits=sum(hits), count=len(hits), least=least)
            rates += [rate] if rate.has_goal else []
            shares.append(f"{rate.hits / rate.count:.2f}")
        seeds = f"{np.mean([c.num_pairs for c in last if c.is_logged_yes] or [0]):.1f}"
        sequence = f"{np.mean([c.is_sequence_yes for c in last]):.2f}"
        rows.append([*one.head, f"{one.project.effect:.2f}", str(one.project.first), *shares, seeds, sequence])
    goals.judge(rates)
    head = ["pool", "N", "candidates err on", "projects", "effect (SD of a difference)", "candidate", "found alone"]
    head += ["found in the log", "seeds when found", "confidence sequence, alone"]
    return Table("A candidate with an effect", head, rows)


def main(
    sample: Annotated[bool, typer.Option("--sample", help="Few projects of each kind.")] = False,
    folder: Annotated[Path, typer.Option(help="Pools, and finished projects.")] = DEFAULT_FOLDER,
) -> None:
    """Gate the candidates of every project, print the tables, and write the page."""
    started, goals, cache = time.perf_counter(), Goals(), WorldCache(folder=folder)
    files = cache.make_files({pool: POOL_MAKERS[pool] for pool in POOLS}, ".npz")
    kinds = list_kinds(files)
    counts = [PROJECTS[sample][has_power_goal(*kind)] for kind in kinds]
    calls = [(kind, number) for (_, kind), count in zip(kinds, counts, strict=True) for number in range(count)]
    found = iter(cache.compute(gate_project, calls))
    projects = [
        GatedProjects(project=kind, pool=pool, found=[next(found) for _ in range(count)])
        for (pool, kind), count in zip(kinds, counts, strict=True)
    ]
    is_power = [one.project.effect > 0 and not one.project.every for one in projects]
    errors = tabulate_errors([one for one, other in zip(projects, is_power, strict=True) if not other], goals)
    power = tabulate_power([one for one, its in zip(projects, is_power, strict=True) if its], goals)
    publish_simulation(started, [errors, power], list_problems(goals.judged), count_open(goals.judged), PAGE)


if __name__ == "__main__":
    typer.run(main)

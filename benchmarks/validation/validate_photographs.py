"""The error rates of the forensics on photographs whose truth is known; prints tables and writes benchmarks/PHOTOGRAPHS.md.

A validation that was stopped resumes: outcomes of finished worlds are stored.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from analysis.causes.values import MIXED
from analysis.shortcuts.values import NUM_DONORS
from benchmarks.pages import Table, publish_simulation
from benchmarks.quality.drawn_sets import find_data
from benchmarks.validation.donor_coverage import CoverageWorld, DonorCoverage, cover_gaps
from benchmarks.validation.goals import Goal, at_least, at_most, count_open, list_problems, tabulate_goals
from benchmarks.validation.planted_photographs import (
    FULL,
    IN_RING,
    PhotographOutcome,
    PhotographWorld,
    Planted,
    Treatment,
    judge_photographs,
)
from benchmarks.validation.planted_textures import TextureWorld, judge_textures
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "PHOTOGRAPHS.md"
# Worlds of a whole run by set: controls, photographs as they are, each row with a shortcut, exchanged labels, textures. A sample
# has one each. One world of each shortcut of all classes shows it half of the time.
NUM_WORLDS: Mapping[str, tuple[int, int, int, int, int]] = {"cifar10": (15, 2, 3, 2, 5), "refuse": (15, 1, 2, 1, 2)}
# Worlds with a texture that misleads; CIFAR-10 alone has enough photographs of two classes to audit.
NUM_MISLED = 10
HALF = 0.5
MISLEADING = "textures that mislead"
EXTENTS = {False: "all classes", True: "one class"}

# Fine-tunings of which samples are audited, and their coverage.
NUM_COVERED = 2
Coverage = Sequence[Sequence[DonorCoverage]]
Outcomes = Mapping[PhotographWorld, Sequence[PhotographOutcome]]


def list_worlds(data: Path, *, sample: bool) -> Iterator[tuple[PhotographWorld, int]]:
    """Yield the worlds, each with the number of its seeds."""
    for photographs, (controls, natural, shortcuts, exchanged, textures) in NUM_WORLDS.items():
        one = PhotographWorld(photographs=photographs, planted=Planted.RINGS, data=data)
        worlds = [(one, controls), (replace(one, planted=Planted.NOTHING), natural)]
        for planted in IN_RING:
            full = replace(one, planted=planted, rho=FULL)
            worlds += [(full, shortcuts), (replace(full, only_one=True), shortcuts)]
            worlds.append((replace(full, rho=HALF), 1))
        worlds.append((replace(one, planted=Planted.LABELS), exchanged))
        worlds.append((replace(one, planted=Planted.TEXTURE, rho=FULL), textures))
        if photographs == "cifar10":
            misled = TextureWorld(photographs=photographs, planted=Planted.TEXTURE, data=data, rho=1.0)
            worlds.append((misled, NUM_MISLED))
        yield from ((world, 1 if sample else count) for world, count in worlds)


def name_planted(world: PhotographWorld) -> str:
    """Return what is planted in a world."""
    return MISLEADING if isinstance(world, TextureWorld) else world.planted


def tabulate_photographs(outcomes: Outcomes) -> list[Table]:
    """Return the tables of audits, causes and interventions."""
    audits, causes, treated = [], [], []
    for world, found in outcomes.items():
        extent = "two classes" if world.is_pair else EXTENTS[world.only_one]
        name = [world.photographs, name_planted(world), extent, f"{world.rho:.1f}"]
        if not world.is_pair:
            audits.append([*name, *_describe_audits(found)])
        named = [outcome.cause for outcome in found if outcome.cause]
        counts = [str(number) for number in (len(found), len(named), named.count("texture"), named.count(MIXED))]
        causes.append([*name, *counts, ", ".join(named)])
        for intervention in found[0].treatments:
            own = [outcome.treatments[intervention] for outcome in found if outcome.treatments]
            treated.append([*name, str(len(own)), intervention, *_describe_treatments(own)])
    first = ["photographs", "planted", "in", "rho", "worlds"]
    columns = ["accuracy", "gap, ring of 4 (pp)", "FAIL (confirmed)", "of 6 confirmed", "classes decided"]
    last = ["half-width (pp)", "classes that lose without color", "seconds"]
    return [
        Table("Audits of photographs", [*first, *columns, *last], audits),
        Table("Root causes of a pair", [*first, "measured", "texture", MIXED, "all"], causes),
        Table(
            "Interventions on the gap of the ring",
            [*first, "intervention", "before (pp)", "after (pp)", "BETTER", "accuracy (pp)", "seconds"],
            treated,
        ),
    ]


def _describe_audits(found: Sequence[PhotographOutcome]) -> list[str]:
    narrow, wide = zip(*(outcome.rings for outcome in found), strict=True)
    return [
        str(len(found)),
        f"{fmean(o.accuracy for o in found):.2f}",
        f"{100 * fmean(ring.gap for ring in narrow):.1f}",
        f"{sum(ring.fails for ring in narrow)} ({sum(ring.is_confirmed for ring in narrow)})",
        str(sum(ring.is_confirmed for ring in wide)),
        f"{sum(o.num_decided for o in found)} of {sum(o.num_classes for o in found)}",
        f"{100 * fmean(o.half_width for o in found):.1f}",
        f"{fmean(o.num_color_losses for o in found):.1f}",
        f"{fmean(o.seconds for o in found):.0f}",
    ]


def _describe_treatments(found: Sequence[Treatment]) -> list[str]:
    return [
        f"{100 * fmean(t.before for t in found):.1f}",
        f"{100 * fmean(t.after for t in found):.1f}",
        str(sum(t.is_better for t in found)),
        f"{100 * fmean(t.accuracy for t in found):+.1f}",
        f"{fmean(t.seconds for t in found):.0f}",
    ]


def tabulate_coverage(covered: Coverage) -> Table:
    """Return the coverage of the intervals of classes, and their width, by the number of donors."""
    rows = []
    for own in zip(*covered, strict=True):
        number, hits = sum(one.num_intervals for one in own), sum(one.num_covered for one in own)
        figures = [f"{100 * fmean(one.half_width for one in own):.1f}", f"{fmean(one.seconds for one in own):.2f}"]
        rows.append([str(own[0].num_donors), str(number), f"{hits / number:.3f}", *figures])
    columns = ["donors of each kind", "intervals", "coverage", "half-width (pp)", "seconds"]
    return Table("Intervals of a class's gap, 40 photographs of each class", columns, rows)


def judge(outcomes: Outcomes, covered: Coverage) -> Iterator[Goal]:
    """Yield the goals."""

    def pool(*planted: str, only_one: bool | None = None, rho: float | None = None) -> list[PhotographOutcome]:
        return [
            outcome
            for world, found in outcomes.items()
            for outcome in found
            if name_planted(world) in planted and only_one in (None, world.only_one) and rho in (None, world.rho)
        ]

    controls = pool(Planted.RINGS)
    yield at_most("controls whose ring audit is confirmed", sum(_alarms(o) for o in controls), len(controls), 0.05)
    for only_one, least in ((False, 0.8), (True, 0.6)):
        found = pool(*IN_RING, only_one=only_one, rho=FULL)
        yield at_least(
            f"a shortcut of {EXTENTS[only_one]} fails", sum(o.rings[0].fails for o in found), len(found), least
        )
    for planted, name in (
        (MISLEADING, "a texture that misleads"),
        (Planted.TEXTURE, "a texture that two classes share"),
    ):
        texture = pool(planted)
        yield at_least(f"{name} is the cause", sum(o.cause == "texture" for o in texture), len(texture), 0.7)
    nulls = pool(Planted.LABELS, Planted.NOTHING, Planted.RINGS)
    yield at_most("a cause without one", sum(o.cause not in ("", MIXED) for o in nulls), len(nulls), 0.05)
    better = _find_better(pool(*IN_RING, only_one=False, rho=FULL))
    yield at_least("a new head or a swap is BETTER", sum(better), len(better), 0.7)
    false = _find_better(controls)
    yield at_most("a new head or a swap is BETTER in controls", sum(false), len(false), 0.05)
    used = [one for own in covered for one in own if one.num_donors == NUM_DONORS]
    number, hits = (sum(getattr(one, name) for one in used) for name in ("num_intervals", "num_covered"))
    yield at_least(f"intervals of gaps cover with {NUM_DONORS} donors", hits, number, 0.93)


def _find_better(found: Sequence[PhotographOutcome]) -> list[bool]:
    return [any(t.is_better for t in o.treatments.values()) for o in found if o.treatments]


def _alarms(outcome: PhotographOutcome) -> bool:
    return any(ring.is_confirmed for ring in outcome.rings)


def main(
    sample: Annotated[bool, typer.Option("--sample", help="One world of each kind.")] = False,
    folder: Annotated[
        Path, typer.Option(help="Outcomes of finished worlds; a validation that was stopped resumes.")
    ] = (DEFAULT_FOLDER),
) -> None:
    """Judge every world and print the tables; without --sample, write the page. Needs the folder named by STUDY_DATA."""
    started, cache = time.perf_counter(), WorldCache(folder=folder)
    data = find_data()
    covered = cache.repeat(cover_gaps, CoverageWorld(data=data), NUM_COVERED)
    worlds = list(list_worlds(data, sample=sample))
    outcomes: dict[PhotographWorld, list[PhotographOutcome]] = {}
    for judged in (judge_photographs, judge_textures):
        own = [(w, n) for w, n in worlds if isinstance(w, TextureWorld) == (judged is judge_textures)]
        found = iter(cache.compute(judged, [(world, seed) for world, count in own for seed in range(count)]))
        outcomes |= {world: [next(found) for _ in range(count)] for world, count in own}
    goals, tables = list(judge(outcomes, covered)), [*tabulate_photographs(outcomes), tabulate_coverage(covered)]
    tables = [tabulate_goals(goals), *tables]
    publish_simulation(started, tables, list_problems(goals), count_open(goals), None if sample else PAGE)


if __name__ == "__main__":
    typer.run(main)

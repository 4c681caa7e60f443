"""Table of FORENSICS.md on heat maps: how often maps are admitted, where the truth is known."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from benchmarks.pages import Table
from benchmarks.validation.goals import Goal, at_least, at_most, format_share
from benchmarks.validation.planted_maps import MapOutcome, MapWorld, WorldOutcome, map_world
from benchmarks.validation.worlds import WorldCache

SAMPLE_WORLDS = 4
WHOLE_WORLDS = 24
# Maps that show nothing of the network; none of 72 is the fewest that meets it.
MAX_ADMITTED = 0.05
# Networks of lower accuracy do not count as reading the cue.
MIN_ACCURACY = 0.9


def tabulate_maps(cache: WorldCache, *, whole: bool) -> tuple[list[Table], list[Goal]]:
    """Return the table of admissions and its goals; `whole` takes more worlds."""
    worlds: list[WorldOutcome] = cache.repeat(map_world, MapWorld(), WHOLE_WORLDS if whole else SAMPLE_WORLDS)
    readers = [world.reads_object for world in worlds if world.reads_object.accuracy > MIN_ACCURACY]
    background = [world.reads_background for world in worlds if world.reads_background.accuracy > MIN_ACCURACY]
    untrained = [world.untrained for world in worlds]
    foreign = [world.foreign for world in worlds if world.foreign.accuracy > MIN_ACCURACY]
    rows = [
        _describe("reads the object", readers),
        _describe("reads the background", background),
        _describe("untrained", untrained),
        _describe("reads the object, maps of one that reads the background", foreign),
    ]
    admitted = [found for found in background if found.is_admitted]
    focused = [found for found in readers if found.is_admitted]
    goals = [
        at_least("networks that read the object: maps admitted", _count(readers), len(readers), 0.8),
        at_least("networks that read the background: maps admitted", _count(background), len(background), 0.8),
        at_least("of those: energy on the object not above chance", _count_elsewhere(admitted), len(admitted), 0.9),
        at_least("networks that read the object: energy above chance", _count_focused(focused), len(focused), 0.9),
        at_most("untrained networks: maps admitted", _count(untrained), len(untrained), MAX_ADMITTED),
        at_most("maps of another network: admitted", _count(foreign), len(foreign), MAX_ADMITTED),
    ]
    head = ["network", "accuracy", "admitted", "ROAD", "energy on the object (pp)", "method and layer", "failed tests"]
    title = f"Heat maps: admission, one network each (readers: accuracy above {MIN_ACCURACY})"
    return [Table(title, head, rows)], goals


def _describe(name: str, found: Sequence[MapOutcome]) -> list[str]:
    if not found:
        return [name, *["—"] * 6]
    sources = Counter(o.source for o in found)
    failed = Counter(test for o in found for test in o.failed)
    return [
        name,
        f"{fmean(o.accuracy for o in found):.2f}",
        format_share(_count(found), len(found)),
        f"{fmean(o.road for o in found):.3f}",
        f"{100 * fmean(o.focus for o in found):+.1f}",
        "; ".join(f"{source}: {number}" for source, number in sources.most_common()),
        "; ".join(f"{test}: {number}" for test, number in failed.most_common()) or "none",
    ]


def _count(found: Sequence[MapOutcome]) -> int:
    return sum(o.is_admitted for o in found)


def _count_elsewhere(found: Sequence[MapOutcome]) -> int:
    return sum(o.focus_low <= 0 for o in found)


def _count_focused(found: Sequence[MapOutcome]) -> int:
    return sum(o.focus_low > 0 for o in found)

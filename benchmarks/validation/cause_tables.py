"""Table of FORENSICS.md on planted scenes: the root cause of confused pairs."""

from statistics import fmean

from benchmarks.pages import Table
from benchmarks.validation.goals import Goal, at_least, format_share
from benchmarks.validation.planted_causes import CAUSES, ConfusedWorld, explain_world
from benchmarks.validation.planted_models import pretrain
from benchmarks.validation.worlds import WorldCache


def tabulate_causes(cache: WorldCache, *, whole: bool) -> tuple[list[Table], list[Goal]]:
    """Return how often the planted cue comes first, and how often it or another one is named."""
    count = 6 if whole else 2
    weights = cache.make_files(pretrain, ["texture", "shape"], ".pt")
    worlds = {cue: ConfusedWorld(cue=cue, weights=weights.get(cue)) for cue in CAUSES}
    rows, firsts, total = [], 0, 0
    for cue, expected in CAUSES.items():
        found = [outcome for world in cache.repeat(explain_world, worlds[cue], count) for outcome in world]
        first = sum(o.first == expected for o in found)
        named = sum(o.named == expected for o in found)
        wrong = sum(o.named not in (expected, "mixed") for o in found)
        firsts, total = firsts + first, total + len(found)
        images = f"{fmean(o.num_images for o in found):.0f}" if found else "—"
        rows.append([expected, str(len(found)), images, format_share(first, len(found)), str(named), str(wrong)])
    head = ["planted cue", "pairs", "images", "it is first", "it is named", "another is named"]
    return [Table("Root cause of confused pairs", head, rows)], [at_least("planted cue first", firsts, total, 0.9)]

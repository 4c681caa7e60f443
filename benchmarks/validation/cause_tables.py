"""Tables of FORENSICS.md on planted scenes: the root cause of a confused pair; the world is the unit, for its models share it."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from analysis.causes.values import MIXED
from benchmarks.pages import Table
from benchmarks.validation.goals import Goal, at_least, at_most, format_share
from benchmarks.validation.planted_causes import (
    CAUSES,
    NULLS,
    CauseOutcome,
    CauseWorld,
    Kind,
    NullOutcome,
    NullStudy,
    explain_null_study,
    explain_world,
    pretrain_cues,
)
from benchmarks.validation.worlds import WorldCache

# Worlds for each null, planted worlds for each cue and for a common background, worlds for each cue with other pairs of the same
# cue, and single models for each cue and each null: of the sample, and whole.
COUNTS = {False: (6, 3, 1, 1), True: (20, 8, 3, 3)}
# Studies of each null without a cause.
NULL_STUDIES = {False: 6, True: 80}
# Of worlds, at least and at most; no error in 72 worlds is the fewest that meets the second.
MIN_NAMED, MAX_WRONG = 0.7, 0.05
# What makes the weights that all networks start from.
CUES = "cues"
CAUSE_WEIGHTS = {CUES: pretrain_cues}

Outcomes = Sequence[CauseOutcome]


def tabulate_causes(cache: WorldCache, *, whole: bool) -> tuple[list[Table], list[Goal]]:
    """Return which cue is named in worlds with a planted one and in null worlds, and the goals."""
    weights = cache.make_files(CAUSE_WEIGHTS, ".pt")[CUES]
    nulls, planted, shared, single = COUNTS[whole]
    rows = [
        *((CauseWorld(kind=Kind.PLANTED, cue=cue, weights=weights), planted) for cue in CAUSES),
        (CauseWorld(kind=Kind.BACKGROUND, cue="background", weights=weights), planted),
        *((CauseWorld(kind=kind, weights=weights), nulls) for kind in NULLS),
        *((CauseWorld(kind=Kind.SHARED, cue=cue, weights=weights), shared) for cue in CAUSES),
        *((CauseWorld(kind=Kind.PLANTED, cue=cue, weights=weights, num_models=1), single) for cue in CAUSES),
        *((CauseWorld(kind=kind, weights=weights, num_models=1), single) for kind in NULLS),
    ]
    outcomes = iter(cache.compute(explain_world, ((world, seed) for world, count in rows for seed in range(count))))
    found = [(world, [next(outcomes) for _ in range(count)]) for world, count in rows]
    several = [(world, of_row) for world, of_row in found if world.num_models > 1]
    return [_tabulate_named(found), _tabulate_measured(found)], _judge(several)


def tabulate_null_studies(cache: WorldCache, *, whole: bool) -> tuple[list[Table], list[Goal]]:
    """Return a table of how many studies of five pairs name a cue where nothing is specific to any pair, and the goals."""
    rows, goals, count = [], [], NULL_STUDIES[whole]
    for kind in NULLS:
        found: list[NullOutcome] = cache.repeat(explain_null_study, NullStudy(kind=kind), count)
        named = {
            "these models": sum(one.num_named > 0 for one in found),
            "the recipe": sum(one.num_recipe_named > 0 for one in found),
        }
        goals += [
            at_most(f"studies of five pairs that name a cue for {who}, {kind}", number, count, MAX_WRONG)
            for who, number in named.items()
        ]
        shown = [_format_mean([one.accuracy for one in found], 2), _format_mean([one.num_measured for one in found], 1)]
        rows.append([kind.value, str(count), *shown, *(format_share(number, count) for number in named.values())])
    head = [
        "one pair is confused by",
        "studies",
        "accuracy",
        "pairs measured of five",
        "a cue is named",
        "for the recipe",
    ]
    title = "Root causes per study: five pairs, none with a cause, models fitted in closed form"
    return [Table(title, head, rows)], goals


def _judge(found: Sequence[tuple[CauseWorld, Outcomes]]) -> list[Goal]:
    """Return the goals, of worlds with several models, for these models."""
    false = [_names_a_cue(o) for world, row in found if world.kind in NULLS for o in row]
    planted = [(CAUSES[world.cue], o) for world, row in found if world.kind is Kind.PLANTED for o in row]
    common = (Kind.SHARED, Kind.BACKGROUND)
    shared = [(CAUSES[world.cue], o) for world, row in found if world.kind in common for o in row]
    right = sum(o.cause == cue for cue, o in planted)
    wrong = sum(_names_a_cue(o) and o.cause != cue for cue, o in [*planted, *shared])
    return [
        at_most("null worlds in which a cue is named", sum(false), len(false), MAX_WRONG),
        at_least("planted worlds in which the cue is named", right, len(planted), MIN_NAMED),
        at_most("worlds with a cue in which another is named", wrong, len(planted) + len(shared), MAX_WRONG),
    ]


def _tabulate_named(found: Sequence[tuple[CauseWorld, Outcomes]]) -> Table:
    rows = []
    for world, outcomes in found:
        cue, count = CAUSES.get(world.cue), len(outcomes)
        right = "—" if cue is None else format_share(sum(o.cause == cue for o in outcomes), count)
        for_recipe = "—" if cue is None or world.num_models == 1 else str(sum(o.recipe_cause == cue for o in outcomes))
        wrong = Counter(o.cause for o in outcomes if _names_a_cue(o) and o.cause != cue)
        named = ", ".join(f"{number} {name}" for name, number in wrong.items()) or "0"
        recipe_wrong = sum(o.recipe_cause not in (None, MIXED, cue) for o in outcomes)
        shown = [world.kind.value, cue if cue else "—", str(world.num_models), str(count), right, for_recipe]
        rows.append([*shown, named, str(recipe_wrong)])
    head = ["the pair is confused by", "cue", "models", "worlds", "cue is named", "for the recipe"]
    head += ["another is named", "for the recipe"]
    return Table("Root cause of a confused pair, by world", head, rows)


def _tabulate_measured(found: Sequence[tuple[CauseWorld, Outcomes]]) -> Table:
    """Return what the worlds were measured with."""
    rows = []
    for world, outcomes in found:
        cue, measured = CAUSES.get(world.cue), [o for o in outcomes if o.effects]
        no_references = sum("no comparable" in o.note for o in outcomes)
        effects = [o.effects[cue] for o in measured if cue is not None]
        first = "—" if cue is None else f"{sum(o.first == cue for o in measured)} of {len(measured)}"
        shown = [
            _format_mean([o.accuracy for o in outcomes], 2),
            str(no_references),
            str(len(outcomes) - len(measured) - no_references),
            _format_mean([o.num_images for o in measured], 0),
            _format_mean([o.num_references for o in measured], 0),
            _format_mean([abs(o.imbalance or 0.0) for o in measured], 2),
            first,
            _format_mean([estimate for estimate, _ in effects], 2),
            _format_mean([half_width for _, half_width in effects], 2),
        ]
        rows.append([world.kind.value, cue if cue else "—", str(world.num_models), *shown])
    head = ["the pair is confused by", "cue", "models", "accuracy", "no comparable references", "too few images"]
    head += ["images", "references", "imbalance (SD)", "cue is first", "effect (logits)", "half-width"]
    return Table("Root cause, what was measured: means over worlds", head, rows)


def _names_a_cue(outcome: CauseOutcome) -> bool:
    return outcome.cause not in (None, MIXED)


def _format_mean(values: Sequence[float], digits: int) -> str:
    return f"{fmean(values):.{digits}f}" if values else "—"

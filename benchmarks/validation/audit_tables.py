"""Tables of FORENSICS.md on planted scenes: false alarms and power of the ring audit and of the frequency test."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from sklearn.metrics import roc_auc_score

from benchmarks.pages import Table
from benchmarks.validation.goals import Goal, at_least, at_most, format_share, make_plain
from benchmarks.validation.planted_audits import CONTROL, AuditedWorld, AuditOutcome, audit_world
from benchmarks.validation.planted_models import pretrain
from benchmarks.validation.worlds import WorldCache
from trainables.data.sources.planted_drawing import SHAPES

RING_SHORTCUTS = ("corner_patch", "frame", "background")
WAVE = "sinusoid"
REGIONS = {"corner_patch": "top left corner", "frame": "all around", "background": "all around"}
RHOS = (0.5, 0.8, 1.0)
# Of control worlds; none of 72 is the fewest that meets it.
MAX_ALARMS = 0.05
# Worlds in the sample and in the whole: controls, and worlds of each shortcut, rho and extent.
SAMPLE_WORLDS = (8, 1)
WHOLE_WORLDS = (32, 2)
# Whether objects reach the ring, and whether the audit is given their masks.
SETTINGS = tuple(itertools.product((True, False), (False, True)))
EXTENTS = {False: "all classes", True: "one class"}

# What makes the weights that the networks of the frequency test start from.
WAVE_WEIGHTS = {WAVE: pretrain}

Outcomes = Sequence[AuditOutcome]
# Of one shortcut at one rho, for all classes or one.
Row = tuple[str, float, bool]


def tabulate_audits(cache: WorldCache, *, whole: bool) -> tuple[list[Table], list[Goal]]:
    """Return the tables of the ring audit and of the frequency test, and their goals; `whole` takes more worlds."""
    num_controls, count = WHOLE_WORLDS if whole else SAMPLE_WORLDS
    waves = cache.make_files(WAVE_WEIGHTS, ".pt")[WAVE]
    controls = list(list_worlds(AuditedWorld(shortcut=CONTROL), num_controls, 0))
    rows = [(shortcut, rho, only) for shortcut in (*RING_SHORTCUTS, WAVE) for rho in RHOS for only in EXTENTS]
    planted: dict[Row, list[AuditedWorld]] = {}
    for number, (shortcut, rho, only) in enumerate([*rows, (WAVE, 0.0, False)]):
        world = AuditedWorld(shortcut=shortcut, rho=rho, weights=waves if shortcut == WAVE else None)
        planted[shortcut, rho, only] = list(list_worlds(world, count, number, only_one=only))
    everything = [(world, seed) for worlds in (controls, *planted.values()) for seed, world in enumerate(worlds)]
    outcomes = iter(cache.compute(audit_world, everything))
    found = [next(outcomes) for _ in controls]
    caught = {row: [next(outcomes) for _ in worlds] for row, worlds in planted.items()}
    return tabulate_outcomes(controls, found, caught)


def list_worlds(world: AuditedWorld, count: int, number: int, *, only_one: bool = False) -> Iterable[AuditedWorld]:
    """Yield `count` worlds like `world`, which take turns in their setting and, with `only_one`, in the planted class.

    `number` is that of the row, with which the turns begin.
    """
    for turn in range(number, number + count):
        reaches_ring, has_masks = SETTINGS[turn % len(SETTINGS)]
        only_class = SHAPES[3 * turn % len(SHAPES)] if only_one else ""
        yield replace(world, reaches_ring=reaches_ring, has_masks=has_masks, only_class=only_class)


def tabulate_outcomes(
    worlds: Sequence[AuditedWorld], controls: Outcomes, planted: Mapping[Row, Outcomes]
) -> tuple[list[Table], list[Goal]]:
    """Return the tables and goals from the control worlds, their outcomes, and the outcomes of each planted row."""
    goals: list[Goal] = []
    rings = {row: found for row, found in planted.items() if row[0] != WAVE}
    tables = [
        _tabulate_alarms(worlds, controls, goals),
        _tabulate_rings(rings),
        _tabulate_power(rings),
        _tabulate_separation(controls, rings, goals),
        _tabulate_frequencies(controls, planted, goals),
    ]
    return tables, goals


def _tabulate_alarms(worlds: Sequence[AuditedWorld], controls: Outcomes, goals: list[Goal]) -> Table:
    """Return confirmed failures and all failures of the controls by setting; either ring counts."""
    rows = []
    every = list(zip(worlds, controls, strict=True))
    for reaches, masks in (*SETTINGS, (None, None)):
        found = [o for w, o in every if reaches is None or (w.reaches_ring, w.has_masks) == (reaches, masks)]
        setting = "all" if reaches is None else f"{_say(reaches)} / {_say(masks)}"
        marks: list[Callable[[AuditOutcome], bool]] = [
            lambda o: any(r.is_confirmed for r in o.rings),
            lambda o: any(r.recipe_confirmed for r in o.rings),
            lambda o: any(r.first_confirmed for r in o.rings),
            lambda o: any(r.fails for r in o.rings),
            lambda o: o.frequency_fails,
        ]
        rows.append([setting, *(format_share(sum(map(mark, found)), len(found)) for mark in marks)])
    alarms = sum(any(r.is_confirmed for r in o.rings) for o in controls)
    goals.append(at_most("false alarms of the ring audit", alarms, len(controls), MAX_ALARMS))
    waves = sum(o.frequency_fails for o in controls)
    goals.append(at_most("false alarms of the frequency test", waves, len(controls), MAX_ALARMS))
    columns = ["objects reach the ring / masks", "confirmed FAIL", "for the recipe", "first model alone", "any FAIL"]
    return Table("Audits of control worlds: false alarms", [*columns, "frequency test fails"], rows)


def _say(value: bool | None) -> str:
    return "yes" if value else "no"


def _tabulate_rings(planted: Mapping[Row, Outcomes]) -> Table:
    rows = []
    for (shortcut, rho, only), found in planted.items():
        accuracy = f"{fmean(o.accuracy for o in found):.2f}"
        cells = []
        for width in (0, 1):
            rings = [o.rings[width] for o in found]
            cells += [f"{100 * fmean(r.gap for r in rings):.1f}"]
            cells += [f"{sum(r.is_confirmed for r in rings)} ({sum(r.fails for r in rings)})"]
        rows.append([shortcut, EXTENTS[only], f"{rho:.1f}", str(len(found)), accuracy, *cells])
    columns = ["planted", "in", "rho", "worlds", "accuracy"]
    columns += ["gap, ring of 4 (pp)", "confirmed FAIL (any)", "gap, ring of 6 (pp)", "confirmed FAIL (any)"]
    return Table("Ring audit of planted worlds: gaps and failures of the planted classes", columns, rows)


def _tabulate_power(planted: Mapping[Row, Outcomes]) -> Table:
    """Return the share of worlds in which the narrow ring catches a planted class, over all shortcuts in the ring."""
    rows = []
    for only, extent in EXTENTS.items():
        for rho in RHOS:
            rings = [o.rings[0] for row, found in planted.items() if row[1:] == (rho, only) for o in found]
            marks = [
                [r.fails for r in rings],
                [r.is_confirmed for r in rings],
                [r.recipe_confirmed for r in rings],
                [r.first_confirmed for r in rings],
            ]
            rows.append([extent, f"{rho:.1f}", *(format_share(sum(mark), len(mark)) for mark in marks)])
    columns = ["shortcut in", "rho", "any FAIL", "confirmed FAIL", "for the recipe", "first model alone"]
    return Table("Ring audit: power of the ring of 4, all shortcuts in the ring", columns, rows)


def _tabulate_separation(controls: Outcomes, planted: Mapping[Row, Outcomes], goals: list[Goal]) -> Table:
    """Return, for each shortcut, the AUC against controls, whether the gap grows with rho, and the regions named."""
    rows = []
    right = named = 0
    pooled: dict[bool, list[float]] = {only: [] for only in EXTENTS}
    for only, extent in EXTENTS.items():
        for shortcut in RING_SHORTCUTS:
            by_rho = [planted[shortcut, rho, only] for rho in RHOS]
            own = [_score(o, only) for found in by_rho for o in found]
            pooled[only] += own
            means = [fmean(o.rings[0].gap for o in found) for found in (controls, *by_rho)]
            is_monotone = all(a < b for a, b in itertools.pairwise(means))
            regions = [o.rings[0].region for found in by_rho for o in found if o.rings[0].fails]
            hits = sum(region == REGIONS[shortcut] for region in regions)
            right, named = right + hits, named + len(regions)
            grows = _say(is_monotone)
            if not only:
                goals.append(make_plain(f"the gap of {shortcut} grows with rho", "every rho", grows, is_monotone))
            auc = _compute_auc([_score(o, only) for o in controls], own)
            rows.append([shortcut, extent, f"{auc:.3f}", grows, f"{hits} of {len(regions)}"])
    for only, extent in EXTENTS.items():
        auc = _compute_auc([_score(o, only) for o in controls], pooled[only])
        rows.append(["all", extent, f"{auc:.3f}", "", ""])
        if not only:
            goals.append(make_plain("AUC of the narrow ring's gap", "at least 0.9", f"{auc:.3f}", auc >= 0.9))
    goals.append(at_least("region right where the ring audit fails", right, named, 0.9))
    title = (
        "Ring audit, planted (every rho above 0) against control by the narrow ring's gap, of one class by the highest"
    )
    return Table(title, ["planted", "in", "AUC", "gap grows with rho", "region right where it fails"], rows)


def _score(outcome: AuditOutcome, only: bool) -> float:
    """Return the gap that tells planted worlds from controls: over all classes, or the highest of a class."""
    ring = outcome.rings[0]
    return ring.highest_gap if only else ring.gap


def _compute_auc(controls: Sequence[float], planted: Sequence[float]) -> float:
    return float(roc_auc_score([0] * len(controls) + [1] * len(planted), [*controls, *planted]))


def _tabulate_frequencies(controls: Outcomes, planted: Mapping[Row, Outcomes], goals: list[Goal]) -> Table:
    rows = []
    shown = [row for row in planted if row[0] == WAVE or row[1:] == (1.0, False)]
    for name, rho, only, found in [(CONTROL, 0.0, False, controls), *((*row, planted[row]) for row in shown)]:
        gap = f"{100 * fmean(o.frequency_gap for o in found):.1f}"
        marks = (
            [o.frequency_fails for o in found],
            [o.frequency_recipe_fails for o in found],
            [not o.rings[0].fails for o in found],
        )
        shares = [format_share(sum(mark), len(mark)) for mark in marks]
        rows.append([name, EXTENTS[only], f"{rho:.1f}", gap, *shares])
    for only, extent in EXTENTS.items():
        caught = [o.frequency_fails for o in planted[WAVE, 1.0, only]]
        goals.append(at_least(f"the wave of {extent} at rho = 1 is caught", sum(caught), len(caught), 0.9))
    title = (
        "Frequency test of the planted classes; a sinusoid fills the image, so a swapped ring leaves it in the center"
    )
    columns = ["planted", "in", "rho", "gap (pp)", "frequency test fails", "for the recipe", "missed by the ring of 4"]
    return Table(title, columns, rows)

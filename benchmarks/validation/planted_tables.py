"""Tables of FORENSICS.md on planted scenes: error rates of the audits and of the region."""

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean

from sklearn.metrics import roc_auc_score

from benchmarks.pages import Table
from benchmarks.validation.goals import Goal, at_least, at_most_so_many, format_share, make_plain
from benchmarks.validation.planted_models import pretrain
from benchmarks.validation.planted_truth import (
    CONTROL,
    REGIONS,
    RING_SHORTCUTS,
    AuditedWorld,
    AuditOutcome,
    audit_world,
)
from benchmarks.validation.worlds import WorldCache

RHOS = (0.5, 0.8, 1.0)
WAVE_RHOS = (0.0, 0.8, 1.0)
FEWEST_CONTROLS = 30
SAMPLE_WORLDS = 2
WHOLE_WORLDS = 6
Outcomes = Sequence[AuditOutcome]
Planted = Mapping[tuple[str, float], Outcomes]


def tabulate_audits(cache: WorldCache, *, whole: bool) -> tuple[list[Table], list[Goal]]:
    """Return the tables of the ring audit and of the frequency test, and their goals; `whole` takes more worlds."""
    count = WHOLE_WORLDS if whole else SAMPLE_WORLDS
    controls = cache.repeat(audit_world, AuditedWorld(shortcut=CONTROL), FEWEST_CONTROLS)
    waves = cache.make_files(pretrain, ["sinusoid"], ".pt")["sinusoid"]
    worlds = [AuditedWorld(shortcut=shortcut, rho=rho) for shortcut in RING_SHORTCUTS for rho in RHOS]
    worlds += [AuditedWorld(shortcut="sinusoid", rho=rho, weights=waves) for rho in WAVE_RHOS]
    planted = {(world.shortcut, world.rho): cache.repeat(audit_world, world, count) for world in worlds}
    goals: list[Goal] = []
    tables = [
        _tabulate_rings(controls, planted, goals),
        _tabulate_separation(controls, planted, goals),
        _tabulate_frequencies(controls, planted, goals),
    ]
    return tables, goals


def _tabulate_rings(controls: Outcomes, planted: Planted, goals: list[Goal]) -> Table:
    rows = []
    for name, rho, found in [(CONTROL, 0.0, controls), *((s, r, f) for (s, r), f in planted.items())]:
        fails = [f"{sum(o.confirmed[w] for o in found)} ({sum(o.fails[w] for o in found)})" for w in (0, 1)]
        gaps = [f"{100 * fmean(o.gaps[w] for o in found):.1f}" for w in (0, 1)]
        accuracy = f"{fmean(o.accuracy for o in found):.2f}"
        rows.append([name, f"{rho:.1f}", str(len(found)), accuracy, gaps[0], gaps[1], *fails])
    alarms = sum(any(o.confirmed) for o in controls)
    goals.append(at_most_so_many("false alarms of the ring audit", alarms, len(controls), 0, FEWEST_CONTROLS))
    title = f"Ring audit; false alarms {format_share(alarms, len(controls))} of the controls (goal none)"
    gaps, fails = ("gap, ring of 4 (pp)", "ring of 6"), ("confirmed FAIL (any FAIL), 4", "6")
    return Table(title, ("planted", "rho", "worlds", "accuracy", *gaps, *fails), rows)


def _tabulate_separation(controls: Outcomes, planted: Planted, goals: list[Goal]) -> Table:
    """Return, for each shortcut in the ring, the AUC against controls, whether the gap grows with rho, and the regions named."""
    rows = []
    scores = [o.gaps[0] for o in controls]
    right = named = 0
    everything: list[float] = []
    for shortcut in RING_SHORTCUTS:
        by_rho = [[o.gaps[0] for o in planted[shortcut, rho]] for rho in RHOS]
        own = [gap for gaps in by_rho for gap in gaps]
        everything += own
        means = [fmean(scores), *(fmean(gaps) for gaps in by_rho)]
        is_monotone = all(a < b for a, b in itertools.pairwise(means))
        regions = [o.region for rho in RHOS for o in planted[shortcut, rho] if o.region]
        hits = sum(region == REGIONS[shortcut] for region in regions)
        right, named = right + hits, named + len(regions)
        goals.append(
            make_plain(
                f"the gap of {shortcut} grows with rho", "every rho", "yes" if is_monotone else "no", is_monotone
            )
        )
        rows.append([shortcut, f"{_auc(scores, own):.3f}", "yes" if is_monotone else "no", f"{hits} of {len(regions)}"])
    auc = _auc(scores, everything)
    rows.append(["all", f"{auc:.3f}", "", f"{right} of {named}"])
    goals.append(make_plain("AUC of the narrow ring's gap", "at least 0.9", f"{auc:.3f}", auc >= 0.9))
    goals.append(at_least("region right where the ring audit fails", right, named, 0.9))
    title = "Ring audit, planted (every rho above 0) against control by the narrow ring's gap"
    return Table(title, ["planted", "AUC", "gap grows with rho", "region right where it fails"], rows)


def _auc(controls: Sequence[float], planted: Sequence[float]) -> float:
    return float(roc_auc_score([0] * len(controls) + [1] * len(planted), [*controls, *planted]))


def _tabulate_frequencies(controls: Outcomes, planted: Planted, goals: list[Goal]) -> Table:
    rows = []
    shown = [*(("sinusoid", rho) for rho in WAVE_RHOS), *((shortcut, 1.0) for shortcut in RING_SHORTCUTS)]
    for name, rho, found in [(CONTROL, 0.0, controls), *((*world, planted[world]) for world in shown)]:
        gap = f"{100 * fmean(o.frequency_gap for o in found):.1f}"
        missed = format_share(sum(not o.fails[0] for o in found), len(found))
        rows.append([name, f"{rho:.1f}", gap, format_share(sum(o.frequency_fails for o in found), len(found)), missed])
    blind = [*controls, *planted["sinusoid", 0.0]]
    alarms = sum(o.frequency_fails for o in blind)
    caught = [o.frequency_fails for o in planted["sinusoid", 1.0]]
    goals.append(at_most_so_many("false alarms of the frequency test", alarms, len(blind), 0, len(blind)))
    goals.append(at_least("the sinusoid at rho = 1 is caught", sum(caught), len(caught), 0.9))
    title = (
        f"Frequency test; false alarms {format_share(alarms, len(blind))} where no wave tells the class. The sinusoid "
    )
    title += "fills the image, so a swapped ring leaves it in the center"
    return Table(title, ["planted", "rho", "gap (pp)", "frequency test fails", "missed by the ring of 4"], rows)

"""Tables of FORENSICS.md on planted scenes: error rates of the audits, of the region, and of the root cause."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from benchmarks.pages import Table
from benchmarks.parallel import repeat, run_parallel
from benchmarks.validation.planted_truth import (
    CAUSES,
    CONTROL,
    PRETRAINING_EPOCHS,
    REGIONS,
    RING_SHORTCUTS,
    AuditedWorld,
    AuditOutcome,
    CauseOutcome,
    ConfusedWorld,
    audit_world,
    explain_world,
    pretrain,
)

RHOS = (0.5, 0.8, 1.0)
WAVE_RHOS = (0.0, 0.8, 1.0)
FEWEST_CONTROLS = 30
Outcomes = Sequence[AuditOutcome]
Planted = Mapping[tuple[str, float], Outcomes]


def pretrain_all(folder: Path) -> dict[str, str]:
    """Return a file of backbone weights for each cue and shortcut that needs more steps than a world has."""
    # The longest first.
    cues = sorted(PRETRAINING_EPOCHS, key=lambda cue: -PRETRAINING_EPOCHS[cue])
    files = run_parallel(pretrain, ((cue, folder) for cue in cues))
    return dict(zip(cues, files, strict=True))


def tabulate_audits(count: int, weights: Mapping[str, str], problems: list[str]) -> list[Table]:
    """Return the tables of the ring audit and of the frequency test, `count` worlds for each shortcut and rho."""
    controls = repeat(audit_world, AuditedWorld(shortcut=CONTROL), max(count, FEWEST_CONTROLS))
    worlds = [AuditedWorld(shortcut=shortcut, rho=rho) for shortcut in RING_SHORTCUTS for rho in RHOS]
    worlds += [AuditedWorld(shortcut="sinusoid", rho=rho, weights=weights["sinusoid"]) for rho in WAVE_RHOS]
    planted = {(world.shortcut, world.rho): repeat(audit_world, world, count) for world in worlds}
    return [
        _tabulate_rings(controls, planted, problems),
        _tabulate_separation(controls, planted, problems),
        _tabulate_frequencies(controls, planted, problems),
    ]


def _tabulate_rings(controls: Outcomes, planted: Planted, problems: list[str]) -> Table:
    rows = []
    for name, rho, found in [(CONTROL, 0.0, controls), *((s, r, f) for (s, r), f in planted.items())]:
        fails = [f"{sum(o.confirmed[w] for o in found)} ({sum(o.fails[w] for o in found)})" for w in (0, 1)]
        gaps = [f"{100 * fmean(o.gaps[w] for o in found):.1f}" for w in (0, 1)]
        accuracy = f"{fmean(o.accuracy for o in found):.2f}"
        rows.append([name, f"{rho:.1f}", str(len(found)), accuracy, gaps[0], gaps[1], *fails])
    alarms = sum(any(o.confirmed) for o in controls)
    if alarms:
        problems.append(f"false alarms {_format_share(alarms, len(controls))}, goal none")
    title = f"Ring audit; false alarms {_format_share(alarms, len(controls))} of the controls (goal none)"
    gaps, fails = ("gap, ring of 4 (pp)", "ring of 6"), ("confirmed FAIL (any FAIL), 4", "6")
    return Table(title, ("planted", "rho", "worlds", "accuracy", *gaps, *fails), rows)


def _tabulate_separation(controls: Outcomes, planted: Planted, problems: list[str]) -> Table:
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
        if not is_monotone:
            problems.append(f"the gap of {shortcut} does not grow with rho")
        rows.append([shortcut, f"{_auc(scores, own):.3f}", "yes" if is_monotone else "no", f"{hits} of {len(regions)}"])
    auc = _auc(scores, everything)
    rows.append(["all", f"{auc:.3f}", "", f"{right} of {named}"])
    if auc < 0.9:
        problems.append(f"AUC of the audit {auc:.3f} < 0.9")
    if not named or right / named < 0.9:
        problems.append(f"region right in {_format_share(right, named)}, goal 0.9")
    goals = "(goals: AUC 0.9, regions 0.9)"
    title = f"Ring audit, planted (every rho above 0) against control by the narrow ring's gap {goals}"
    return Table(title, ["planted", "AUC", "gap grows with rho", "region right where it fails"], rows)


def _auc(controls: Sequence[float], planted: Sequence[float]) -> float:
    return float(roc_auc_score([0] * len(controls) + [1] * len(planted), [*controls, *planted]))


def _tabulate_frequencies(controls: Outcomes, planted: Planted, problems: list[str]) -> Table:
    rows = []
    shown = [*(("sinusoid", rho) for rho in WAVE_RHOS), *((shortcut, 1.0) for shortcut in RING_SHORTCUTS)]
    for name, rho, found in [(CONTROL, 0.0, controls), *((*world, planted[world]) for world in shown)]:
        gap = f"{100 * fmean(o.frequency_gap for o in found):.1f}"
        missed = _format_share(sum(not o.fails[0] for o in found), len(found))
        rows.append([name, f"{rho:.1f}", gap, _format_share(sum(o.frequency_fails for o in found), len(found)), missed])
    blind = [*controls, *planted["sinusoid", 0.0]]
    alarms = sum(o.frequency_fails for o in blind)
    caught = [o.frequency_fails for o in planted["sinusoid", 1.0]]
    if alarms:
        problems.append(f"frequency test, false alarms {_format_share(alarms, len(blind))}")
    if not all(caught):
        problems.append(f"the sinusoid at rho = 1 is caught in {_format_share(sum(caught), len(caught))} only")
    title = (
        f"Frequency test; false alarms {_format_share(alarms, len(blind))} where no wave tells the class. The sinusoid "
    )
    title += "fills the image, so a swapped ring leaves it in the center"
    return Table(title, ["planted", "rho", "gap (pp)", "frequency test fails", "missed by the ring of 4"], rows)


def tabulate_causes(count: int, weights: Mapping[str, str], problems: list[str]) -> Table:
    """Return how often the planted cue comes first, and how often it or another one is named, `count` worlds for each cue."""
    rows = []
    firsts = total = 0
    for cue, expected in CAUSES.items():
        start = weights.get(cue, "none")
        worlds: list[tuple[CauseOutcome, ...]] = repeat(explain_world, ConfusedWorld(cue=cue, weights=start), count)
        found = [outcome for world in worlds for outcome in world]
        first = sum(o.first == expected for o in found)
        named = sum(o.named == expected for o in found)
        wrong = sum(o.named not in (expected, "mixed") for o in found)
        firsts, total = firsts + first, total + len(found)
        images = f"{fmean(o.num_images for o in found):.0f}" if found else "—"
        rows.append([expected, str(len(found)), images, _format_share(first, len(found)), str(named), str(wrong)])
    rows.append(["all", str(total), "", _format_share(firsts, total), "", ""])
    if not total or firsts / total < 0.9:
        problems.append(f"the planted cue is first in {_format_share(firsts, total)}, goal 0.9")
    title = "Root cause of confused pairs (goal: the planted cue first in 0.9)"
    return Table(title, ["planted cue", "pairs", "images", "it is first", "it is named", "another is named"], rows)


def _format_share(number: int, total: int) -> str:
    """Return "28 of 30 = 0.93 [0.78, 0.99]", with the exact interval at 95 %."""
    if not total:
        return "0 of 0"
    interval = binomtest(number, total).proportion_ci(0.95)
    return f"{number} of {total} = {number / total:.2f} [{interval.low:.2f}, {interval.high:.2f}]"

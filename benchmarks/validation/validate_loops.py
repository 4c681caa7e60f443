"""Whole studies of planted scenes, each followed by the interventions that it asks for; writes benchmarks/LOOPS.md.

Worlds of each kind tune the recalibration of predictions; others, which tune nothing, judge predictions and recommendations.
Finished worlds are stored (`worlds.py`).
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import stats

from analysis.interventions.intervention import CONSTANTS, Recalibration, find_error
from analysis.interventions.values import InterventionEffect, Outcome
from analysis.statistics.interval import Interval
from benchmarks.pages import Table, publish_simulation, today
from benchmarks.validation.goals import (
    Goal,
    at_least,
    at_most,
    between,
    count_open,
    format_share,
    list_problems,
    tabulate_goals,
)
from benchmarks.validation.planted_loops import MARGIN, SEEDS, LoopOutcome, LoopWorld, run_loop
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "LOOPS.md"
# Kinds of worlds, and whether an intervention may be BETTER on its target there; whether it helps, `helps` says.
KINDS = {"shared texture": True, "shortcut": True, "label noise": False}
# Worlds of each kind that tune the recalibration, and those that are held out. A shared texture takes three times as long.
NUM_WORLDS = {"shared texture": (4, 4), "shortcut": (4, 20), "label noise": (4, 16)}
# Without them an intervention gets no line.
MIN_PREDICTIONS = 3
MIN_HELPED, MAX_CLAIMED = 0.7, 0.05
COVERAGE = (0.90, 0.99)


def tabulate_loops(
    counts: Mapping[str, tuple[int, int]], num_seeds: int, goals: list[Goal], folder: Path = DEFAULT_FOLDER
) -> tuple[list[Table], dict[str, Recalibration]]:
    """Return what whole studies find where something helps and where nothing does, and how measured changes follow predictions.

    Args:
        counts: by kind, the worlds that tune the recalibration, and those that are held out.
        num_seeds: of each world.
        goals: receives what is judged.
        folder: of stored outcomes.
    """
    cache, rows = WorldCache(folder=folder), []
    outcomes: dict[str, list[LoopOutcome]] = {}
    for kind, is_helped in KINDS.items():
        total = sum(counts[kind])
        found = outcomes[kind] = cache.repeat(run_loop, LoopWorld(kind=kind, num_seeds=num_seeds), total)
        claimed = sum(outcome.is_claimed for outcome in found)
        if is_helped:
            goals.append(
                at_least(
                    f"worlds with {kind} in which one asked for is BETTER on its target", claimed, total, MIN_HELPED
                )
            )
        else:
            name = f"worlds with {kind} in which one asked for is claimed BETTER"
            goals.append(at_most(name, claimed, total, MAX_CLAIMED))
        tried = [effect for outcome in found for effect in outcome.effects]
        changes = [100 * effect.target.effect.estimate for effect in tried if effect.target is not None]
        change = f"{np.mean(changes):+.1f}" if changes else "-"
        asked = sum(len(outcome.asked) for outcome in found)
        rows.append([kind, format_share(claimed, total), str(asked), str(len(tried)), change])
    head = ["worlds", "BETTER on the target", "arms asked for", "arms tried", "mean change of the target (pp)"]
    tuning = [effect for kind, found in outcomes.items() for o in found[: counts[kind][0]] for effect in o.effects]
    known = fit_recalibrations(tuning)
    held_out = {kind: [o.recalibrate(known) for o in found[counts[kind][0] :]] for kind, found in outcomes.items()}
    tables = [
        Table(f"The whole chain on planted scenes, {num_seeds} seeds", head, rows),
        _tabulate_held_out(outcomes, held_out, goals),
        _tabulate_recalibrations(known),
        _tabulate_predictions([e for found in held_out.values() for o in found for e in o.effects], goals),
    ]
    return tables, known


def fit_recalibrations(effects: Sequence[InterventionEffect]) -> dict[str, Recalibration]:
    """Return the line of measured on predicted changes of each intervention with enough predictions, by its name."""
    pairs: dict[str, list[tuple[Interval, float]]] = {}
    for effect in effects:
        before = effect.stated.prediction.before
        if before is not None and effect.target is not None:
            pairs.setdefault(effect.stated.arm, []).append((before, effect.target.effect.estimate))
    source = f"benchmarks/{PAGE.name}, {today()}"
    found = {}
    for name in sorted(pairs):
        before, after = [one for one, _ in pairs[name]], [one for _, one in pairs[name]]
        found[name] = fit_recalibration(before, after, source)
    return {name: line for name, line in found.items() if line is not None}


def fit_recalibration(predicted: Sequence[Interval], measured: Sequence[float], source: str) -> Recalibration | None:
    """Return the line by least squares; None for fewer than `MIN_PREDICTIONS` predictions, and if all of them are zero.

    Args:
        predicted: changes with their intervals at 95 %.
        measured: the changes that followed.
        source: of the constants.
    """
    x, y = np.array([one.estimate for one in predicted]), np.asarray(measured, dtype=np.float64)
    if len(x) < MIN_PREDICTIONS or not x.any():
        return None
    slope = float(x @ y / (x @ x))
    variance = float(np.sum((y - slope * x) ** 2) / (len(x) - 1))
    explained = slope**2 * float(np.mean([find_error(one) ** 2 for one in predicted]))
    return Recalibration(
        slope=slope,
        slope_error=float(np.sqrt(variance / (x @ x))),
        spread=float(np.sqrt(max(variance - explained, 0.0))),
        number=len(x),
        source=source,
    )


def helps(effects: Sequence[InterventionEffect]) -> bool:
    """Return whether an intervention helps in a kind of worlds, by its mean effects over all of them.

    Its target certainly falls, by the t interval at 95 %, and the mean of macro-F1 does not fall by the margin.
    """
    changes = [effect.target.effect.estimate for effect in effects if effect.target is not None]
    scores = [effect.macro_f1.estimate for effect in effects if effect.macro_f1 is not None]
    if len(changes) < 2 or not scores:
        return False
    reach = float(stats.t.ppf(0.975, len(changes) - 1) * stats.sem(changes))
    return float(np.mean(changes)) + reach < 0 and float(np.mean(scores)) > -MARGIN


def _tabulate_held_out(
    outcomes: Mapping[str, Sequence[LoopOutcome]], held_out: Mapping[str, Sequence[LoopOutcome]], goals: list[Goal]
) -> Table:
    """Return right, wrong and missing recommendations of the worlds that tuned nothing, by kind."""
    rows, counts = [], {True: np.zeros(3, dtype=int), False: np.zeros(3, dtype=int)}
    for kind, found in held_out.items():
        by_arm: dict[str, list[InterventionEffect]] = {}
        for effect in (effect for outcome in outcomes[kind] for effect in outcome.effects):
            by_arm.setdefault(effect.stated.arm, []).append(effect)
        helpful = {name for name, effects in by_arm.items() if KINDS[kind] and helps(effects)}
        names = [outcome.recommend() for outcome in found]
        right = sum(name in helpful for name in names)
        wrong = sum(bool(name) and name not in helpful for name in names)
        missing = names.count("") if helpful else 0
        counts[bool(helpful)] += (right, wrong, len(names))
        cells = [str(number) for number in (len(names), right, wrong, missing)]
        rows.append([kind, ", ".join(sorted(helpful)) or "none", *cells])
    (right, wrong, total), (_, claimed, without) = (map(int, counts[has_help]) for has_help in (True, False))
    goals.append(at_least("right recommendations in worlds with help", right, total, MIN_HELPED))
    goals.append(at_most("wrong recommendations in worlds with help", wrong, total, MAX_CLAIMED))
    goals.append(at_most("recommendations in worlds without help", claimed, without, MAX_CLAIMED))
    head = ["worlds", "what helps, by all worlds", "held out", "right", "wrong", "missing"]
    return Table("Recommendations in worlds that tuned nothing", head, rows)


def _tabulate_recalibrations(known: Mapping[str, Recalibration]) -> Table:
    rows = [[name, line.describe()] for name, line in known.items()]
    return Table("Part of a predicted change, measured on the control, that came about", ["intervention", "part"], rows)


def _tabulate_predictions(effects: Sequence[InterventionEffect], goals: list[Goal]) -> Table:
    """Return the coverage of predicted intervals, and what became of the predictions, in worlds that tuned nothing."""
    by_arm: dict[str, list[tuple[bool, Outcome]]] = {}
    for effect in effects:
        predicted = effect.stated.prediction.effect
        if predicted is not None and effect.target is not None:
            is_covered = predicted.low <= effect.target.effect.estimate <= predicted.high
            by_arm.setdefault(effect.stated.arm, []).append((is_covered, effect.outcome))
    rows = []
    for name, found in sorted(by_arm.items()):
        became = [outcome for _, outcome in found]
        counts = [str(became.count(outcome)) for outcome in (Outcome.HELD, Outcome.REFUTED, Outcome.UNDECIDED)]
        rows.append([name, str(len(found)), format_share(sum(hit for hit, _ in found), len(found)), *counts])
    hits = [is_covered for found in by_arm.values() for is_covered, _ in found]
    goals.append(between("measured changes that predicted intervals cover", sum(hits), len(hits), *COVERAGE))
    head = ["intervention", "predictions", "measured inside", "held", "refuted", "undecided"]
    return Table("Predictions in worlds that tuned nothing", head, rows)


def main(
    whole: Annotated[bool, typer.Option("--whole", help="Hold out twice as many worlds of each kind.")] = False,
    sample: Annotated[bool, typer.Option("--sample", help="A tenth of the worlds; writes no page.")] = False,
    seeds: Annotated[
        int, typer.Option(help="Of each world; the page is written with the usual number only.", min=2)
    ] = SEEDS,
    folder: Annotated[
        Path, typer.Option(help="Outcomes of finished worlds; a validation that was stopped resumes.")
    ] = DEFAULT_FOLDER,
) -> None:
    """Run every world, print the tables, and write the page where the counts are the usual ones.

    The page comes with the constants by which predictions are recalibrated.
    """
    started, goals, share = time.perf_counter(), list[Goal](), 0.1 if sample else 1.0
    counts = {
        kind: (max(1, round(share * tuning)), max(1, round(share * held * (1 + whole))))
        for kind, (tuning, held) in NUM_WORLDS.items()
    }
    chain, known = tabulate_loops(counts, seeds, goals, folder)
    is_usual = not sample and seeds == SEEDS
    if is_usual:
        constants = {name: asdict(line) for name, line in known.items()}
        CONSTANTS.write_text(json.dumps(constants, indent=1) + "\n")
    tables = [tabulate_goals(goals), *chain]
    publish_simulation(started, tables, list_problems(goals), count_open(goals), PAGE if is_usual else None)


if __name__ == "__main__":
    typer.run(main)

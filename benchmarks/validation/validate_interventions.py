"""The level of rounds of interventions, and the whole chain on planted scenes; writes benchmarks/INTERVENTIONS.md.

The chain is tried on ten worlds of each kind that tune the recalibration of predictions, and on ten (without help, twenty) that
tune nothing; `--whole` doubles these. Finished worlds are stored (`worlds.py`).
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import stats

from analysis.interventions.intervention import CONSTANTS, Recalibration, find_error
from analysis.interventions.values import InterventionEffect, Outcome
from analysis.statistics.interval import Interval
from benchmarks.pages import Table, publish_simulation, today
from benchmarks.parallel import repeat
from benchmarks.validation.goals import (
    Goal,
    Goals,
    Rate,
    at_least,
    at_most,
    between,
    count_open,
    format_share,
    list_problems,
    tabulate_goals,
)
from benchmarks.validation.intervention_level import (
    ALPHA,
    ROUND_ALPHA,
    NoisyRound,
    RoundWorld,
    measure_claims,
    run_noisy_round,
)
from benchmarks.validation.planted_loops import MARGIN, SEEDS, LoopOutcome, LoopWorld, run_loop
from benchmarks.validation.recommendation_level import ALPHA as LEVEL
from benchmarks.validation.recommendation_level import RecommendedRound, run_recommended_round
from benchmarks.validation.worlds import WorldCache

PAGE = Path(__file__).parents[1] / "INTERVENTIONS.md"
NUM_TABLES = 2000
NUM_OLD = 400
POOLS = ("digits", "middle (0.05)", "large (0.15)")
# Arms and looks: few seeds as on a CPU, and two looks.
DESIGNS = ((5, (3,)), (5, (3, 6)))
NUM_NOISY = 3000
NOISES: tuple[dict[str, float], ...] = ({}, {"control_noise": 3.0}, {"arm_noise": 3.0}, {"arm_noise": 7.0})
# Kinds of worlds, and whether an intervention helps there.
KINDS = {"shared texture": True, "shortcut": True, "label noise": False}
# Worlds of each kind that tune the recalibration, and those that are held out.
NUM_WORLDS = {"shared texture": (10, 10), "shortcut": (10, 10), "label noise": (10, 20)}
# Without them an intervention gets no line.
MIN_PREDICTIONS = 3
MIN_HELPED, MAX_CLAIMED = 0.7, 0.05
COVERAGE = (0.90, 0.99)
NUM_ROUNDS = 4000
# Rounds in which a recommendation is wrong: nothing helps; all arms reduce their target, surely or at even chances, at a loss of
# the margin; or one does and the others change nothing.
MISLEADING: dict[str, dict[str, Any]] = {
    "none": {},
    "all lose the margin, targets fall by 12 sd": {"num_reaching": 7, "reduction": 12.0, "gain": -1.0},
    "all lose the margin, targets fall by 2 sd": {"num_reaching": 7, "reduction": 2.0, "gain": -1.0},
    "the first loses the margin, its target falls by 12 sd": {"num_reaching": 1, "reduction": 12.0, "gain": -1.0},
}
RULES: dict[str, dict[str, Any]] = {
    "before 2026-12-01": {"is_earlier": True},
    "none leads": {},
    "it leads": {"lead": 0},
    "another one leads": {"lead": 1},
}


def tabulate_level(num_tables: int, goals: Goals) -> Table:
    """Return how many tables of arms that change nothing claim an effect: over the family of arms x (macro-F1, target)."""
    rows, cells = [], []
    for pool in POOLS:
        for num_arms, looks in DESIGNS:
            world = RoundWorld(pool=pool, num_arms=num_arms, looks=looks)
            found = repeat(measure_claims, world, num_tables)
            name = f"{pool}, {num_arms} arms, looks {', '.join(map(str, looks))}"
            claimed = {
                "a row of macro-F1": (sum(one.macro_f1 for one in found), ALPHA / 2),
                "a target": (sum(one.target for one in found), ALPHA / 2),
                "either": (sum(one.macro_f1 or one.target for one in found), ALPHA),
            }
            cells += [
                Rate(name=f"false claims, {what}, {name}", hits=hits, count=len(found), most=alpha)
                for what, (hits, alpha) in claimed.items()
            ]
            shares = [f"{hits / len(found):.4f}" for hits, _ in claimed.values()]
            rows.append([pool, str(num_arms), ", ".join(map(str, looks)), *shares])
    goals.judge(cells)
    head = ["runs", "arms", "looks (seeds)", *claimed]
    return Table(f"False claims of tables without an effect, alpha {ALPHA}, {num_tables} tables a row", head, rows)


def tabulate_noisy_rounds(num_rounds: int, goals: Goals) -> Table:
    """Return how often rounds whose runs differ in their noise alone claim an effect on macro-F1."""
    rows, rates = [], []
    for num_arms in (4, 7):
        for num_seeds in (3, 5):
            for noise in NOISES:
                world = NoisyRound(num_arms=num_arms, num_seeds=num_seeds, **noise)
                found = repeat(run_noisy_round, world, num_rounds)
                shared, alone = (sum(getattr(one, name) for one in found) for name in ("shared", "alone"))
                name = f"rows that share variances, {num_arms} arms, {num_seeds} seeds, noise {_describe_noise(noise)}"
                rates.append(Rate(name=name, hits=shared, count=num_rounds, most=ROUND_ALPHA))
                widths = [
                    float(np.median([getattr(one, f"{name}_width") for one in found])) for name in ("shared", "alone")
                ]
                cells = [f"{number / num_rounds:.4f}" for number in (shared, alone)]
                rows.append(
                    [
                        _describe_noise(noise),
                        str(num_arms),
                        str(num_seeds),
                        *cells,
                        *(f"{width:.1f}" for width in widths),
                    ]
                )
    goals.judge(rates)
    head = [
        "noise between seeds",
        "arms",
        "seeds",
        "claims",
        "each row alone",
        "half-width (sd)",
        "each row alone (sd)",
    ]
    return Table(
        f"Rows of macro-F1 at a level of {ROUND_ALPHA}, {num_rounds} rounds without an effect a row", head, rows
    )


def _describe_noise(noise: Mapping[str, float]) -> str:
    words = {"control_noise": "the control", "arm_noise": "one arm"}
    return ", ".join(f"{words[name]} {value:g} times" for name, value in noise.items()) or "equal"


def tabulate_old_control(num_tables: int) -> Table:
    """Return how much better an identical arm looks on the chosen target, with fresh runs as the control and with old ones."""
    rows = []
    for pool in POOLS:
        cells = [pool]
        for has_old in (False, True):
            world = RoundWorld(pool=pool, num_arms=1, looks=(3,), has_old_control=has_old)
            changes = [one.target_change for one in repeat(measure_claims, world, num_tables)]
            error = float(np.std(changes, ddof=1)) / len(changes) ** 0.5
            cells.append(f"{100 * float(np.mean(changes)):+.2f} ± {200 * error:.2f}")
        rows.append(cells)
    head = ["runs", "fresh runs, the other half (the product's)", "the parent's runs, the half that chose"]
    return Table(
        f"Change of the target of an arm that changes nothing (pp, ± 2 standard errors), {num_tables} tables a cell",
        head,
        rows,
    )


def tabulate_recommendations(num_rounds: int, goals: Goals) -> list[Table]:
    """Return how often rounds whose effects are known recommend what is wrong, and how often what helps."""
    wrong, rates, right = [], [], []
    for name, effects in MISLEADING.items():
        for num_arms, num_seeds in ((1, 3), (2, 4), (7, 3), (7, 5)):
            for lead in (None, 0):
                few = {key: min(value, num_arms) if key == "num_reaching" else value for key, value in effects.items()}
                world = RecommendedRound(num_arms=num_arms, num_seeds=num_seeds, lead=lead, **few)
                hits = sum(found.is_wrong for found in repeat(run_recommended_round, world, num_rounds))
                leads = "the first" if lead == 0 else "none"
                cell = f"wrong recommendations, {name}, {num_arms} arms, {num_seeds} seeds, lead {leads}"
                rates.append(Rate(name=cell, hits=hits, count=num_rounds, most=LEVEL))
                wrong.append([name, str(num_arms), str(num_seeds), leads, f"{hits / num_rounds:.4f}"])
    goals.judge(rates)
    for num_arms, num_seeds in product((2, 7), (3, 5, 7, 10, 15)):
        cells = []
        for changes in RULES.values():
            world = RecommendedRound(num_arms=num_arms, num_seeds=num_seeds, num_reaching=1, reduction=8.0, **changes)
            hits = sum(found.is_right for found in repeat(run_recommended_round, world, num_rounds))
            cells.append(f"{hits / num_rounds:.2f}")
        right.append([str(num_arms), str(num_seeds), *cells])
    return [
        Table(
            f"Wrong recommendations at a level of {LEVEL}, {num_rounds} rounds a row",
            ["effects of the arms", "arms", "seeds", "leads", "wrong"],
            wrong,
        ),
        Table(
            "Rounds that recommend an arm which reduces its target by 8 standard deviations and leaves macro-F1 as it is; "
            f"a margin is two standard deviations of a difference; {num_rounds} rounds a cell",
            ["arms", "seeds", *RULES],
            right,
        ),
    ]


def tabulate_loops(
    counts: Mapping[str, tuple[int, int]], num_seeds: int, goals: list[Goal]
) -> tuple[list[Table], dict[str, Recalibration]]:
    """Return what whole studies find where something helps and where nothing does, and how measured changes follow predictions.

    Args:
        counts: by kind, the worlds that tune the recalibration, and those that are held out.
        num_seeds: of each world.
        goals: receives what is judged.
    """
    cache, rows = WorldCache(), []
    outcomes: dict[str, list[LoopOutcome]] = {}
    for kind, is_helped in KINDS.items():
        total = sum(counts[kind])
        found = outcomes[kind] = cache.repeat(run_loop, LoopWorld(kind=kind, num_seeds=num_seeds), total)
        claimed = sum(outcome.is_claimed for outcome in found)
        if is_helped:
            goals.append(at_least(f"worlds with {kind} in which an intervention helps", claimed, total, MIN_HELPED))
        else:
            name = f"worlds with {kind} in which an intervention is claimed to help"
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
        counts[KINDS[kind]] += (right, wrong, len(names))
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
    share: Annotated[
        float, typer.Option(help="Share of the usual counts, .05 in minutes; the page is written at 1 only.", min=0.001)
    ] = 1.0,
    whole: Annotated[bool, typer.Option("--whole", help="Hold out twice as many worlds of each kind.")] = False,
    seeds: Annotated[
        int, typer.Option(help="Of each world; the page is written with the usual number only.", min=2)
    ] = SEEDS,
) -> None:
    """Run every simulation, print the tables, and write the page where the counts are the usual ones.

    The page comes with the constants by which predictions are recalibrated. A run that was stopped resumes.
    """
    started, goals = time.perf_counter(), Goals()
    tables = [tabulate_level(max(2, round(share * NUM_TABLES)), goals)]
    tables.append(tabulate_noisy_rounds(max(2, round(share * NUM_NOISY)), goals))
    tables += tabulate_recommendations(max(2, round(share * NUM_ROUNDS)), goals)
    tables.append(tabulate_old_control(max(2, round(share * NUM_OLD))))
    counts = {
        kind: (max(1, round(share * tuning)), max(1, round(share * held * (1 + whole))))
        for kind, (tuning, held) in NUM_WORLDS.items()
    }
    chain, known = tabulate_loops(counts, seeds, goals.judged)
    tables += [*chain, tabulate_goals(goals.judged)]
    is_usual = share == 1.0 and seeds == SEEDS
    if is_usual:
        constants = {name: asdict(line) for name, line in known.items()}
        CONSTANTS.write_text(json.dumps(constants, indent=1) + "\n")
    publish_simulation(
        started, tables, list_problems(goals.judged), count_open(goals.judged), PAGE if is_usual else None
    )


if __name__ == "__main__":
    typer.run(main)

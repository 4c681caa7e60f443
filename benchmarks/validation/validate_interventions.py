"""The level of simulated rounds of interventions, and of what they recommend; writes benchmarks/INTERVENTIONS.md.

Whole studies of planted scenes, each followed by the interventions that it asks for, are in `validate_loops`.
"""

import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.pages import Table, publish_simulation
from benchmarks.parallel import repeat
from benchmarks.validation.goals import Goals, Rate, count_open, list_problems, tabulate_goals
from benchmarks.validation.intervention_level import (
    ALPHA,
    ROUND_ALPHA,
    NoisyRound,
    RoundWorld,
    measure_claims,
    run_noisy_round,
)
from benchmarks.validation.recommendation_level import ALPHA as LEVEL
from benchmarks.validation.recommendation_level import RecommendedRound, run_recommended_round

PAGE = Path(__file__).parents[1] / "INTERVENTIONS.md"
NUM_TABLES = 2000
NUM_OLD = 400
POOLS = ("digits", "middle (0.05)", "large (0.15)")
# Arms and looks: few seeds as on a CPU, and two looks.
DESIGNS = ((5, (3,)), (5, (3, 6)))
NUM_NOISY = 3000
NOISES: tuple[dict[str, float], ...] = ({}, {"control_noise": 3.0}, {"arm_noise": 3.0}, {"arm_noise": 7.0})
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


def main(
    share: Annotated[
        float, typer.Option(help="Share of the usual counts, .05 in minutes; the page is written at 1 only.", min=0.001)
    ] = 1.0,
) -> None:
    """Run every simulation, print the tables, and write the page where the counts are the usual ones."""
    started, goals = time.perf_counter(), Goals()
    tables = [tabulate_level(max(2, round(share * NUM_TABLES)), goals)]
    tables.append(tabulate_noisy_rounds(max(2, round(share * NUM_NOISY)), goals))
    tables += tabulate_recommendations(max(2, round(share * NUM_ROUNDS)), goals)
    tables += [tabulate_old_control(max(2, round(share * NUM_OLD))), tabulate_goals(goals.judged)]
    publish_simulation(
        started, tables, list_problems(goals.judged), count_open(goals.judged), PAGE if share == 1.0 else None
    )


if __name__ == "__main__":
    typer.run(main)

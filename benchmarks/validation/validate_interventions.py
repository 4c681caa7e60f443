"""The level of rounds of interventions, and the whole chain on planted scenes; writes benchmarks/INTERVENTIONS.md.

The chain is tried on ten worlds of each kind, and on thirty with `--whole`. Finished worlds are stored (`worlds.py`).
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.pages import Table, publish_simulation
from benchmarks.parallel import repeat
from benchmarks.validation.goals import (
    Goal,
    Goals,
    Rate,
    at_least,
    at_most,
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
from benchmarks.validation.planted_loops import LoopOutcome, LoopWorld, calibrate, run_loop
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
NUM_WORLDS, WHOLE_WORLDS = 10, 30
MIN_HELPED, MAX_CLAIMED = 0.7, 0.05


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


def tabulate_loops(num_worlds: int, goals: list[Goal]) -> list[Table]:
    """Return how often a study finds what helps where something does, claims where nothing does, and how predictions compare."""
    cache, rows, arms = WorldCache(), [], []
    for kind, is_helped in KINDS.items():
        outcomes: list[LoopOutcome] = cache.repeat(run_loop, LoopWorld(kind=kind), num_worlds)
        claimed = sum(outcome.is_claimed for outcome in outcomes)
        if is_helped:
            name = f"worlds with {kind} in which an intervention helps"
            goals.append(at_least(name, claimed, num_worlds, MIN_HELPED))
        else:
            name = f"worlds with {kind} in which an intervention is claimed to help"
            goals.append(at_most(name, claimed, num_worlds, MAX_CLAIMED))
        tried = [arm for outcome in outcomes for arm in outcome.arms]
        arms += tried
        changes = [100 * arm.measured.estimate for arm in tried if arm.measured is not None]
        change = f"{np.mean(changes):+.1f}" if changes else "-"
        rows.append(
            [kind, format_share(claimed, num_worlds), str(sum(arm.is_asked for arm in tried)), str(len(tried)), change]
        )
    head = ["worlds", "BETTER on the target", "arms asked for", "arms tried", "mean change of the target (pp)"]
    calibration = []
    for name in sorted({arm.name for arm in arms}):
        found = calibrate([arm for arm in arms if arm.name == name])
        if found is not None:
            slope = found.slope
            shown = f"{slope.estimate:.2f} [{slope.low:.2f}, {slope.high:.2f}]"
            calibration.append([name, str(found.number), shown])
    columns = ["intervention", "predictions", "slope of measured on predicted"]
    return [
        Table(f"The whole chain on planted scenes, {num_worlds} worlds of each kind", head, rows),
        Table("Calibration of the predictions, errors in both", columns, calibration),
    ]


def main(
    share: Annotated[
        float, typer.Option(help="Share of the usual counts; the page is written at 1 only.", min=0.001)
    ] = 1.0,
    whole: Annotated[
        bool, typer.Option("--whole", help="Try the chain on thirty worlds of each kind, not on ten.")
    ] = False,
) -> None:
    """Run every simulation, print the tables, and write the page where the counts are the usual ones."""
    started, goals = time.perf_counter(), Goals()
    tables = [tabulate_level(max(2, round(share * NUM_TABLES)), goals)]
    tables.append(tabulate_noisy_rounds(max(2, round(share * NUM_NOISY)), goals))
    tables.append(tabulate_old_control(max(2, round(share * NUM_OLD))))
    tables += tabulate_loops(WHOLE_WORLDS if whole else NUM_WORLDS, goals.judged)
    tables.append(tabulate_goals(goals.judged))
    publish_simulation(
        started, tables, list_problems(goals.judged), count_open(goals.judged), PAGE if share == 1.0 else None
    )


if __name__ == "__main__":
    typer.run(main)

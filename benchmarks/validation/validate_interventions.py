"""The level of rounds of interventions; prints tables and writes benchmarks/INTERVENTIONS.md."""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.pages import Table, publish_simulation
from benchmarks.parallel import repeat
from benchmarks.validation.goals import list_problems, tabulate_goals
from benchmarks.validation.intervention_level import ALPHA, RoundWorld, measure_claims
from benchmarks.validation.statistics_goals import Goals

PAGE = Path(__file__).parents[1] / "INTERVENTIONS.md"
NUM_TABLES = 2000
NUM_OLD = 400
POOLS = ("digits", "middle (0.05)", "large (0.15)")
# Arms and looks: few seeds as on a CPU, and two looks.
DESIGNS = ((5, (3,)), (5, (3, 6)))


def tabulate_level(num_tables: int, goals: Goals) -> Table:
    """Return how many tables of arms that change nothing claim an effect: over the family of arms x (macro-F1, target)."""
    rows = []
    for pool in POOLS:
        for num_arms, looks in DESIGNS:
            world = RoundWorld(pool=pool, num_arms=num_arms, looks=looks)
            found = repeat(measure_claims, world, num_tables)
            claimed = sum(one.macro_f1 or one.target for one in found)
            name = f"{pool}, {num_arms} arms, looks {', '.join(map(str, looks))}"
            goals.judge_error(f"false claims, {name}", claimed, len(found), ALPHA)
            shares = (sum(one.macro_f1 for one in found), sum(one.target for one in found), claimed)
            rows.append([pool, str(num_arms), ", ".join(map(str, looks)), *(f"{n / len(found):.4f}" for n in shares)])
    head = ["runs", "arms", "looks (seeds)", "a row of macro-F1", "a target", "either"]
    return Table(f"False claims of tables without an effect, alpha {ALPHA}, {num_tables} tables a row", head, rows)


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


def main(
    share: Annotated[
        float, typer.Option(help="Share of the usual counts; the page is written at 1 only.", min=0.001)
    ] = 1.0,
) -> None:
    """Run every simulation, print the tables, and write the page where the counts are the usual ones."""
    started, goals = time.perf_counter(), Goals()
    tables = [tabulate_level(max(2, round(share * NUM_TABLES)), goals)]
    tables += [tabulate_old_control(max(2, round(share * NUM_OLD))), tabulate_goals(goals.judged)]
    publish_simulation(started, tables, list_problems(goals.judged), PAGE if share == 1.0 else None)


if __name__ == "__main__":
    typer.run(main)

"""The default search against stock Ray Tune and random search on curves that a model makes; writes SEARCH_MODELED.md.

    python -m benchmarks.search.search_goals [--whole]

All sides search simulated curves with the same noise, costs and workers. They are compared by the device time until their choice
stays within 1.5 pp of the best, and by their choices after 40 full trials: regret, and wrong arms. The default was chosen on the
curves of CIFAR-10. So the goals are judged on those of refuse, and CIFAR-10's stand beside them; of the default, the place of the
first rung and the sampler had been looked at on refuse too. A third recording has learning rates at which trials diverge; there,
the sides are compared by what those trials cost. A suggestion of a Gaussian process takes a fifth of a second, so a run without
`--whole` has a fifth of the seeds.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pages import Table, describe_machine, today, write_page
from benchmarks.search.curve_surrogate import tabulate_quality
from benchmarks.search.goal_sides import LANDSCAPES, load_landscapes, simulate_sides
from benchmarks.search.goal_tables import tabulate_searches

PAGE = Path(__file__).parents[1] / "SEARCH_MODELED.md"
# Of a run without `--whole`, and of one with it.
NUM_SEEDS = (60, 300)


def main(
    seeds: Annotated[
        int | None, typer.Option(min=4, help=f"Default: {NUM_SEEDS[0]}, or {NUM_SEEDS[1]} with --whole.")
    ] = None,
    whole: Annotated[bool, typer.Option(help="The sides beside the default too, and more seeds.")] = False,
    output: Path = PAGE,
) -> None:
    """Print the tables and write them to SEARCH_MODELED.md."""
    started = time.perf_counter()
    landscapes = load_landscapes()
    found = simulate_sides(landscapes, seeds or NUM_SEEDS[whole], is_whole=whole)
    tables: list[Table] = []
    for name, landscape in landscapes.items():
        tables += tabulate_searches(found, name, landscape)
        path, regressor = LANDSCAPES[name]
        title = f"Surrogate of {path.name}, {regressor.replace('_', ' ')}: 10-fold cross-validation"
        tables.append(tabulate_quality(landscape.surrogate.qualities, title))
    for table in tables:
        table.print()
    minutes = (time.perf_counter() - started) / 60
    machine = describe_machine("ray", "optuna", "scikit-learn")
    write_page(output, [f"{today()}, {machine}; {minutes:.1f} minutes{', --whole' if whole else ''}.", *tables])


if __name__ == "__main__":
    typer.run(main)

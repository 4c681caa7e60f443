"""Whether the forecasts of `study plan` hold: half-widths of simulated studies against the range forecast from another study."""

from dataclasses import dataclass

import numpy as np

from analysis.comparison.paired_difference import compute_difference
from analysis.comparison.power import LookForecast, PlannedTest, VarianceComponents, forecast_looks
from benchmarks.pages import Table
from benchmarks.parallel import repeat
from benchmarks.validation.goals import Goals, Rate
from benchmarks.validation.statistics_simulation import REGIMES, World
from trainables.seeds import numpy_generator

ALPHA, MARGIN = 0.05, 0.01
NUM_PLANNED_IMAGES = 4000
# Seeds of the earlier study and of the planned one.
PAIRS = ((3, 3), (3, 10), (10, 3), (10, 5))
GOAL = (0.7, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWorld:
    """An earlier study, and a planned one of the same kind with other seeds, other images and other numbers of both.

    Attributes:
        earlier: the study that the variances come from.
        planned: the study that is forecast.
    """

    earlier: World
    planned: World


def measure_forecast(world: PlannedWorld, number: int) -> tuple[LookForecast, float]:
    """Return the forecast from an earlier study, and the half-width of the planned one."""
    generator = numpy_generator(number, f"plan {world}")
    control, treatment = world.earlier.draw(generator)
    found = compute_difference(treatment, control, 1 - ALPHA)
    components = VarianceComponents.from_estimates(
        found.seed_variance,
        found.image_variance,
        found.seed_image_variance,
        num_seeds=world.earlier.num_seeds,
        num_images=world.earlier.num_images,
    )
    planned = PlannedTest(
        looks=(world.planned.num_seeds,), num_images=world.planned.num_images, margin=MARGIN, alpha=ALPHA, num_rows=1
    )
    (forecast,) = forecast_looks(components, planned, random_seed=number)
    control, treatment = world.planned.draw(generator)
    interval = compute_difference(treatment, control, 1 - ALPHA).interval
    return forecast, (interval.high - interval.low) / 2


def tabulate_forecasts(count: int, goals: Goals) -> Table:
    """Return the share of the planned studies whose half-width falls inside the 80 % range, `count` studies a row."""
    rows, rates = [], []
    inside_all: list[bool] = []
    for regime, seed_sd in REGIMES.items():
        for earlier, planned in PAIRS:
            world = PlannedWorld(
                earlier=World(seed_sd=seed_sd, num_seeds=earlier, shifts=(0.0, 0.0)),
                planned=World(seed_sd=seed_sd, num_seeds=planned, shifts=(0.0, 0.0), num_images=NUM_PLANNED_IMAGES),
            )
            found: list[tuple[LookForecast, float]] = repeat(measure_forecast, world, count)
            inside = [f.low <= half_width <= f.high for f, half_width in found]
            inside_all += inside
            medians = [100 * np.median([f.half_width for f, _ in found]), 100 * np.median([h for _, h in found])]
            ranges = [100 * np.median([getattr(f, name) for f, _ in found]) for name in ("low", "high")]
            cells = [f"{medians[0]:.2f}", f"{ranges[0]:.2f} to {ranges[1]:.2f}", f"{medians[1]:.2f}"]
            share = float(np.mean(inside))
            rows.append([regime, str(earlier), str(planned), *cells, f"{share:.3f}"])
            name = f"study plan, half-width inside its 80 % range, {regime}: {planned} seeds planned from {earlier}"
            rates.append(Rate(name=name, hits=sum(inside), count=count, least=GOAL[0], most=GOAL[1]))
    rows = [[*row, judgement] for row, judgement in zip(rows, goals.judge(rates), strict=True)]
    rows.append(["all", "", "", "", "", "", f"{np.mean(inside_all):.3f}", ""])
    head = [
        "seed noise",
        "seeds of the earlier study",
        "planned seeds",
        "forecast (pp)",
        "80 % range",
        "found",
        "inside",
        "goal",
    ]
    title = f"study plan: half-width against its forecast, {count} studies a row (goal {GOAL[0]} to {GOAL[1]} inside)"
    return Table(title, head, rows)

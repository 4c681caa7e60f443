"""The simulations that justify the comparison; prints their tables and writes benchmarks/STATISTICS.md."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import stats

from analysis.findings.comparison_findings import Verdict
from analysis.statistics.anytime import compute_anytime_interval
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.bootstrap import draw_image_weights
from analysis.statistics.comparison import compare_arms, compute_difference, compute_verdict
from analysis.statistics.crossed_interval import compute_t_quantile
from analysis.statistics.metrics import compute_macro_f1, compute_weighted_macro_f1
from benchmarks.pages import Table, publish_simulation
from benchmarks.parallel import repeat
from benchmarks.validation.statistics_simulation import REGIMES, World, first_seeds
from trainables.seeds import numpy_generator

USUAL_COUNT = 2000
PAGE = Path(__file__).parents[1] / "STATISTICS.md"
ALPHA, MARGIN = 0.05, 0.005
NUM_DRAWS = 200
SEEDS = (3, 5, 10)
LOOKS = (3, 6, 10)
MOST_PEEKED = 20
POWER_SEED_SD = 0.05
DIFFERENT = {Verdict.BETTER, Verdict.WORSE}


def measure_coverage(world: World, number: int) -> dict[str, tuple[float, float, float]]:
    """Return per method: estimate, low, high, of one simulated comparison."""
    generator = numpy_generator(number, f"coverage {world.seed_sd} {world.num_seeds}")
    control, treatment = world.draw(generator)
    found = compute_difference(treatment, control, 1 - ALPHA)
    d, s = found.interval.estimate, world.num_seeds
    weights = draw_image_weights(control.labels, NUM_DRAWS, generator)
    both = np.concatenate([treatment.predicted, control.predicted])
    scores = compute_weighted_macro_f1(control.labels, both, weights, control.num_classes)
    by_seed = scores[:, :s] - scores[:, s:]
    picks = generator.integers(s, size=(NUM_DRAWS, s))
    crossed = np.take_along_axis(by_seed, picks, axis=1).mean(axis=1)
    observed = compute_macro_f1(control.labels, both, control.num_classes)
    seeds = observed[:s] - observed[s:]
    t_seeds = float(compute_t_quantile(1 - ALPHA, s - 1)) * math.sqrt(found.seed_variance)
    t_crossed = float(compute_t_quantile(1 - ALPHA, found.degrees_of_freedom)) * float(crossed.std(ddof=1))
    return {
        "crossed t (the product's)": (d, found.interval.low, found.interval.high),
        "crossed bootstrap t (its cross-check)": (d, d - t_crossed, d + t_crossed),
        "crossed bootstrap percentile": (d, *_percentiles(crossed)),
        "paired t over seeds": (d, d - t_seeds, d + t_seeds),
        "image bootstrap of the seeds' mean": (d, *_percentiles(by_seed.mean(axis=1))),
        "image bootstrap of one seed": (float(seeds[0]), *_percentiles(by_seed[:, 0])),
    }


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def measure_mcnemar(world: World, number: int) -> bool:
    """Return whether McNemar's exact test on one seed rejects at 5 %."""
    control, treatment = world.draw(numpy_generator(number, f"mcnemar {world.seed_sd}"))
    right = [arm.predicted[0] == arm.labels for arm in (treatment, control)]
    only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return bool(stats.binomtest(only[0], max(1, sum(only))).pvalue < ALPHA)


def measure_family(world: World, number: int) -> bool:
    """Return whether a table of all arms against the first holds a wrong BETTER or WORSE: there is no difference."""
    control, *treatments = world.draw(numpy_generator(number, f"family {world.seed_sd} {world.num_seeds}"))
    return any(_row(t, control, len(treatments)).verdict in DIFFERENT for t in treatments)


def measure_false_equivalence(world: World, number: int) -> bool:
    """Return whether a table holds a wrong EQUIVALENT: every true difference is the margin."""
    control, *treatments = world.draw(numpy_generator(number, f"equivalence {world.seed_sd} {world.num_seeds}"))
    return any(_row(t, control, len(treatments)).verdict is Verdict.EQUIVALENT for t in treatments)


def _row(treatment: ArmPredictions, control: ArmPredictions, num_rows: int, alpha: float = ALPHA):  # type: ignore[no-untyped-def]
    return compare_arms(treatment, control, margin=MARGIN, alpha=alpha, num_rows=num_rows, cost_ratio=None)


def measure_looks(world: World, number: int) -> dict[str, bool]:
    """Return whether a difference is claimed at some look where there is none: by the plan, and at the full alpha each time."""
    control, treatment = world.draw(numpy_generator(number, f"looks {world.seed_sd}"))
    claimed = {"planned looks (the product's)": False, "looks at the full alpha": False}
    for look in LOOKS:
        pair = first_seeds(treatment, look), first_seeds(control, look)
        for name, alpha in zip(claimed, (ALPHA / len(LOOKS), ALPHA), strict=True):
            claimed[name] |= _row(*pair, 1, alpha).verdict in DIFFERENT
    return claimed


def measure_peeking(world: World, number: int) -> dict[str, bool]:
    """Return whether a difference is claimed at some number of seeds where there is none, looking after every seed."""
    control, treatment = world.draw(numpy_generator(number, f"peeking {world.seed_sd}"))
    claimed = {"anytime (the product's)": False, "crossed t after every seed": False}
    for look in range(2, world.num_seeds + 1):
        pair = first_seeds(treatment, look), first_seeds(control, look)
        anytime = compute_verdict(compute_anytime_interval(*pair, 1 - ALPHA), MARGIN)[0]
        claimed["anytime (the product's)"] |= anytime in DIFFERENT
        claimed["crossed t after every seed"] |= _row(*pair, 1).verdict in DIFFERENT
    return claimed


def measure_power(world: World, number: int) -> tuple[bool, float, float]:
    """Return whether the difference was found, the row's MDE and its estimate."""
    control, treatment = world.draw(numpy_generator(number, f"power {world.num_seeds} {world.shifts}"))
    row = _row(treatment, control, 1)
    return row.effect.low > 0, row.minimum_detectable_effect, row.effect.estimate


def tabulate_coverage(count: int, problems: list[str]) -> list[Table]:
    """Return the coverage of 95 % intervals, and their width against the product's, in every regime."""
    rows, widths = [], []
    for regime, seed_sd in REGIMES.items():
        for num_seeds in SEEDS:
            found = repeat(measure_coverage, World(seed_sd=seed_sd, num_seeds=num_seeds, shifts=(0.0, 0.0)), count)
            names = list(found[0])
            covered = {n: np.mean([f[n][1] <= 0.0 <= f[n][2] for f in found]) for n in names}
            width = {n: np.mean([f[n][2] - f[n][1] for f in found]) for n in names}
            rows.append([regime, str(num_seeds), *(f"{covered[n]:.3f}" for n in names)])
            widths.append([regime, str(num_seeds), *(f"{width[n] / width[names[0]]:.2f}" for n in names)])
            if not 0.93 <= covered[names[0]] <= 0.99:
                problems.append(f"coverage {covered[names[0]]:.3f} in the regime {regime} at S = {num_seeds}")
    head = ["seed noise", "S", *names]
    title = f"Coverage of 95 % intervals, {count} comparisons a row"
    return [Table(title, head, rows), Table("Mean width / the product's", head, widths)]


def tabulate_errors(count: int, problems: list[str]) -> list[Table]:
    """Return family-wise errors of the verdicts, and false positives under looks and peeking."""
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / count)
    zero, at_margin = (0.0,) * 4, (0.0, *(find_shift(MARGIN),) * 3)
    family, sequential = [], []

    def rate_of(function: Callable[[World, int], bool], seed_sd: float, seeds: int, shifts: tuple[float, ...]) -> float:
        return float(np.mean(repeat(function, World(seed_sd=seed_sd, num_seeds=seeds, shifts=shifts), count)))

    for regime, seed_sd in REGIMES.items():
        cells = [regime]
        for function, shifts in ((measure_family, zero), (measure_false_equivalence, at_margin)):
            for num_seeds in (3, 10):
                rate = rate_of(function, seed_sd, num_seeds, shifts)
                cells.append(f"{rate:.3f}")
                if rate > limit:
                    where = f"in the regime {regime} at S = {num_seeds}"
                    problems.append(f"{function.__name__} {rate:.3f} > {limit:.3f} {where}")
        family.append([*cells, f"{rate_of(measure_mcnemar, seed_sd, 1, zero[:2]):.3f}"])
        looks = _share(repeat(measure_looks, World(seed_sd=seed_sd, num_seeds=LOOKS[-1], shifts=zero[:2]), count))
        peeked = World(seed_sd=seed_sd, num_seeds=MOST_PEEKED, shifts=zero[:2])
        peeks = _share(repeat(measure_peeking, peeked, count // 2))
        sequential.append([regime, *(f"{rate:.3f}" for rate in (looks | peeks).values())])
        for name, rate in (looks | peeks).items():
            if "product" in name and rate > limit:
                problems.append(f"{name} {rate:.3f} > {limit:.3f} in the regime {regime}")
    claims = ("wrong BETTER/WORSE, S = 3", "S = 10", "wrong EQUIVALENT, S = 3", "S = 10", "McNemar on one seed")
    note = f"alpha 0.05; goal at most {limit:.3f}"
    looks_at = ", ".join(map(str, LOOKS))
    title = f"False positives: looks at {looks_at} seeds, and after every seed up to {MOST_PEEKED} ({note})"
    return [
        Table(f"Family-wise errors of a table of three rows ({count} tables; {note})", ("seed noise", *claims), family),
        Table(title, ["seed noise", *looks, *peeks], sequential),
    ]


def _share(found: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def find_shift(difference: float) -> float:
    """Return the latent shift of a true difference in macro-F1, estimated by the mean over many images and seeds."""

    def gain(shift: float) -> float:
        world = World(seed_sd=0.0, num_seeds=4, shifts=(0.0, shift), num_images=200_000)
        return compute_difference(*reversed(world.draw(numpy_generator(1, "shift"))), 1 - ALPHA).interval.estimate

    return difference * 0.1 / (gain(0.1) - gain(0.0))


def tabulate_power(count: int, problems: list[str]) -> list[Table]:
    """Return the power at a true difference as large as the rows' MDE."""
    rows = []
    for num_seeds in (5, 10):
        pilot = repeat(measure_power, World(seed_sd=POWER_SEED_SD, num_seeds=num_seeds, shifts=(0.0, 0.0)), 300)
        detectable = float(np.mean([mde for _, mde, _ in pilot]))
        world = World(seed_sd=POWER_SEED_SD, num_seeds=num_seeds, shifts=(0.0, find_shift(detectable)))
        found = repeat(measure_power, world, count)
        power, true = np.mean([hit for hit, _, _ in found]), np.mean([estimate for _, _, estimate in found])
        rows.append([str(num_seeds), f"{100 * detectable:.2f}", f"{100 * true:.2f}", f"{power:.3f}"])
        if abs(power - 0.8) > 0.05:
            problems.append(f"power {power:.3f} at S = {num_seeds}")
    head = ["S", "mean MDE (pp)", "true difference (pp)", "power"]
    return [Table(f"Power at the MDE, {count} comparisons a row", head, rows)]


def main(count: Annotated[int, typer.Option(help="Simulated comparisons per cell.", min=50)] = USUAL_COUNT) -> None:
    """Run every simulation, print the tables, and write the page where the count is the usual one."""
    started = time.perf_counter()
    problems: list[str] = []
    tables = [
        *tabulate_coverage(count // 2, problems),
        *tabulate_errors(count, problems),
        *tabulate_power(count, problems),
    ]
    publish_simulation(started, tables, problems, PAGE if count == USUAL_COUNT else None)


if __name__ == "__main__":
    typer.run(main)

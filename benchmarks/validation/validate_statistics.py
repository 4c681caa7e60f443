"""The simulations behind the comparison and the families of intervals; prints tables and writes benchmarks/STATISTICS.md."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.pages import Table, publish_simulation
from benchmarks.parallel import repeat
from benchmarks.validation.comparison_measures import (
    ALPHA,
    ANYTIME,
    CLUSTERED,
    LOOKS,
    MARGIN,
    PEEKS,
    PLANNED,
    measure_groups,
    measure_interval,
    measure_looks,
    measure_mcnemar,
    measure_methods,
    measure_peeking,
    measure_power,
    measure_verdicts,
)
from benchmarks.validation.family_simulation import (
    BINOMIAL_FAMILIES,
    EXTREME_SPREAD,
    GAUSSIAN_FAMILIES,
    FamilyWorld,
    measure_family,
)
from benchmarks.validation.goals import Goals, Rate, compute_oracle, count_open, list_problems, tabulate_goals
from benchmarks.validation.plan_simulation import tabulate_forecasts
from benchmarks.validation.selection_simulation import (
    CHUNK,
    RANKING_CASES,
    DivergenceWorld,
    measure_divergence,
    measure_ranking,
)
from benchmarks.validation.statistics_simulation import REGIMES, World

PAGE = Path(__file__).parents[1] / "STATISTICS.md"
SHIFT = 0.10
# Place of a judgement in a row, which is known when all cells of a table are: the confidence is corrected over them.
GOAL = "goal"
POWER_DIFFERENCES = (0.01, 0.02, 0.04)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Simulated comparisons of each row, by kind of table; chunks of rankings hold 10,000 each."""

    coverage: int = 4000
    methods: int = 400
    verdicts: int = 2000
    looks: int = 800
    power: int = 1000
    families: int = 2000
    chunks: int = 4
    plans: int = 300


def tabulate_coverage(counts: Counts, goals: Goals) -> list[Table]:
    """Return the coverage of the product's 95 % intervals, also where the difference is not 0 and where seeds shift classes."""
    worlds = {
        **{name: World(seed_sd=sd, num_seeds=2, shifts=(0.0, 0.0)) for name, sd in REGIMES.items()},
        "unbalanced 1:20": World(seed_sd=0.05, num_seeds=2, shifts=(0.0, 0.0), imbalance=20.0),
        "class x seed effect (0.15)": World(seed_sd=0.05, num_seeds=2, shifts=(0.0, 0.0), class_seed_sd=0.15),
    }
    rows, rates = [], []
    for name, world in worlds.items():
        for num_seeds in (2, 3, 5, 10):
            rows.append([name, str(num_seeds)])
            for shift in (0.0, SHIFT):
                case = replace(world, num_seeds=num_seeds, shifts=(0.0, shift))
                truth = case.compute_true_difference()
                found = repeat(measure_interval, case, counts.coverage)
                label = f"coverage, {name}, S = {num_seeds}, difference {100 * truth:.1f} pp"
                hits = sum(one.low <= truth <= one.high for one in found)
                width = 50 * float(np.mean([one.high - one.low for one in found]))
                oracle = 100 * compute_oracle([(one.estimate - truth) ** 2 for one in found])
                rows[-1] += [f"{100 * truth:.2f}", f"{hits / len(found):.3f}", f"{width:.2f}", GOAL]
                rates.append(Rate.of_coverage(label, hits, len(found), half_width=width, oracle=oracle))
    head = ["seed noise", "S", *(["difference (pp)", "coverage", "half-width (pp)", "goal"] * 2)]
    title = f"Coverage of the product's 95 % intervals, {counts.coverage} comparisons a cell"
    return [Table(title, head, _insert_judgements(rows, goals.judge(rates)))]


def tabulate_methods(counts: Counts) -> list[Table]:
    """Return coverage and mean width of other methods beside the product's, and McNemar's test on one seed."""
    rows, widths = [], []
    for regime, seed_sd in REGIMES.items():
        mcnemar = repeat(measure_mcnemar, World(seed_sd=seed_sd, num_seeds=1, shifts=(0.0, 0.0)), counts.methods)
        for num_seeds in (3, 5, 10):
            world = World(seed_sd=seed_sd, num_seeds=num_seeds, shifts=(0.0, 0.0))
            found = repeat(measure_methods, world, counts.methods)
            names = list(found[0])
            width = {n: np.mean([f[n][1] - f[n][0] for f in found]) for n in names}
            covered = [f"{np.mean([f[n][0] <= 0.0 <= f[n][1] for f in found]):.3f}" for n in names]
            rows.append([regime, str(num_seeds), *covered, f"{np.mean(mcnemar):.3f}"])
            widths.append([regime, str(num_seeds), *(f"{width[n] / width[names[0]]:.2f}" for n in names)])
    head = ["seed noise", "S", *names]
    title = f"Other methods without a difference, {counts.methods} comparisons a row: coverage of 95 % intervals"
    return [
        Table(title, [*head, "McNemar on one seed: false positives"], rows),
        Table("Their mean width / the product's", head, widths),
    ]


def tabulate_verdicts(counts: Counts, goals: Goals) -> list[Table]:
    """Return family-wise errors of tables of three rows: wrong BETTER or WORSE, and wrong EQUIVALENT at the margin."""
    rows, rates = [], []
    for regime, seed_sd in REGIMES.items():
        for num_seeds in (3, 10):
            equal = World(seed_sd=seed_sd, num_seeds=num_seeds, shifts=(0.0,) * 4)
            at_margin = replace(equal, shifts=(0.0, *(equal.find_shift(MARGIN),) * 3))
            none, apart = (repeat(measure_verdicts, world, counts.verdicts) for world in (equal, at_margin))
            claimed, equivalent = (sum(f[i] for f in none) for i in (0, 1))
            wrong = sum(f[1] for f in apart)
            where = f"{regime}, S = {num_seeds}"
            rates.append(Rate(name=f"wrong BETTER or WORSE, {where}", hits=claimed, count=len(none), most=ALPHA))
            rates.append(Rate(name=f"wrong EQUIVALENT, {where}", hits=wrong, count=len(apart), most=ALPHA / 2))
            rows.append([regime, str(num_seeds), *(f"{hits / len(none):.4f}" for hits in (claimed, equivalent, wrong))])
    goals.judge(rates)
    head = [
        "seed noise",
        "S",
        "wrong BETTER or WORSE, no difference",
        "some row EQUIVALENT, no difference",
        f"wrong EQUIVALENT, differences of {100 * MARGIN:.0f} pp",
    ]
    title = f"Family-wise errors of tables of three rows, margin {100 * MARGIN:.0f} pp, {counts.verdicts} tables a cell"
    return [Table(title, head, rows)]


def tabulate_looks(counts: Counts, goals: Goals) -> list[Table]:
    """Return false positives and power of planned looks, and of looks at any time."""
    rows, errors = [], []
    for regime, seed_sd in REGIMES.items():
        base = World(seed_sd=seed_sd, num_seeds=LOOKS[-1], shifts=(0.0, 0.0))
        for difference in (0.0, *POWER_DIFFERENCES):
            planned = replace(base, shifts=(0.0, base.find_shift(difference) if difference else 0.0))
            found = {
                **_count(repeat(measure_looks, planned, counts.looks)),
                **_count(repeat(measure_peeking, replace(planned, num_seeds=PEEKS[-1]), counts.looks)),
            }
            if not difference:
                errors += [
                    Rate(name=f"false positives, {name}, {regime}", hits=found[name], count=counts.looks, most=ALPHA)
                    for name in (PLANNED, ANYTIME)
                ]
            rates = [f"{hits / counts.looks:.3f}" for hits in found.values()]
            rows.append([regime, f"{100 * difference:.0f}", *rates])
    goals.judge(errors)
    seeds = ", ".join(map(str, LOOKS)), ", ".join(map(str, PEEKS))
    title = (
        f"Tables that find a difference (at 0 pp: false positives), {counts.looks} a cell; planned looks at {seeds[0]} seeds, "
        f"looks at any time at {seeds[1]}"
    )
    return [Table(title, ["seed noise", "true difference (pp)", *found], rows)]


def tabulate_power(counts: Counts, goals: Goals) -> list[Table]:
    """Return the power at a true difference as large as the mean MDE of the rows."""
    rows, rates = [], []
    for num_seeds in (3, 5, 10):
        world = World(seed_sd=0.05, num_seeds=num_seeds, shifts=(0.0, 0.0))
        detectable = float(np.mean([mde for _, mde in repeat(measure_power, world, max(2, counts.power // 4))]))
        found = repeat(measure_power, replace(world, shifts=(0.0, world.find_shift(detectable))), counts.power)
        hits = sum(is_better for is_better, _ in found)
        rates.append(Rate(name=f"power at the MDE, S = {num_seeds}", hits=hits, count=len(found), least=0.7, most=0.9))
        rows.append([str(num_seeds), f"{100 * detectable:.2f}", f"{hits / len(found):.3f}", GOAL])
    title = f"Power at the minimum detectable effect, seed noise 0.05, {counts.power} comparisons a row"
    rows = _insert_judgements(rows, goals.judge(rates))
    return [Table(title, ["S", "mean MDE (pp)", "power", "goal (.7 to .9)"], rows)]


def tabulate_families(families: Mapping[str, FamilyWorld], title: str, counts: Counts, goals: Goals) -> Table:
    """Return simultaneous coverage and mean half-width of each family, for both questions."""
    rows, rates = [], []
    for name, world in families.items():
        found = repeat(measure_family, world, counts.families)
        cells = [name]
        for question in ("models", "recipe"):
            if question not in found[0]:
                cells += ["-", "-", "-"]
                continue
            hits = sum(f[question].covered for f in found)
            width = 100 * float(np.mean([f[question].half_width for f in found]))
            oracle = 100 * compute_oracle([f[question].square for f in found], world.confidence)
            has_goal = name != EXTREME_SPREAD
            if has_goal:
                label = f"{title}, {name}, for the {question}"
                rates.append(Rate.of_coverage(label, hits, len(found), half_width=width, oracle=oracle))
            cells += [f"{hits / len(found):.3f}", f"{width:.1f}", GOAL if has_goal else "-"]
        rows.append(cells)
    columns = [
        f"{question}: {what}" for question in ("models", "recipe") for what in ("coverage", "half-width (pp)", "goal")
    ]
    rows = _insert_judgements(rows, goals.judge(rates))
    return Table(f"{title}, {counts.families} families a row", ["family", *columns], rows)


def tabulate_groups(counts: Counts, goals: Goals) -> list[Table]:
    """Return the coverage with images in groups of ten, considered and ignored."""
    rows, rates = [], []
    for num_seeds in (3, 10):
        world = World(seed_sd=0.02, num_seeds=num_seeds, shifts=(0.0, 0.0), group_size=10, group_sd=0.7)
        found = repeat(measure_groups, world, counts.families)
        hits = {n: sum(f[n][0] <= 0.0 <= f[n][1] for f in found) for n in found[0]}
        width = 50 * float(np.mean([f[CLUSTERED][1] - f[CLUSTERED][0] for f in found]))
        oracle = 100 * compute_oracle([float(np.mean(f[CLUSTERED])) ** 2 for f in found])
        label = f"groups, S = {num_seeds}"
        rates.append(Rate.of_coverage(label, hits[CLUSTERED], len(found), half_width=width, oracle=oracle))
        rows.append([str(num_seeds), *(f"{h / len(found):.3f}" for h in hits.values()), GOAL])
    title = f"Coverage with groups of ten images that span classes, {counts.families} comparisons a row"
    return [Table(title, ["S", *hits, "goal"], _insert_judgements(rows, goals.judge(rates)))]


def tabulate_selection(counts: Counts, goals: Goals) -> list[Table]:
    """Return one-sided errors after a ranking, and the coverage where trials diverge."""
    total = counts.chunks * CHUNK
    rows, rates = [], []
    for name, world in RANKING_CASES.items():
        hits = _count(repeat(measure_ranking, world, counts.chunks))
        rates.append(Rate(name=f"ranking, {name}", hits=hits["fresh"], count=total, most=ALPHA / 2))
        rows.append([name, *(f"{hits[kind] / total:.4f}" for kind in ("fresh", "reused"))])
    goals.judge(rates)
    diverged = []
    for num_seeds in (3, 5, 10):
        hits = _count(repeat(measure_divergence, DivergenceWorld(num_seeds=num_seeds, rate=0.1), counts.chunks))
        diverged.append([str(num_seeds), *(f"{hits[kind] / total:.3f}" for kind in ("all", "finished"))])
    return [
        Table(
            f"One-sided errors (.025) of a comparison after a ranking, {total} a row",
            ["case", "fresh seeds (the product's)", "the ranking's seeds again"],
            rows,
        ),
        Table(
            f"Coverage of 95 % intervals where one trial in ten loses 60 pp, {total} a row (printed, no goal)",
            ["S", "all trials", "finished trials"],
            diverged,
        ),
    ]


def _insert_judgements(rows: Sequence[Sequence[str]], judgements: Sequence[str]) -> list[list[str]]:
    """Return the rows with each `GOAL`, in reading order, replaced by the next judgement."""
    remaining = iter(judgements)
    return [[next(remaining) if cell == GOAL else cell for cell in row] for row in rows]


def _count(found: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(int(f[name]) for f in found) for name in found[0]}


def run_all(counts: Counts, goals: Goals) -> list[Table]:
    """Run every simulation and return the tables."""
    tables = [
        *tabulate_coverage(counts, goals),
        *tabulate_verdicts(counts, goals),
        *tabulate_looks(counts, goals),
        *tabulate_power(counts, goals),
        tabulate_families(GAUSSIAN_FAMILIES, "Families of unbounded values, simultaneous coverage", counts, goals),
        tabulate_families(
            BINOMIAL_FAMILIES, "Families of shares and differences, simultaneous coverage", counts, goals
        ),
        *tabulate_groups(counts, goals),
        *tabulate_selection(counts, goals),
        tabulate_forecasts(counts.plans, goals),
        *tabulate_methods(counts),
    ]
    return [*tables, tabulate_goals(goals.judged)]


def main(
    share: Annotated[
        float, typer.Option(help="Share of the usual counts; the page is written at 1 only.", min=0.001)
    ] = 1.0,
) -> None:
    """Run every simulation, print the tables, and write the page where the counts are the usual ones."""
    started = time.perf_counter()
    usual = Counts()
    counts = Counts(**{name: max(2, round(share * getattr(usual, name))) for name in Counts.__dataclass_fields__})
    goals = Goals()
    tables = run_all(counts, goals)
    publish_simulation(
        started, tables, list_problems(goals.judged), count_open(goals.judged), PAGE if share == 1.0 else None
    )


if __name__ == "__main__":
    typer.run(main)

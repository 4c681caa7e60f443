"""Tables of arms as text: scores and costs, and confused pairs of classes."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from analysis.findings.class_findings import ConfusedPair, DirectedConfusion
from analysis.findings.interval import Interval
from analysis.findings.score_findings import ArmScores
from analysis.report.number_formats import format_gflops, format_interval, format_percent, join_verdicts
from analysis.report.table_formats import to_csv, to_latex, to_markdown

# The last column is in percentage points of macro-F1.
ARM_HEADER = (
    "arm",
    "macro-F1",
    "these models",
    "recipe",
    "parameters",
    "GFLOPs",
    "device (s)",
    "train (img/s)",
    "predict (img/s)",
    "pp/device-hour",
)


def format_arm(arm: ArmScores) -> tuple[str, ...]:
    """Return the cells of one arm in the order of `ARM_HEADER`."""
    macro_f1 = arm.test_macro_f1
    return (
        arm.arm,
        f"{macro_f1.estimate:.4f}",
        _format_bounds(macro_f1.models),
        _format_bounds(macro_f1.recipe),
        f"{arm.num_parameters / 1e6:.1f} M" if arm.num_parameters else "—",
        format_gflops(arm.forward_flops),
        f"{arm.device_seconds:,.0f}",
        f"{arm.train_images_per_second:,.0f}",
        f"{arm.predict_images_per_second:,.0f}",
        f"{arm.points_per_device_hour:,.0f}",
    )


def describe_gate(arm: ArmScores, minimum: float) -> str:
    """Return whether an arm passes the minimum, and the lower bound that decides it."""
    verb = "passes" if arm.minimum_cleared else "does not pass"
    recipe, limit = arm.test_macro_f1.recipe, format_percent(minimum, 2)
    if recipe is None:
        return f"{arm.arm} {verb} the minimum: one finished run gives no lower bound; the minimum is {limit}."
    of_all = ", but lower with its runs that diverged" if recipe.low > minimum and not arm.minimum_cleared else ""
    low = format_percent(recipe.low, 2)
    return (
        f"{arm.arm} {verb} the minimum: the recipe's lower bound of macro-F1 is {low}{of_all}, the minimum is {limit}."
    )


def build_arm_rich_table(arms: Sequence[ArmScores]) -> Table:
    """Return the table of arms for a terminal."""
    table = Table(title="Arms: macro-F1 on the test split and cost", box=SIMPLE, padding=(0, 1, 0, 0))
    # Two cells share a column, so that the table fits into 80 characters.
    for pair in _pair_up(ARM_HEADER):
        table.add_column("\n".join(pair), no_wrap=True)
    for arm in arms:
        table.add_row(*(Text("\n".join(pair)) for pair in _pair_up(format_arm(arm))))
    return table


def build_pair_table(pairs: Sequence[ConfusedPair]) -> Table:
    """Return the confused pairs of an arm for a terminal of at least 80 columns."""
    table = Table(title="Pairs confused more often than expected by chance", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("classes", "confusion rate", "expected\nby chance", "adjusted\np", "excess over\nhumans (pp)"):
        table.add_column(name, no_wrap=True)
    for pair in pairs:
        human = "not compared"
        if pair.human is not None:
            low, high = (f"{100 * end:+.1f}" for end in (pair.human.excess.models.low, pair.human.excess.models.high))
            human = f"[{low}, {high}]"
        low, high = (f"{100 * end:.1f}" for end in (pair.rate.models.low, pair.rate.models.high))
        table.add_row(
            Text("\n".join(pair.classes)),
            Text(f"{100 * pair.rate.estimate:.1f} %\n[{low}, {high}]"),
            Text(f"{100 * pair.expected_rate:.1f} %"),
            Text(f"{pair.p_adjusted:.3f}"),
            Text(human),
        )
    return table


def build_directed_table(cells: Sequence[DirectedConfusion]) -> Table:
    """Return directed confusions of an arm for a terminal of at least 80 columns."""
    table = Table(title="Most frequent confusions", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("true class", "predicted class", "rate", "verdict", "images that\nwould decide"):
        table.add_column(name)
    for cell in cells:
        table.add_row(
            Text(cell.true_class),
            Text(cell.predicted_class),
            Text(format_interval(cell.rate)),
            Text(join_verdicts(cell.verdict, cell.recipe_verdict)),
            Text("" if cell.images_to_decide is None else f"{cell.images_to_decide:,}"),
        )
    return table


def build_arm_csv(arms: Sequence[ArmScores]) -> str:
    """Return the table of arms as csv with numbers in full precision; macro-F1 is a fraction."""
    records = [
        {
            "arm": arm.arm,
            "macro_f1": arm.test_macro_f1.estimate,
            **_list_bounds("macro_f1", arm.test_macro_f1.recipe),
            **_list_bounds("macro_f1_models", arm.test_macro_f1.models),
            "num_parameters": arm.num_parameters,
            "forward_flops": arm.forward_flops,
            "device_seconds": arm.device_seconds,
            "train_images_per_second": arm.train_images_per_second,
            "predict_images_per_second": arm.predict_images_per_second,
            "points_per_device_hour": arm.points_per_device_hour,
            "peak_memory_bytes": arm.peak_memory_bytes,
            "device": arm.device,
        }
        for arm in arms
    ]
    return to_csv(records)


def build_arm_markdown(arms: Sequence[ArmScores]) -> str:
    """Return the table of arms as markdown."""
    return to_markdown(ARM_HEADER, [format_arm(arm) for arm in arms])


def build_arm_latex(arms: Sequence[ArmScores]) -> str:
    """Return the table of arms as a LaTeX tabular, which needs the package booktabs."""
    return to_latex(ARM_HEADER, [format_arm(arm) for arm in arms])


def _format_bounds(interval: Interval | None) -> str:
    return "—" if interval is None else f"[{interval.low:.4f}, {interval.high:.4f}]"


def _list_bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return {f"{name}_low": low, f"{name}_high": high}


def _pair_up(cells: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(cells[::2], cells[1::2], strict=True))


FILTERS = {"minimum": describe_gate}

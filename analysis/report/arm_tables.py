"""Tables of arms as text: scores and costs, and confused pairs of classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from analysis.findings.study_findings import ArmFinding, ConfusedPair
from analysis.report.number_formats import format_gflops
from analysis.report.table_formats import to_csv, to_latex, to_markdown

# The last column is in percentage points of macro-F1.
ARM_HEADER = (
    "arm",
    "macro-F1",
    "interval",
    "parameters",
    "GFLOPs",
    "device (s)",
    "train (img/s)",
    "predict (img/s)",
    "pp/device-hour",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTableRow:
    """One arm as text; `value` is the finding itself."""

    arm: str
    macro_f1: str
    interval: str
    parameters: str
    gflops: str
    device_seconds: str
    trained_per_second: str
    predicted_per_second: str
    points_per_device_hour: str
    value: ArmFinding

    @property
    def cells(self) -> tuple[str, ...]:
        """Cells of the row in the order of `ARM_HEADER`."""
        speed = (self.trained_per_second, self.predicted_per_second, self.points_per_device_hour)
        return (self.arm, self.macro_f1, self.interval, self.parameters, self.gflops, self.device_seconds, *speed)


def build_arm_table_rows(arms: Sequence[ArmFinding]) -> tuple[ArmTableRow, ...]:
    """Return the rows of the table of arms as text."""
    return tuple(
        ArmTableRow(
            arm=arm.arm,
            macro_f1=f"{arm.test_macro_f1.estimate:.4f}",
            interval=f"[{arm.test_macro_f1.low:.4f}, {arm.test_macro_f1.high:.4f}]",
            parameters=f"{arm.num_parameters / 1e6:.1f} M",
            gflops=format_gflops(arm.forward_flops),
            device_seconds=f"{arm.device_seconds:,.0f}",
            trained_per_second=f"{arm.train_images_per_second:,.0f}",
            predicted_per_second=f"{arm.predict_images_per_second:,.0f}",
            points_per_device_hour=f"{arm.points_per_device_hour:,.0f}",
            value=arm,
        )
        for arm in arms
    )


def build_arm_rich_table(arms: Sequence[ArmFinding]) -> Table:
    """Return the table of arms for a terminal."""
    table = Table(title="Arms: macro-F1 on the test split and cost", box=SIMPLE, padding=(0, 1, 0, 0))
    # Two cells share a column, so that the table fits into 80 characters.
    for pair in _pair_up(ARM_HEADER):
        table.add_column("\n".join(pair), no_wrap=True)
    for row in build_arm_table_rows(arms):
        table.add_row(*(Text("\n".join(pair)) for pair in _pair_up(row.cells)))
    return table


def build_pair_table(pairs: Sequence[ConfusedPair]) -> Table:
    """Return the confused pairs of an arm for a terminal of at least 80 columns."""
    table = Table(title="Pairs confused more often than expected by chance", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("classes", "confusion rate", "expected\nby chance", "adjusted\np", "excess over\nhumans (pp)"):
        table.add_column(name, no_wrap=True)
    for pair in pairs:
        human = "not compared"
        if pair.human is not None:
            low, high = (f"{100 * end:+.1f}" for end in (pair.human.excess.low, pair.human.excess.high))
            human = f"[{low}, {high}]"
        low, high = (f"{100 * end:.1f}" for end in (pair.rate.low, pair.rate.high))
        table.add_row(
            Text("\n".join(pair.classes)),
            Text(f"{100 * pair.rate.estimate:.1f} %\n[{low}, {high}]"),
            Text(f"{100 * pair.expected_rate:.1f} %"),
            Text(f"{pair.p_adjusted:.3f}"),
            Text(human),
        )
    return table


def build_arm_csv(arms: Sequence[ArmFinding]) -> str:
    """Return the table of arms as csv with numbers in full precision; macro-F1 is a fraction."""
    records = [
        {
            "arm": row.value.arm,
            "macro_f1": row.value.test_macro_f1.estimate,
            "macro_f1_low": row.value.test_macro_f1.low,
            "macro_f1_high": row.value.test_macro_f1.high,
            "num_parameters": row.value.num_parameters,
            "forward_flops": row.value.forward_flops,
            "device_seconds": row.value.device_seconds,
            "train_images_per_second": row.value.train_images_per_second,
            "predict_images_per_second": row.value.predict_images_per_second,
            "points_per_device_hour": row.value.points_per_device_hour,
            "peak_memory_bytes": row.value.peak_memory_bytes,
            "device": row.value.device,
        }
        for row in build_arm_table_rows(arms)
    ]
    return to_csv(records)


def build_arm_markdown(arms: Sequence[ArmFinding]) -> str:
    """Return the table of arms as markdown."""
    return to_markdown(ARM_HEADER, [row.cells for row in build_arm_table_rows(arms)])


def build_arm_latex(arms: Sequence[ArmFinding]) -> str:
    """Return the table of arms as a LaTeX tabular, which needs the package booktabs."""
    return to_latex(ARM_HEADER, [row.cells for row in build_arm_table_rows(arms)])


def _pair_up(cells: Sequence[str]) -> list[tuple[str, ...]]:
    return [(cells[0],), *zip(cells[1::2], cells[2::2], strict=True)]

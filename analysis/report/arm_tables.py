"""The tables of arms in words: their scores and costs, and the pairs of classes that they confuse."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from analysis.findings.arm_findings import ArmScores
from analysis.findings.class_findings import ConfusedPair
from analysis.report.table_formats import to_csv, to_latex, to_markdown

# Speeds in images per second; pp/h: percentage points of macro-F1 per device-hour of a run.
ARM_HEADER = ("arm", "macro-F1", "interval", "parameters", "GFLOPs", "device-s", "train/s", "predict/s", "pp/h")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTableRow:
    """One arm in words; `cells` stand under `ARM_HEADER`, `value` is the finding that they say."""

    arm: str
    macro_f1: str
    interval: str
    parameters: str
    gflops: str
    device_seconds: str
    trained_per_second: str
    predicted_per_second: str
    points_per_device_hour: str
    value: ArmScores

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells under `ARM_HEADER`."""
        speed = (self.trained_per_second, self.predicted_per_second, self.points_per_device_hour)
        return (self.arm, self.macro_f1, self.interval, self.parameters, self.gflops, self.device_seconds, *speed)


def build_arm_table_rows(arms: Sequence[ArmScores]) -> tuple[ArmTableRow, ...]:
    """Return the rows of the table of arms in words."""
    return tuple(
        ArmTableRow(
            arm=arm.arm,
            macro_f1=f"{arm.test_macro_f1.estimate:.4f}",
            interval=f"[{arm.test_macro_f1.low:.4f}, {arm.test_macro_f1.high:.4f}]",
            parameters=f"{arm.num_parameters / 1e6:.1f} M",
            gflops=f"{arm.forward_flops / 1e9:.3g}",
            device_seconds=f"{arm.device_seconds:,.0f}",
            trained_per_second=f"{arm.train_images_per_second:,.0f}",
            predicted_per_second=f"{arm.predict_images_per_second:,.0f}",
            points_per_device_hour=f"{arm.points_per_device_hour:,.0f}",
            value=arm,
        )
        for arm in arms
    )


def build_arm_rich_table(arms: Sequence[ArmScores]) -> Table:
    """Return the table of arms for a terminal."""
    table = Table(title="Arms: macro-F1 on the test split, and cost", box=SIMPLE, padding=(0, 1, 0, 0))
    # The other forms' columns, two by two, so that 80 characters hold them.
    for pair in _pair_up(ARM_HEADER):
        table.add_column("\n".join(pair), no_wrap=True)
    for row in build_arm_table_rows(arms):
        table.add_row(*(Text("\n".join(pair)) for pair in _pair_up(row.cells)))
    return table


def build_pair_table(pairs: Sequence[ConfusedPair]) -> Table:
    """Return the confused pairs of an arm for a terminal of 80 columns or more."""
    table = Table(title="Confused more often than chance", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("classes", "taken for each other", "by chance", "p", "beyond people (pp)"):
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


def build_arm_csv(arms: Sequence[ArmScores]) -> str:
    """Return the table of arms as csv with full-precision numbers; macro-F1 as fractions."""
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


def build_arm_markdown(arms: Sequence[ArmScores]) -> str:
    """Return the table of arms as markdown."""
    return to_markdown(ARM_HEADER, [row.cells for row in build_arm_table_rows(arms)])


def build_arm_latex(arms: Sequence[ArmScores]) -> str:
    """Return the table of arms as a LaTeX tabular; needs the package booktabs."""
    return to_latex(ARM_HEADER, [row.cells for row in build_arm_table_rows(arms)])


def _pair_up(cells: Sequence[str]) -> list[tuple[str, ...]]:
    return [(cells[0],), *zip(cells[1::2], cells[2::2], strict=True)]

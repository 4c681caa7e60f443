"""Arms as a table and figures: scores and costs, and whether they pass the minimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.arms.values import ArmResults, ArmScores
from analysis.formats.figures import INK, arm_style, error_lengths, new_figure, tidy
from analysis.formats.numbers import format_bounds, format_gflops, format_percent
from analysis.formats.table_formats import FittedTable, list_bounds, to_csv, to_terminal
from analysis.statistics.interval import Interval
from trainables.records.confusion_figure import literal_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _format_bounds(interval: Interval | None) -> str:
    return "—" if interval is None else format_bounds(interval, "{:.4f}".format)


# The last column is in percentage points of macro-F1.
ARM_COLUMNS: Mapping[str, Callable[[ArmScores], str]] = {
    "arm": lambda arm: arm.arm,
    "macro-F1": lambda arm: f"{arm.test_macro_f1.estimate:.4f}",
    "these models": lambda arm: _format_bounds(arm.test_macro_f1.models),
    "recipe": lambda arm: _format_bounds(arm.test_macro_f1.recipe),
    "parameters": lambda arm: f"{arm.num_parameters / 1e6:.1f} M" if arm.num_parameters else "—",
    "GFLOPs": lambda arm: format_gflops(arm.forward_flops),
    "device (s)": lambda arm: f"{arm.device_seconds:,.0f}",
    "train (img/s)": lambda arm: f"{arm.train_images_per_second:,.0f}",
    "predict (img/s)": lambda arm: f"{arm.predict_images_per_second:,.0f}",
    "pp/device-hour": lambda arm: f"{arm.points_per_device_hour:,.0f}",
}


def build_arm_table(arms: Sequence[ArmScores], form: Callable[[Sequence[str], Sequence[Sequence[str]]], str]) -> str:
    """Return the table of arms in a format, such as `to_markdown`."""
    return form(tuple(ARM_COLUMNS), [[cell(arm) for cell in ARM_COLUMNS.values()] for arm in arms])


def build_arm_rich_table(arms: Sequence[ArmScores]) -> FittedTable:
    """Return the table of arms for a terminal: two cells share a column."""

    def pair_up(cells: Sequence[str]) -> list[str]:
        return ["\n".join(pair) for pair in zip(cells[::2], cells[1::2], strict=True)]

    rows = [pair_up([cell(arm) for cell in ARM_COLUMNS.values()]) for arm in arms]
    return to_terminal("Arms: macro-F1 on the test split and cost", pair_up(tuple(ARM_COLUMNS)), rows, no_wrap=True)


def describe_gate(arm: ArmScores, minimum: float) -> str:
    """Return whether an arm passes the minimum, and the lower bound that decides it."""
    verb = "passes" if arm.minimum_cleared else "does not pass"
    recipe, limit = arm.test_macro_f1.recipe, format_percent(minimum, 2)
    if recipe is None:
        return f"{arm.arm} {verb} the minimum: one finished run gives no lower bound; the minimum is {limit}."
    of_all = ", but lower with its runs that diverged" if recipe.low > minimum and not arm.minimum_cleared else ""
    bound = f"the recipe's lower bound of macro-F1 is {format_percent(recipe.low, 2)}{of_all}"
    return f"{arm.arm} {verb} the minimum: {bound}, the minimum is {limit}."


def build_arm_csv(arms: Sequence[ArmScores]) -> str:
    """Return the table of arms as csv with numbers in full precision; macro-F1 is a fraction."""
    same = ("num_parameters", "forward_flops", "device_seconds", "train_images_per_second", "predict_images_per_second")
    more = ("points_per_device_hour", "peak_memory_bytes", "device")
    records = [
        {
            "arm": arm.arm,
            "macro_f1": arm.test_macro_f1.estimate,
            **list_bounds("macro_f1", arm.test_macro_f1.recipe),
            **list_bounds("macro_f1_models", arm.test_macro_f1.models),
            **{name: getattr(arm, name) for name in (*same, *more)},
        }
        for arm in arms
    ]
    return to_csv(records)


def plot_class_f1(arms: Sequence[ArmResults]) -> Figure:
    """Draw F1 in percent per class and arm as bars with intervals, and the macro-F1 of each arm as a line."""
    names = [literal_text(score.class_name) for score in arms[0].class_scores] if arms else []
    figure = new_figure((8.0, 1.8 + 0.26 * len(names) * max(len(arms), 1.5)))
    axes = figure.add_subplot()
    height = 0.8 / max(len(arms), 1)
    for index, arm in enumerate(arms):
        color, hatch = arm_style(index)
        places = np.arange(len(names)) - 0.4 + height * (index + 0.5)
        scores = [score.f1.models for score in arm.class_scores]
        style: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white", "label": literal_text(arm.arm)}
        style |= {"xerr": 100 * error_lengths(scores), "error_kw": {"ecolor": INK, "capsize": 2.5, "elinewidth": 1.0}}
        axes.barh(places, [100 * f1.estimate for f1 in scores], height=0.9 * height, **style)
        mean = 100 * arm.test_macro_f1.estimate
        line, label = "--" if index % 2 == 0 else ":", literal_text(f"macro-F1 of {arm.arm}: {mean:.1f} %")
        axes.axvline(mean, color=color, linestyle=line, linewidth=2, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, 100)
    axes.set_xlabel("F1 on the test split (%)")
    axes.set_title("F1 per class with intervals for these models; lines: macro-F1 of each arm", size=11)
    tidy(axes)
    _legend_below(figure, axes)
    return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    """Draw the legend below the axes, with one column per arm: its bars above its line."""
    handles, labels = axes.get_legend_handles_labels()
    half = len(handles) // 2
    # matplotlib lists lines before bars and fills a legend column by column.
    order = [place for pair in zip(range(half, 2 * half), range(half), strict=True) for place in pair]
    if order:
        ordered = [handles[i] for i in order], [labels[i] for i in order]
        figure.legend(*ordered, loc="outside lower center", ncols=min(half, 3), frameon=False, fontsize=8)

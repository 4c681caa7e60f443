"""The A/B rows as sentences and figures."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.comparison.tables import TableRow, describe_divergence, describe_questions, describe_rule
from analysis.comparison.values import ComparisonRow, Question, Verdict
from analysis.formats.figures import ARM_COLORS, BAND_COLOR, INK, draw_interval, tidy
from analysis.formats.numbers import format_count, format_pp
from search_spaces.designs import NO_INTERACTION
from trainables.records.confusion_figure import literal_text


def describe_verdict(row: TableRow) -> str:
    """Return the verdict of an A/B row as a sentence, without its numbers."""
    treatment, control, margin = row.value.treatment, row.value.control, format_pp(row.value.margin)
    if control == NO_INTERACTION:
        return {
            Verdict.BETTER: f"{treatment}: the combined effect is larger than the sum of the individual effects.",
            Verdict.WORSE: f"{treatment}: the combined effect is smaller than the sum of the individual effects.",
            Verdict.EQUIVALENT: f"{treatment}: the effects are additive within the margin of {margin}.",
            Verdict.UNDECIDED: f"{treatment}: it is undecided whether the effects are additive.",
        }[row.value.verdict]
    size = {
        "material": f", and by more than the margin of {margin}",
        "negligible": f", but by less than the margin of {margin}",
    }.get(row.value.materiality, "")
    scope = " (these two models; with one seed, nothing is known about the recipe)"
    cause = " over all runs, of which more diverged on one side" if row.value.is_decided_by_divergence else ""
    return {
        Verdict.BETTER: f"{treatment} is better than {control}{cause}{size}",
        Verdict.WORSE: f"{treatment} is worse than {control}{cause}{size}",
        Verdict.EQUIVALENT: f"{treatment} and {control} are equivalent within the margin of {margin}",
        Verdict.UNDECIDED: f"Undecided: the data do not separate {treatment} from {control}",
    }[row.value.verdict] + f"{scope if row.value.question is Question.MODELS else ''}."


def describe_numbers(row: TableRow) -> str:
    """Return the numbers of an A/B row on one line."""
    cost = [row.cost] if row.value.cost_ratio is not None else []
    mde = [f"MDE {row.mde} pp"] if row.value.minimum_detectable_effect is not None else []
    return " | ".join([row.comparison, f"{row.effect} {row.interval}", row.verdict, row.seeds, *mde, *cost])


def describe_evidence(row: TableRow) -> str:
    """Return the number of seeds and images, the confidence and the minimum detectable effect of an A/B row."""
    rule = describe_rule(row)
    seeds = (
        row.seeds
        if row.value.num_control_seeds is not None
        else f"{row.value.num_seeds} paired {row.seeds.split()[-1]}"
    )
    parts = [
        f"{seeds}, {format_count(row.value.num_images)} test images, {row.confidence} confidence interval.",
        ""
        if row.value.minimum_detectable_effect is None
        else f"Minimum detectable effect (MDE) at 80 % power: {row.mde} pp.",
        f"For these models on new images: {row.models}.",
        f"Also: {rule}." if rule else "",
        f"Divergence: {divergence}." if (divergence := describe_divergence(row.value)) else "",
    ]
    return " ".join(part for part in parts if part)


def describe_row_questions(rows: Sequence[TableRow]) -> str:
    """Return the questions that the intervals of a table answer, as sentences that end with a space."""
    found = describe_questions([row.value for row in rows])
    return (
        "".join(f"{sentence} " for sentence in found)
        or "The intervals cover the variation over seeds and test images. "
    )


def describe_class_differences(row: TableRow) -> str:
    """Return the classes whose F1 differs between the two arms."""
    flagged = [c for c in row.value.class_differences if c.is_flagged]
    named = ", ".join(f"{c.class_name} ({100 * c.effect.estimate:+.1f} pp)" for c in flagged) or "none"
    return (
        "Classes with a difference in F1, at a false discovery rate of 10 % (exploratory; Benjamini-Hochberg over "
        f"{len(row.value.class_differences)} classes): {named}."
    )


def plot_interval_bars(rows: Sequence[ComparisonRow]) -> Figure:
    """Draw the interval, the margin band and the differences per seed of each A/B row, in percentage points."""
    figure = Figure(figsize=(8.0, 1.5 + 0.8 * max(len(rows), 1)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.barh(place, 200 * row.margin, left=-100 * row.margin, height=0.9, color=BAND_COLOR, zorder=0)
        seeds = [100 * difference for difference in row.seed_differences]
        axes.plot(seeds, [place + 0.27] * len(seeds), "|", color="#666666", markersize=9, zorder=2)
        style: dict[str, Any] = {
            "fmt": "o",
            "color": ARM_COLORS[0],
            "markersize": 7,
            "linewidth": 2.5,
            "capsize": 5,
            "zorder": 3,
        }
        draw_interval(axes, row.effect, place, **style)
        axes.annotate(str(row.verdict), (100 * row.effect.estimate, place - 0.2), ha="center", va="bottom", size=9)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [literal_text(f"{row.treatment}\nvs {row.control}") for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.6)
    axes.use_sticky_edges = False
    axes.margins(x=0.06)
    axes.autoscale_view(scaley=False)
    axes.set_xlabel("difference in macro-F1, first arm minus second (percentage points)")
    # Of the figure, not of the axes, which long names of arms make narrow.
    figure.suptitle("Differences with confidence intervals; gray band: ± margin; ticks: seeds", size=11)
    tidy(axes)
    return figure

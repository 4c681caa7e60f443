"""Figures of the report as matplotlib figures, without pyplot and global state.

The palette is that of Okabe and Ito (2008), which is safe for color-blind readers; line styles, markers and hatches encode
the same information redundantly.
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis.evidence.study_warnings import LOW_SHARE_FRACTION
from analysis.findings.arm_findings import ArmFinding
from analysis.findings.class_findings import Confusion, ConfusionCluster
from analysis.findings.comparison_findings import ComparisonRow
from analysis.findings.forensic_findings import CamPanel
from analysis.findings.interval import Interval, TwoIntervals
from analysis.findings.search_findings import SearchArm
from analysis.heat_maps.arm_cams import ArmCam
from trainables.records.confusion_figure import MOST_ANNOTATED_CLASSES, literal_text, plot_rate_matrix

Curve = tuple[Sequence[int], Sequence[float | None], str]

ARM_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
ARM_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")
FRAME_COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
FRAME_LINES = ("-", "--", ":", "-.")
BAND_COLOR = "#D9D9D9"
INK = "#1A1A1A"
STATE_STYLES: Mapping[str, Mapping[str, Any]] = {
    "COMPLETE": {"linestyle": "-", "linewidth": 1.6, "alpha": 0.9},
    "PRUNED": {"linestyle": "--", "linewidth": 0.9, "alpha": 0.7},
    "FAILED": {"linestyle": ":", "linewidth": 1.2, "alpha": 0.9},
    "RUNNING": {"linestyle": "-.", "linewidth": 1.2, "alpha": 0.9},
}
STATE_MARKERS = {"COMPLETE": "o", "PRUNED": "x", "FAILED": "v", "RUNNING": ">"}
STATE_COLORS = {"completed": "#0072B2", "pruned": "#BDBDBD", "failed": "#D55E00"}


def figure_to_png(figure: Figure, *, dots_per_inch: int = 120) -> bytes:
    """Return the figure as PNG bytes, which are equal for figures drawn from equal values."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def plot_confusion(
    confusion: Confusion, class_names: Sequence[str], title: str, clusters: Sequence[ConfusionCluster] = ()
) -> Figure:
    """Draw the rates of a confusion matrix in percent, each with the half-width of its interval for these models.

    Args:
        confusion: rates of K classes; a cell with rate 0 shows "0" alone.
        class_names: K names.
        title: of the figure.
        clusters: groups of classes whose cells get a frame.

    Raises:
        UserInputError: if the names do not fit the matrix.
    """
    rates = np.array([[cell.estimate for cell in row] for row in confusion.rates])
    texts = [[_rate_text(cell) for cell in row] for row in confusion.rates]
    is_annotated = len(class_names) <= MOST_ANNOTATED_CLASSES
    note = "rate in % ± half-width of its interval for these models" if is_annotated else "color: rate"
    if clusters:
        note += "; frames: clusters of confused classes"
    figure = plot_rate_matrix(rates, texts, class_names, title=f"{title}\n{note}")
    for index, cluster in enumerate(clusters):
        _frame_cells(figure.axes[0], [class_names.index(name) for name in cluster.classes], index)
    return figure


def _frame_cells(axes: Axes, classes: Sequence[int], index: int) -> None:
    """Draw a frame around each off-diagonal cell of one cluster."""
    color, line = FRAME_COLORS[index % len(FRAME_COLORS)], FRAME_LINES[index % len(FRAME_LINES)]
    for row, column in itertools.permutations(classes, 2):
        frame = Rectangle(
            (column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=color, linestyle=line, linewidth=2.2
        )
        axes.add_patch(frame)


def plot_class_f1(arms: Sequence[ArmFinding]) -> Figure:
    """Draw F1 in percent per class and arm as bars with intervals, and the macro-F1 of each arm as a line."""
    names = [literal_text(score.class_name) for score in arms[0].class_scores] if arms else []
    figure = Figure(figsize=(8.0, 1.8 + 0.26 * len(names) * max(len(arms), 1.5)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / max(len(arms), 1)
    for index, arm in enumerate(arms):
        color, hatch = _arm_style(index)
        places = np.arange(len(names)) - 0.4 + height * (index + 0.5)
        scores = [score.f1.models for score in arm.class_scores]
        axes.barh(
            places,
            [100 * f1.estimate for f1 in scores],
            height=0.9 * height,
            xerr=100 * _error_arms(scores),
            error_kw={"ecolor": INK, "capsize": 2.5, "elinewidth": 1.0},
            color=color,
            hatch=hatch,
            edgecolor="white",
            label=literal_text(arm.arm),
        )
        mean = 100 * arm.test_macro_f1.estimate
        line = "--" if index % 2 == 0 else ":"
        axes.axvline(
            mean, color=color, linestyle=line, linewidth=2, label=literal_text(f"macro-F1 of {arm.arm}: {mean:.1f} %")
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, 100)
    axes.set_xlabel("F1 on the test split (%)")
    axes.set_title("F1 per class with intervals for these models; lines: macro-F1 of each arm", size=11)
    _tidy(axes)
    _legend_below(figure, axes)
    return figure


def plot_interval_bars(rows: Sequence[ComparisonRow]) -> Figure:
    """Draw the interval, the margin band and the differences per seed of each A/B row, in percentage points."""
    figure = Figure(figsize=(8.0, 1.5 + 0.8 * max(len(rows), 1)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.barh(place, 200 * row.margin, left=-100 * row.margin, height=0.9, color=BAND_COLOR, zorder=0)
        seeds = [100 * difference for difference in row.seed_differences]
        axes.plot(seeds, [place + 0.27] * len(seeds), "|", color="#666666", markersize=9, zorder=2)
        axes.errorbar(
            100 * row.effect.estimate,
            place,
            xerr=100 * _error_arms([row.effect]),
            fmt="o",
            color=ARM_COLORS[0],
            markersize=7,
            linewidth=2.5,
            capsize=5,
            zorder=3,
        )
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
    _tidy(axes)
    return figure


def plot_learning_curves(curves: Mapping[str, Sequence[Curve]], rungs: Sequence[int] = ()) -> Figure:
    """Draw macro-F1 on the search split against the epoch, one panel per arm; line styles show the states of the trials.

    Args:
        curves: per arm and trial (epochs, macro-F1 as fractions or None, state); the state is COMPLETE, PRUNED, FAILED or
            RUNNING, and None interrupts the line.
        rungs: epochs at which ASHA may prune.
    """
    figure = Figure(figsize=(4.2 * max(len(curves), 1) + 0.6, 4.0), layout="constrained")
    panels = figure.subplots(1, max(len(curves), 1), sharex=True, sharey=True, squeeze=False)[0]
    for index, (axes, (arm, trials)) in enumerate(zip(panels, curves.items(), strict=False)):
        color, _ = _arm_style(index)
        for rung in rungs:
            axes.axvline(rung, color=BAND_COLOR, linewidth=4, zorder=0)
        for epochs, scores, state in trials:
            percents = [np.nan if score is None else 100 * score for score in scores]
            axes.plot(epochs, percents, color=color, **STATE_STYLES[state])
            finite = [(e, p) for e, p in zip(epochs, percents, strict=True) if np.isfinite(p)]
            if finite:
                axes.plot(*finite[-1], STATE_MARKERS[state], color=color, markersize=6)
        counts = [f"{sum(t[2] == s for t in trials)} {s.lower()}" for s in STATE_STYLES]
        shown = ", ".join(count for count in counts if not count.startswith("0 "))
        axes.set_title(literal_text(f"{arm}: {shown or 'no trials'}"), size=10)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axes)
    panels[0].set_ylabel("macro-F1 on the search split (%)")
    figure.suptitle("Learning curves of the search", size=11)
    figure.legend(handles=_state_legend(curves, rungs), loc="outside lower center", ncols=5, frameon=False)
    return figure


def plot_arm_shares(search: Sequence[SearchArm]) -> Figure:
    """Draw the share of device time in percent and the number of trials per final state of each arm."""
    figure = Figure(figsize=(8.0, 1.9 + 0.45 * max(len(search), 1)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [literal_text(arm.arm) for arm in search]
    left.barh(names, [100 * arm.share for arm in search], color=ARM_COLORS[0], height=0.6)
    if search:
        equal = 100 / len(search)
        left.axvline(equal, color=INK, label="equal share")
        warn = f"{100 * LOW_SHARE_FRACTION:.0f} % of the equal share"
        left.axvline(LOW_SHARE_FRACTION * equal, color=ARM_COLORS[5], linestyle="--", label=warn)
        left.invert_yaxis()
    left.set_xlim(0, 100)
    left.set_xlabel("share of device time (%)")
    left.set_title("Device time per arm", size=11)
    start = np.zeros(len(search))
    for hatch, (state, color) in zip(("", "///", "xxx"), STATE_COLORS.items(), strict=True):
        counts = np.array([getattr(arm, f"num_{state}") for arm in search], dtype=float)
        right.barh(names, counts, left=start, color=color, hatch=hatch, edgecolor="white", height=0.6, label=state)
        start = start + counts
    right.set_xlabel("trials")
    right.set_title("Trials by final state", size=11)
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        _tidy(axes)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3, frameon=False)
    return figure


def plot_cam_panel(image: NDArray[np.uint8], panel: CamPanel, cams: Sequence[ArmCam]) -> Figure:
    """Draw an image, and the heat maps and overlays of each arm for the predicted and the true class.

    Each map is scaled from 0 to its own maximum, which is written below it. Heat maps show the cells of the map; overlays
    resize it bilinearly. An arm with a correct prediction has one column. Two rows show Grad-CAM, two more the chosen maps of
    the arms where they differ.

    Args:
        image: (H, W, 3) uint8.
        panel: class names and texts of the panel.
        cams: the maps, one entry per view of the panel.
    """
    true_class = panel.true_class
    arms = [list(group) for _, group in itertools.groupby(cams, key=lambda cam: cam.view.arm)]
    columns = []
    for own in arms:
        columns.append((own, "predicted"))
        if own[0].view.predicted_class != true_class:
            columns.append((own, "true"))
    num_methods = max((len(own) for own in arms), default=1)
    figure = Figure(figsize=(2.3 * (len(columns) + 1), 5.4 * num_methods), layout="constrained")
    grid = figure.subplots(2 * num_methods, len(columns) + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].imshow(image)
    grid[0, 0].set_title(literal_text(f"input {panel.sample_id}\ntrue class: {true_class}"), size=9)
    for place, (own, kind) in enumerate(columns, start=1):
        for number, cam in enumerate(own):
            top, bottom = grid[2 * number : 2 * number + 2, place]
            _draw_cam(top, bottom, image, cam.predicted_cam if kind == "predicted" else cam.true_cam)
            top.set_title(literal_text(_cam_title(cam, kind, true_class)), size=9)
            for axes, label in ((top, "heat map"), (bottom, "overlay")):
                axes.set_axis_on()
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_ylabel(label if place == 1 else "", size=9)
    figure.suptitle(literal_text(f"Heat maps of image {panel.sample_id}: {panel.reason}"), size=11)
    return figure


def _draw_cam(top: Axes, bottom: Axes, image: NDArray[np.uint8], energy: NDArray[np.float32]) -> None:
    height, width = image.shape[:2]
    peak = float(energy.max()) if np.isfinite(energy).all() else 0.0
    bottom.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    if peak <= 0 or peak == float(energy.min()):
        top.imshow(np.full(energy.shape, 0.85), cmap="gray", vmin=0, vmax=1)
        top.set_xlabel("degenerate map", size=8)
        return
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    top.imshow(energy / peak, cmap="inferno", vmin=0, vmax=1, extent=extent)
    top.set_xlabel(f"maximum {peak:.3g}", size=8)
    # The opacity grows with the energy.
    shown = np.clip(energy / peak, 0, 1)
    bottom.imshow(shown, cmap="inferno", vmin=0, vmax=1, alpha=0.75 * shown, interpolation="bilinear", extent=extent)


def _cam_title(cam: ArmCam, kind: str, true_class: str) -> str:
    view = cam.view
    name, probability = (
        (view.predicted_class, view.predicted_probability)
        if kind == "predicted"
        else (true_class, view.true_probability)
    )
    return f"{view.arm}, {view.method}\n{view.layer}, for {kind}: {name} ({100 * probability:.0f} %)"


def _rate_text(cell: TwoIntervals) -> str:
    if cell.estimate == 0:
        return "0"
    return f"{100 * cell.estimate:.1f}\n±{50 * (cell.models.high - cell.models.low):.1f}"


def _error_arms(intervals: Sequence[Interval]) -> NDArray[np.float64]:
    """Return (2, n) distances from the estimates down to `low` and up to `high`."""
    below = [max(i.estimate - i.low, 0.0) for i in intervals]
    above = [max(i.high - i.estimate, 0.0) for i in intervals]
    return np.array([below, above])


def _arm_style(index: int) -> tuple[str, str]:
    return ARM_COLORS[index % len(ARM_COLORS)], ARM_HATCHES[index % len(ARM_HATCHES)]


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)


def _legend_below(figure: Figure, axes: Axes) -> None:
    """Draw the legend below the axes, with one column per arm: its bars above its line."""
    handles, labels = axes.get_legend_handles_labels()
    half = len(handles) // 2
    # matplotlib lists lines before bars and fills a legend column by column.
    order = [place for pair in zip(range(half, 2 * half), range(half), strict=True) for place in pair]
    if order:
        ordered = [handles[i] for i in order], [labels[i] for i in order]
        figure.legend(*ordered, loc="outside lower center", ncols=min(half, 3), frameon=False, fontsize=8)


def _state_legend(curves: Mapping[str, Sequence[Curve]], rungs: Sequence[int]) -> list[Line2D]:
    present = {state for trials in curves.values() for _, _, state in trials}
    handles = [
        Line2D([], [], color=INK, marker=STATE_MARKERS[state], label=state.lower(), **style)
        for state, style in STATE_STYLES.items()
        if state in present
    ]
    if rungs:
        handles.append(Line2D([], [], color=BAND_COLOR, linewidth=4, label="rung"))
    return handles

"""The search as sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.formats.figures import ARM_COLORS, BAND_COLOR, INK, arm_style, new_figure, tidy
from analysis.formats.numbers import format_seconds
from analysis.search import values
from search_spaces.errors import count_noun
from trainables.records.confusion_figure import literal_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Complete trials below which a rank correlation is not shown.
MIN_CORRELATED = 6
_COMPLETED_ONLY = "Pruned and failed trials have no final score and are not shown."


def describe_search(allocation: str, warm_start: str, starts: Sequence[str]) -> str:
    """Return how device time was allocated to the arms, and what the search knew before it started; see `Findings`."""
    sentence = {
        "per_arm": "Each arm had its own sampler, its own brackets and an equal target share of the device time.",
        "pooled": "One sampler searched the whole space (allocation: pooled), so no two arms were compared.",
        "given": "The configurations were given, so nothing was searched; each was trained once before its confirmation seeds.",
    }[allocation]
    sentences = [sentence]
    if warm_start:
        sentences.append(f"The samplers were initialized with the trials of {warm_start}.")
    return " ".join([*sentences, *starts])


def describe_pruning(rungs: Sequence[int]) -> str:
    """Return the epochs at which trials could be pruned, and the meaning of the time saved."""
    if not rungs:
        return "Early stopping was disabled."
    epochs = "epoch" if len(rungs) == 1 else "epochs"
    return (
        f"Trials could be pruned after {epochs} {', '.join(map(str, rungs))}. The time saved is an estimate: the device "
        "time that the pruned trials would have needed to reach the last epoch, each at its own speed."
    )


def describe_tuning(curves: Sequence[values.TuningCurve]) -> str:
    """Return which arm led at which device time of the search; "" if fewer than two arms have a tuning curve."""
    leaders = values.find_lead_changes(curves)
    if not leaders:
        return ""
    (_, first), *later = leaders
    changes = "".join(f", then {arm} from {format_seconds(seconds)} of device time" for seconds, arm in later)
    return (
        f"Best score so far at equal device time: {first}{changes or ' throughout'}. This is one search per arm; another search "
        "may order the arms differently."
    )


def format_correlation(rung: values.RungFinding) -> str:
    """Return a rung's rank correlation, with its interval if it has one: "0.87 [0.55, 0.97]"; a dash for None.

    A correlation of fewer than `MIN_CORRELATED` trials says nothing; how many are missing stands in its place.
    """
    missing = MIN_CORRELATED - rung.num_completed
    if missing > 0:
        return f"needs {count_noun(missing, 'more complete trial')}"
    if rung.rank_correlation is None:
        return "—"
    if rung.interval is None:
        return f"{rung.rank_correlation:.2f}"
    return f"{rung.rank_correlation:.2f} [{rung.interval.low:.2f}, {rung.interval.high:.2f}]"


def describe_search_plot(key: str) -> str:
    """Return the caption of one of Optuna's plots: which trials it shows, and how to read it."""
    kind = key if key.startswith("search_") else key.partition("_")[0]
    return {
        "parallel": f"One line per completed trial; darker lines have a higher macro-F1. {_COMPLETED_ONLY}",
        "slice": f"One point per completed trial; darker points are later trials. {_COMPLETED_ONLY}",
        "importance": "Importance for reaching the best 10 % of the completed trials (PED-ANOVA). The estimate is rough for "
        "fewer than about 50 completed trials.",
        "search_edf": "Fraction of the completed trials of each arm with a score at or below the value on the x axis.",
        "search_timeline": "Start and end of every trial of the search. COMPLETE: reached the last epoch; PRUNED: stopped at a "
        "rung; FAIL: diverged or crashed.",
    }[kind]


Curve = tuple[Sequence[int], Sequence[float | None], str]

STATE_STYLES: Mapping[str, Mapping[str, Any]] = {
    "COMPLETE": {"linestyle": "-", "linewidth": 1.6, "alpha": 0.9},
    "PRUNED": {"linestyle": "--", "linewidth": 0.9, "alpha": 0.7},
    "FAILED": {"linestyle": ":", "linewidth": 1.2, "alpha": 0.9},
    "RUNNING": {"linestyle": "-.", "linewidth": 1.2, "alpha": 0.9},
}
STATE_MARKERS = {"COMPLETE": "o", "PRUNED": "x", "FAILED": "v", "RUNNING": ">"}
STATE_COLORS = {"completed": "#0072B2", "pruned": "#BDBDBD", "failed": "#D55E00"}
DASHES = ("-", "--", ":", "-.")


def plot_learning_curves(curves: Mapping[str, Sequence[Curve]], rungs: Sequence[int] = ()) -> Figure:
    """Draw macro-F1 on the search split against the epoch, one panel per arm; line styles show the states of the trials.

    Args:
        curves: per arm and trial (epochs, macro-F1 as fractions or None, state); the state is COMPLETE, PRUNED, FAILED or
            RUNNING, and None interrupts the line.
        rungs: epochs at which ASHA may prune.
    """
    figure = new_figure((4.2 * max(len(curves), 1) + 0.6, 4.0))
    panels = figure.subplots(1, max(len(curves), 1), sharex=True, sharey=True, squeeze=False)[0]
    for index, (axes, (arm, trials)) in enumerate(zip(panels, curves.items(), strict=False)):
        color, _ = arm_style(index)
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
        tidy(axes)
    panels[0].set_ylabel("macro-F1 on the search split (%)")
    figure.suptitle("Learning curves of the search", size=11)
    figure.legend(handles=_state_legend(curves, rungs), loc="outside lower center", ncols=5, frameon=False)
    return figure


def plot_arm_shares(search: Sequence[values.SearchArm]) -> Figure:
    """Draw the share of device time in percent and the number of trials per final state of each arm."""
    figure = new_figure((8.0, 1.9 + 0.45 * max(len(search), 1)))
    left, right = figure.subplots(1, 2, sharey=True)
    names = [literal_text(arm.arm) for arm in search]
    left.barh(names, [100 * arm.share for arm in search], color=ARM_COLORS[0], height=0.6)
    if search:
        equal = 100 / len(search)
        left.axvline(equal, color=INK, label="equal share")
        warn = f"{100 * values.LOW_SHARE_FRACTION:.0f} % of the equal share"
        left.axvline(values.LOW_SHARE_FRACTION * equal, color=ARM_COLORS[5], linestyle="--", label=warn)
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
        tidy(axes)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3, frameon=False)
    return figure


def _state_legend(curves: Mapping[str, Sequence[Curve]], rungs: Sequence[int]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    present = {state for trials in curves.values() for _, _, state in trials}
    handles = [
        Line2D([], [], color=INK, marker=STATE_MARKERS[state], label=state.lower(), **style)
        for state, style in STATE_STYLES.items()
        if state in present
    ]
    if rungs:
        handles.append(Line2D([], [], color=BAND_COLOR, linewidth=4, label="rung"))
    return handles


def plot_rungs(scores: Sequence[values.RungScores]) -> Figure:
    """Draw macro-F1 in percent at the last epoch against macro-F1 at the rung, one panel per rung and arm.

    Pruned trials have no score at the last epoch; ticks at the lower edge mark their scores at the rung.
    """
    arms = list(dict.fromkeys(s.arm for s in scores))
    rungs = sorted({s.epoch for s in scores})
    size = (3.4 * max(len(arms), 1) + 0.8, 3.0 * max(len(rungs), 1) + 1.0)
    figure = new_figure(size)
    panels = figure.subplots(max(len(rungs), 1), max(len(arms), 1), sharex=True, sharey=True, squeeze=False)
    # An arm with another number of epochs has rungs of its own.
    for axes in panels.flat:
        axes.set_visible(False)
    for place in scores:
        axes = panels[rungs.index(place.epoch), arms.index(place.arm)]
        axes.set_visible(True)
        color = ARM_COLORS[arms.index(place.arm) % len(ARM_COLORS)]
        _draw_rung(axes, place, color)
    # Space at the lower edge for the ticks of trials without a final score.
    panels[0, 0].margins(y=0.12)
    for axes in panels[:, 0]:
        axes.set_ylabel("macro-F1 at the\nlast epoch (%)")
    for axes in panels[-1]:
        axes.set_xlabel("macro-F1 at the rung (%)")
    figure.suptitle("Rung score vs. final score", size=11)
    used = next(axes for axes in panels.flat if axes.get_visible() or not scores)
    figure.legend(*used.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_tuning_curves(curves: Sequence[values.TuningCurve]) -> Figure:
    """Draw the best macro-F1 so far in percent against device time; where there is one, the expected curve with its band."""
    figure = new_figure((8.0, 4.6))
    axes = figure.add_subplot()
    for index, curve in enumerate(curves):
        color, line = ARM_COLORS[index % len(ARM_COLORS)], DASHES[index % len(DASHES)]
        ends, best = zip(*curve.observed, strict=True)
        style = {"color": color, "linestyle": line, "linewidth": 1.8, "marker": ".", "markersize": 4}
        axes.step(ends, [100 * b for b in best], where="post", label=literal_text(curve.arm), **style)
        if curve.points:
            seconds = [p.device_seconds for p in curve.points]
            low, high = [100 * p.low for p in curve.points], [100 * p.high for p in curve.points]
            axes.fill_between(seconds, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(seconds, [100 * p.expected for p in curve.points], color=color, linestyle=line, linewidth=0.9)
    axes.set_xlabel("device time of the arm's search (device-seconds)")
    axes.set_ylabel("best macro-F1 on the search split (%)")
    title = "Best score so far vs. search budget"
    if any(curve.points for curve in curves):
        title += "\nsteps: actual search; thin line and band: mean and 80 % of the resampled searches"
    axes.set_title(title, size=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_rung(axes: Axes, scores: values.RungScores, color: str) -> None:
    at_rung = [100 * rung for rung, _ in scores.completed]
    at_end = [100 * end for _, end in scores.completed]
    pruned = [100 * score for score in scores.stopped]
    axes.plot(at_rung, at_end, "o", color=color, markersize=5, alpha=0.8, label="completed")
    # The y coordinate is a fraction of the axes: pruned trials have no final score.
    place: dict[str, Any] = {"transform": axes.get_xaxis_transform()}
    axes.plot(pruned, [0.03] * len(pruned), "|", color=INK, markersize=9, label="not continued", **place)
    counts = f"{len(at_rung)} completed, {len(pruned)} not continued"
    axes.set_title(literal_text(f"{scores.arm}, epoch {scores.epoch}\n{counts}"), size=9)
    tidy(axes, grid="both")

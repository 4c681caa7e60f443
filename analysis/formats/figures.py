"""Colors, parts and formats of figures, which are drawn without pyplot and global state.

The palette is that of Okabe and Ito (2008), which is safe for color-blind readers; line styles, markers and hatches encode
the same information redundantly.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARM_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
ARM_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")
BAND_COLOR = "#D9D9D9"
INK = "#1A1A1A"


# How a viewer with a dark page shows what is drawn in black, gray and white; the colors of the arms are readable on both.
DARK_STYLE = """<style>
@media (prefers-color-scheme: dark) {
  text:not([style*="fill:"]), use:not([style*="fill:"]) { fill: #e8eaed; }
  [style*="fill: #000000"], [style*="fill: #1a1a1a"] { fill: #e8eaed !important; }
  [style*="stroke: #000000"], [style*="stroke: #1a1a1a"] { stroke: #e8eaed !important; }
  [style*="fill: #666666"] { fill: #a9b0b8 !important; }
  [style*="stroke: #666666"] { stroke: #a9b0b8 !important; }
  [style*="fill: #ffffff"] { fill: #15181c !important; }
  [style*="stroke: #ffffff"] { stroke: #15181c !important; }
  [style*="fill: #d9d9d9"] { fill: #47505a !important; }
  [style*="stroke: #e5e5e5"], [style*="stroke: #cccccc"] { stroke: #3a4149 !important; }
}
</style>"""


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure of a width and height in inches. Matplotlib is imported here, so that reading a study is quick."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def figure_to_png(figure: Figure, *, dots_per_inch: int = 120) -> bytes:
    """Return the figure as PNG bytes, which are equal for figures drawn from equal values."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def figure_to_svg(figure: Figure) -> bytes:
    """Return the figure as an SVG file, which is equal for figures drawn from equal values."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "abstudy"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("<defs>", DARK_STYLE + "<defs>", 1)
    # The metadata names matplotlib's vocabulary, and nothing else.
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL).encode()


def draw_interval(axes: Axes, interval: Interval, place: float, scale: float = 100.0, **style: Any) -> None:
    """Draw an estimate with its interval as a horizontal error bar at the height `place`, both times `scale`."""
    axes.errorbar(scale * interval.estimate, place, xerr=scale * error_lengths([interval]), **style)


def error_lengths(intervals: Sequence[Interval]) -> FloatArray:
    """Return (2, n) distances from the estimates down to `low` and up to `high`."""
    below = [max(i.estimate - i.low, 0.0) for i in intervals]
    above = [max(i.high - i.estimate, 0.0) for i in intervals]
    return np.array([below, above])


def arm_style(index: int) -> tuple[str, str]:
    """Return the color and the hatch of an arm by its place."""
    return ARM_COLORS[index % len(ARM_COLORS)], ARM_HATCHES[index % len(ARM_HATCHES)]


def tidy(axes: Axes, grid: Literal["x", "both"] = "x") -> None:
    """Leave out the spines at the top and on the right, and draw grid lines behind what is drawn, by default vertical ones."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#E5E5E5", linewidth=0.8)

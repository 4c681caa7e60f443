"""Figures as SVG: text that can be selected, sharp in print, and readable on a dark page."""

import io
import re

import matplotlib
from matplotlib.figure import Figure

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


def figure_to_svg(figure: Figure) -> bytes:
    """Return the figure as an SVG file, which is equal for figures drawn from equal values."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "abstudy"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("<defs>", DARK_STYLE + "<defs>", 1)
    # The metadata names matplotlib's vocabulary, and nothing else.
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL).encode()

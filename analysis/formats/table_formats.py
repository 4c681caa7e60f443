"""Tables for the terminal and as csv, markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from analysis.statistics.interval import Interval

if TYPE_CHECKING:
    import pandas as pd


# Width at which the columns of a table are measured.
UNLIMITED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTable:
    """A table that drops columns where a terminal is too narrow for all of them, so that no word of the others is cut.

    Attributes:
        build: returns the table of some columns, given by their places.
        dropped_first: places of the columns in the order in which they are dropped; the others stay.
        no_wrap: whether lines of cells are not wrapped either.
    """

    build: Callable[[Sequence[int]], Table]
    dropped_first: Sequence[int]
    no_wrap: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the table with as many columns as fit."""
        left = sorted(self.dropped_first)
        kept = [0, *left]
        for place in (*self.dropped_first, None):
            table = self.build(kept)
            needed = Measurement.get(console, options.update(width=UNLIMITED), table)
            if place is None or (needed.maximum if self.no_wrap else needed.minimum) <= options.max_width:
                break
            kept.remove(place)
        yield table


def to_terminal(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    caption: str = "",
    *,
    no_wrap: bool = False,
    least: Sequence[int] = (),
) -> FittedTable:
    """Return a table for a terminal; markup in cells is shown as it is.

    Args:
        title: above it.
        header: names of the columns.
        rows: cells.
        caption: below it.
        no_wrap: whether lines of cells stay whole.
        least: places of the columns that a narrow terminal lacks first; then those from the last one on. The first one stays.
    """

    def build(places: Sequence[int]) -> Table:
        table = Table(title=title, caption=caption, box=SIMPLE, padding=(0, 1, 0, 0))
        for place in places:
            table.add_column(header[place], no_wrap=no_wrap, overflow="fold")
        for cells in rows:
            chosen = (cells[place] for place in places)
            table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in chosen))
        return table

    others = [place for place in range(len(header) - 1, 0, -1) if place not in least]
    return FittedTable(build=build, dropped_first=(*least, *others), no_wrap=no_wrap)


# What makes a spreadsheet take a text for a formula, or move it into another cell; after apostrophes, so that it can be undone.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def to_csv(table: Sequence[Mapping[str, object]] | Mapping[str, object] | pd.DataFrame) -> str:
    """Return records with a column per key of the first, columns, or a table as csv that no spreadsheet executes."""
    import pandas as pd

    frame = pd.DataFrame(table)
    texts = frame.select_dtypes(exclude="number")
    safe = {str(name): pd.Series(map(escape_formula, texts[name]), frame.index, dtype=object) for name in texts}
    return str(frame.assign(**safe).rename(columns=escape_formula).to_csv(index=False, lineterminator="\n"))


def escape_formula(cell: Any) -> Any:
    """Return a cell of csv; a text that a spreadsheet would execute is marked as a text by an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def unescape_formula(text: str) -> str:
    """Return the text that `escape_formula` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def list_bounds(name: str, interval: Interval | None, unit: Literal["", "_pp"] = "") -> dict[str, float | None]:
    """Return the columns of csv for the ends of an interval: as they are, or in percentage points (`_pp`)."""
    scale = 100 if unit else 1
    low, high = (None, None) if interval is None else (scale * interval.low, scale * interval.high)
    return {f"{name}_low{unit}": low, f"{name}_high{unit}": high}


def list_points(name: str, interval: Interval | None) -> dict[str, float | None]:
    """Return the columns of csv for a difference of fractions and its interval, in percentage points."""
    estimate = None if interval is None else 100 * interval.estimate
    return {f"{name}_pp": estimate, **list_bounds(name, interval, "_pp")}


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table; bars in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    return line(header) + line(["---"] * len(header)) + "".join(line(row) for row in rows)


def to_latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an escaped LaTeX tabular, which needs the package booktabs; minus signs, < and > are in math mode."""
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=list(header), dtype="str")
    text = table.to_latex(index=False, escape=True, column_format="l" + "r" * (len(header) - 1))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text.replace("<", "$<$").replace(">", "$>$"))

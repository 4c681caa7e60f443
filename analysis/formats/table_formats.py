"""Tables for the terminal and as csv, markdown and LaTeX."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from analysis.statistics.interval import Interval


def to_terminal(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str | Text]], caption: str = "", *, no_wrap: bool = False
) -> Table:
    """Return a table for a terminal; markup in cells is shown as it is."""
    table = Table(title=title, caption=caption, box=SIMPLE, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, no_wrap=no_wrap)
    for cells in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return table


# What makes a spreadsheet take a text for a formula, or move it into another cell; after apostrophes, so that it can be undone.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def to_csv(table: Sequence[Mapping[str, object]] | Mapping[str, object] | pd.DataFrame) -> str:
    """Return records with a column per key of the first, columns, or a table as csv that no spreadsheet executes."""
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
    table = pd.DataFrame(list(rows), columns=list(header), dtype="str")
    text = table.to_latex(index=False, escape=True, column_format="l" + "r" * (len(header) - 1))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text.replace("<", "$<$").replace(">", "$>$"))

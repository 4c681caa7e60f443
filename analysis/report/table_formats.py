"""Tables as csv, markdown and LaTeX."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd


def to_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return records as csv, with a column per key of the first."""
    return str(pd.DataFrame(list(records)).to_csv(index=False, lineterminator="\n"))


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

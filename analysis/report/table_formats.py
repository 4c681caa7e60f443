"""Rows of text as csv, markdown and LaTeX."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

_LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def to_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return records as csv, a column per key of the first."""
    return str(pd.DataFrame(list(records)).to_csv(index=False, lineterminator="\n"))


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table; bars in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    return line(header) + line(["---"] * len(header)) + "".join(line(row) for row in rows)


def to_latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a LaTeX tabular; needs the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(escape_latex(cell) for cell in cells) + r" \\"

    body = [line(header), r"\midrule", *(line(row) for row in rows)]
    columns = "l" + "r" * (len(header) - 1)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""])


def escape_latex(text: str) -> str:
    """Escape text for LaTeX; minus signs, < and > go into math mode."""
    escaped = text.translate(_LATEX_ESCAPES).replace("<", "$<$").replace(">", "$>$")
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)

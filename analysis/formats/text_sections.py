"""Sections of text and tables, which the terminal and the pages share."""

from collections.abc import Iterable
from dataclasses import dataclass

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionTable:
    """A table.

    Attributes:
        columns: headings.
        rows: cells as text.
        text: numbers of the columns beside the first that hold text, counted from 1.
    """

    columns: Row
    rows: tuple[Row, ...]
    text: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionSection:
    """One section.

    Attributes:
        anchor: its id.
        title: its heading.
        lines: sentences.
        tables: after the sentences.
        note: how to read it, for the page.
    """

    anchor: str
    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[SectionTable, ...] = ()
    note: str = ""


def make_section(
    anchor: str,
    title: str,
    lines: Iterable[str],
    columns: Row = (),
    rows: Iterable[Row] = (),
    *,
    text: tuple[int, ...] = (),
    note: str = "",
) -> InspectionSection:
    """Return a section with one table, or with none where there are no rows; see `InspectionSection` and `SectionTable`."""
    table = SectionTable(columns=columns, rows=tuple(rows), text=text)
    tables = (table,) if table.rows else ()
    return InspectionSection(anchor=anchor, title=title, lines=tuple(lines), tables=tables, note=note)

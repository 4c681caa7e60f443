"""Text, sections and tables for the terminal."""

from collections.abc import Iterable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from analysis.formats.table_formats import FittedTable
from analysis.formats.text_sections import InspectionSection, SectionTable


def print_line(text: str, console: Console, end: str = "\n") -> None:
    """Print text as it is: unwrapped, without markup or colors."""
    console.print(text, soft_wrap=True, highlight=False, markup=False, end=end)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Print each line as `print_line` does."""
    for line in lines:
        print_line(line, console)


def print_section(section: InspectionSection, console: Console) -> None:
    """Print one section."""
    console.print()
    console.print(section.title, style="bold", highlight=False, markup=False)
    print_lines(section.lines, console)
    for table in section.tables:
        console.print(build_table(table))


def build_table(table: SectionTable) -> FittedTable:
    """Return a table for the terminal, whose texts are left-aligned and numbers right-aligned."""

    def build(places: Sequence[int]) -> Table:
        built = Table(box=None, pad_edge=False, header_style="bold")
        for place in places:
            is_text = place == 0 or place + 1 in table.text
            widest = max((len(cells[place]) for cells in table.rows), default=0)
            justify: Literal["left", "right"] = "left" if is_text else "right"
            name = table.columns[place]
            built.add_column(name, justify=justify, overflow="fold", min_width=None if is_text else widest)
        for cells in table.rows:
            built.add_row(*(cells[place].replace("[", r"\[") for place in places))
        return built

    return FittedTable(build=build, dropped_first=range(len(table.columns) - 1, 0, -1))

"""Tables that appear in the terminal and in a markdown file alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table as text; the first column is flush left, the others flush right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_rich(self) -> Table:
        """Return the table for the terminal."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """Return the table, its title above it, for a markdown file."""
        lines = [
            f"### {self.title}",
            "",
            f"| {' | '.join(self.columns)} |",
            "| " + " | ".join("--:" if number else ":--" for number in range(len(self.columns))) + " |",
        ]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)]) + "\n"

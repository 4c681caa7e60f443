"""Tables and pages of measurements, in the terminal and in Markdown."""

import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

MARK = "<!-- Written by the benchmark from here on. -->"


class Table(NamedTuple):
    """A table of texts; without a title, its Markdown has no heading."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def print(self) -> None:
        """Print the table to the terminal, the first column flush left, the others flush right."""
        table = RichTable(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        Console(width=150).print(table)

    def to_markdown(self) -> str:
        """Return the heading and the table."""
        heading = [f"## {self.title}", ""] if self.title else []
        ruler = "|" + " --- |" * len(self.columns)
        rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in self.rows]
        return "\n".join([*heading, f"| {' | '.join(self.columns)} |", ruler, *rows])


def write_page(file: Path, parts: Sequence[str | Table]) -> None:
    """Write paragraphs and tables into a page, below its mark; the text above the mark, written by people, is kept."""
    head = file.read_text().partition(MARK)[0] if file.exists() else f"# {file.stem}\n\n"
    texts = [part.to_markdown() if isinstance(part, Table) else part for part in parts]
    file.write_text("\n\n".join([head + MARK, *texts]) + "\n")


def publish_simulation(
    started: float, tables: Sequence[Table], problems: Sequence[str], num_open: str, file: Path | None
) -> None:
    """Print tables and missed goals, write them to `file` if there is one, and exit with status 1 where goals were missed.

    `started` is the value of `time.perf_counter` at the start; `problems` are the missed goals; `num_open` tells how many are
    open, such as "3 of 12".
    """
    machine = f"{today()}, {describe_machine('numpy', 'scipy')}; {(time.perf_counter() - started) / 60:.1f} minutes."
    ending = f"Goals missed: {'; '.join(problems) or 'none'}. Open: {num_open}."
    for table in tables:
        table.print()
    print(ending)
    if file is not None:
        write_page(file, [machine, *tables, ending])
    raise typer.Exit(1 if problems else 0)


def today() -> str:
    """Return the date in UTC, such as "2026-11-25"."""
    return str(datetime.now(UTC).date())


def describe_machine(*packages: str, machine: str = "") -> str:
    """Return machine and versions, such as "x86_64, 2 cores, torch 2.13.0"; `machine` replaces the processor."""
    machine = machine or f"{platform.machine()}, {os.cpu_count()} cores"
    return ", ".join([machine, *(f"{name} {version(name)}" for name in packages)])

"""Inject the faults R1 to R14, print what came of them, write benchmarks/FAULTS.md: ``python -m tests.faults [R4 R8]``."""

import datetime
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from tests.faults import hostile, nodes, payloads, ports, processes, stock, storage
from tests.faults.campaign import Outcome

FAULTS_PAGE = Path(__file__).resolve().parents[2] / "benchmarks" / "FAULTS.md"
RESULTS = Path(__file__).with_name("results.json")
# Number, campaign, full count.
CAMPAIGNS: tuple[tuple[str, Callable[[Path, int], Outcome], int], ...] = (
    ("R1", processes.kill_trials, 50),
    ("R2", nodes.lose_nodes, 20),
    ("R3", nodes.orphan_trials, 10),
    ("R4", processes.kill_drivers, 30),
    ("R4 small", processes.kill_whole_studies, 4),
    ("R4 demo", lambda folder, count: processes.kill_whole_studies(folder, count, "demo"), 10),
    ("R4 stock", stock.kill_drivers, 6),
    ("R5", nodes.lose_heads, 5),
    ("R6", storage.damage_files, 4000),
    ("R6 stock", stock.damage_state, 20),
    ("R7", storage.fill_disk, 20),
    ("R8", storage.fail_object_store, 200),
    ("R9", processes.spoil_metrics, 30),
    ("R9 stock", stock.spoil_metrics, 30),
    ("R10a", processes.exhaust_memory, 10),
    ("R10b", processes.hang_trials, 10),
    ("R11", processes.tell_trials_to_end, 20),
    ("R12", hostile.feed_hostile_input, 1000),
    ("R13", lambda folder, _: payloads.place_payloads(folder), 1),
    ("R14", lambda *_: ports.probe_ports(), 1),
)


def main(
    only: Annotated[list[str] | None, typer.Argument(help="Numbers such as R4; all where none is given.")] = None,
    scale: Annotated[float, typer.Option(help="Fraction of the full counts; the page takes full ones only.")] = 1.0,
) -> None:
    """Run the campaigns one after the other; a row of the page is replaced when its campaign was run at full count."""
    console = Console()
    chosen = [c for c in CAMPAIGNS if not only or c[0].split()[0].rstrip("ab") in only or c[0] in only]
    rows = []
    for number, run, count in chosen:
        folder = Path(tempfile.mkdtemp(prefix="abstudy-faults-"))
        started = time.perf_counter()
        outcome = run(folder, max(1, round(count * scale)))
        row = Row(
            outcome=outcome, seconds=time.perf_counter() - started, date=str(datetime.datetime.now(datetime.UTC).date())
        )
        if outcome.is_met or outcome.is_stock:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.print(f"what is left of {number} is kept in {folder}", soft_wrap=True, highlight=False)
        rows.append(row)
        _print_row(console, number, row)
        if scale == 1.0:
            _keep(number, row)
    console.print(build_table(rows))
    raise typer.Exit(0 if all(row.outcome.is_met for row in rows if not row.outcome.is_stock) else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One campaign's outcome, how long it took, and the day on which it ran."""

    outcome: Outcome
    seconds: float
    date: str


def _print_row(console: Console, number: str, row: Row) -> None:
    outcome = row.outcome
    verdict = "met" if outcome.is_met else "NOT MET"
    lines = [
        f"{number}: {outcome.injected} injected, {outcome.survived} survived, {len(outcome.lost)} lost, "
        f"{verdict}, {row.seconds:.0f} s; {outcome.seen}",
        *(f"    {line}" for line in outcome.lost[:10]),
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _keep(number: str, row: Row) -> None:
    """Replace one row of the results, and the page."""
    rows = TypeAdapter(dict[str, Row])
    kept = rows.validate_json(RESULTS.read_bytes()) if RESULTS.exists() else {}
    kept[number] = row
    order = [name for name, _, _ in CAMPAIGNS]
    kept = {name: kept[name] for name in order if name in kept}
    RESULTS.write_bytes(rows.dump_json(kept, indent=1) + b"\n")
    FAULTS_PAGE.write_text(build_page(list(kept.values()), [name for name in order if name not in kept]))


def build_table(rows: list[Row]) -> Table:
    """Return the table for the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("fault", "injected", "survived", "lost", "seconds", ""):
        table.add_column(column)
    for row in rows:
        outcome = row.outcome
        cells = (
            outcome.fault,
            str(outcome.injected),
            str(outcome.survived),
            str(len(outcome.lost)),
            f"{row.seconds:.0f}",
        )
        table.add_row(*cells, "met" if outcome.is_met else "NOT MET")
    return table


def build_page(rows: list[Row], missing: list[str]) -> str:
    """Return FAULTS.md; `missing` are campaigns that were not run yet."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ray", "torch", "optuna", "pyarrow"))
    lines = [
        "# Faults injected and survived",
        "",
        "Made by `make faults`. A fault counts as survived if the study went on to its end by the rule of its row; lost is a",
        "result that a trial had finished and that was absent, changed or computed twice afterwards. The judge is a log that",
        "every trial's process writes and flushes to disk itself, not the product's records. Stock rows are Ray Tune with",
        "OptunaSearch, ASHAScheduler and `Tuner.restore`, in the same harness.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.",
        "",
        "| fault | injected | survived | lost | seen | run | minutes |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for row in rows:
        outcome = row.outcome
        seen = "; ".join([outcome.seen, *outcome.lost[:2]]).replace("|", "\\|")
        counts = f"{outcome.injected} | {outcome.survived} | {len(outcome.lost)}"
        lines.append(f"| {outcome.fault} | {counts} | {seen} | {row.date} | {row.seconds / 60:.1f} |")
    if missing:
        lines += ["", f"Not run at full count yet: {', '.join(missing)}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    typer.run(main)

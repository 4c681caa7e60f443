"""Inject the faults R1 to R14, print what came of them, write benchmarks/FAULTS.md: ``python -m benchmarks.faults [R4 R8]``."""

import datetime
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.faults import hostile, nodes, ports, processes, stock, storage
from benchmarks.faults.campaign import Outcome

FAULTS_PAGE = Path(__file__).resolve().parents[1] / "FAULTS.md"
# Number, campaign, full count.
CAMPAIGNS: tuple[tuple[str, Callable[[Path, int], Outcome], int], ...] = (
    ("R1", processes.kill_trials, 50),
    ("R2", nodes.lose_nodes, 20),
    ("R3", nodes.orphan_trials, 10),
    ("R4", processes.kill_drivers, 30),
    ("R4 small", processes.kill_whole_studies, 4),
    ("R4 demo", lambda folder, count: processes.kill_whole_studies(folder, count, "demo"), 10),
    ("R4 stock", stock.kill_drivers, 10),
    ("R5", nodes.lose_heads, 5),
    ("R6", storage.damage_files, 4000),
    ("R6 stock", stock.damage_state, 40),
    ("R7", storage.fill_disk, 20),
    ("R8", storage.fail_object_store, 200),
    ("R9", processes.spoil_metrics, 30),
    ("R9 stock", stock.spoil_metrics, 30),
    ("R10a", processes.exhaust_memory, 10),
    ("R10b", processes.hang_trials, 10),
    ("R11", processes.tell_trials_to_end, 20),
    ("R12", hostile.feed_hostile_input, 1000),
    ("R13", hostile.place_payloads, 1),
    ("R14", ports.knock_at_ports, 1),
)


def main(
    only: Annotated[list[str] | None, typer.Argument(help="Numbers such as R4; all where none is given.")] = None,
    scale: Annotated[float, typer.Option(help="Fraction of the full counts.", min=0.0, max=1.0)] = 1.0,
) -> None:
    """Run the campaigns one after the other."""
    console = Console()
    chosen = [c for c in CAMPAIGNS if not only or c[0].split()[0].rstrip("ab") in only or c[0] in only]
    outcomes = []
    for number, run, count in chosen:
        folder = Path(tempfile.mkdtemp(prefix="abstudy-faults-"))
        started = time.perf_counter()
        outcome = run(folder, max(1, round(count * scale)))
        seconds = time.perf_counter() - started
        shutil.rmtree(folder, ignore_errors=True)
        outcomes.append((outcome, seconds))
        verdict = "met" if outcome.is_met else "NOT MET"
        console.print(
            f"{number}: {outcome.injected} injected, {outcome.survived} survived, {len(outcome.lost)} lost, "
            f"{verdict}, {seconds:.0f} s; {outcome.seen}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        for line in outcome.lost[:10]:
            console.print(f"    {line}", soft_wrap=True, highlight=False, markup=False)
    console.print(build_table(outcomes))
    if not only and scale == 1.0:
        FAULTS_PAGE.write_text(build_page(outcomes))
        console.print(str(FAULTS_PAGE))
    ours = [outcome for outcome, _ in outcomes if not outcome.is_stock]
    raise typer.Exit(0 if all(outcome.is_met for outcome in ours) else 1)


def build_table(outcomes: list[tuple[Outcome, float]]) -> Table:
    """Return the table for the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("fault", "injected", "survived", "lost", "seconds", ""):
        table.add_column(column)
    for outcome, seconds in outcomes:
        cells = (outcome.fault, str(outcome.injected), str(outcome.survived), str(len(outcome.lost)), f"{seconds:.0f}")
        table.add_row(*cells, "met" if outcome.is_met else "NOT MET")
    return table


def build_page(outcomes: list[tuple[Outcome, float]]) -> str:
    """Return FAULTS.md."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ray", "torch", "optuna", "pyarrow"))
    lines = [
        "# Faults injected and survived",
        "",
        "Made by `make faults`. A fault counts as survived if the study went on to its end by the rule of its row; lost is a",
        "result that a trial had finished and that was absent, changed or computed twice afterwards. The judge is a log that",
        "every trial's process writes and flushes to disk itself, not the product's records. Stock rows are Ray Tune with",
        "OptunaSearch, ASHAScheduler and `Tuner.restore`, in the same harness.",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}.",
        "",
        "| fault | injected | survived | lost | seen |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for outcome, _ in outcomes:
        seen = "; ".join([outcome.seen, *outcome.lost[:2]])
        lines.append(f"| {outcome.fault} | {outcome.injected} | {outcome.survived} | {len(outcome.lost)} | {seen} |")
    minutes = sum(seconds for _, seconds in outcomes) / 60
    return "\n".join([*lines, "", f"The whole run took {minutes:.0f} minutes.", ""])


if __name__ == "__main__":
    typer.run(main)

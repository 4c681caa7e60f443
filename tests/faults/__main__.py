"""Inject the faults R1 to R19, print the outcomes, write benchmarks/FAULTS.md: ``python -m tests.faults [R4 R8]``."""

import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from benchmarks.pages import Table, describe_machine, today, write_page
from study.inputs.provenance import describe_code
from tests.faults import drivers, hostile, nodes, partitions, payloads, ports, processes, stock, storage
from tests.faults.campaign import Outcome

FAULTS_PAGE = Path(__file__).resolve().parents[2] / "benchmarks" / "FAULTS.md"
PACKAGES = ("ray", "torch", "optuna", "pyarrow")
RESULTS = Path(__file__).with_name("results.json")
JOB = "R18 job"
# Number, campaign, full count.
CAMPAIGNS: tuple[tuple[str, Callable[[Path, int], Outcome], int], ...] = (
    ("R1", processes.kill_trials, 50),
    ("R2", nodes.lose_nodes, 20),
    ("R2 stop", nodes.stop_nodes, 10),
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
    ("R12", hostile.feed_hostile_input, 5000),
    ("R13", lambda folder, _: payloads.place_payloads(folder), 1),
    ("R14", lambda *_: ports.probe_ports(), 1),
    ("R15", drivers.race_drivers, 70),
    ("R16", nodes.orphan_studies, 10),
    ("R17", partitions.cut_off_nodes, 5),
    ("R18 hang-up", processes.hang_up, 5),
    ("R18 set-up", processes.hang_set_ups, 5),
    ("R18 round", processes.kill_rounds, 5),
    (JOB, nodes.kill_jobs, 5),
    ("R19", storage.lose_object_store, 5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The outcome of one campaign, its duration, its date and the commit, "" where it was not kept.

    `planned` is the number of faults that it was to inject; a study that ends before all of them has not met its row.
    """

    outcome: Outcome
    seconds: float
    date: str
    commit: str = ""
    planned: int = 0

    @property
    def is_met(self) -> bool:
        """Whether all planned faults were injected and survived, and nothing was lost."""
        return self.outcome.is_met and self.outcome.injected >= self.planned

    @property
    def verdict(self) -> str:
        """For the terminal."""
        return "met" if self.is_met else "NOT MET"

    @property
    def cells(self) -> tuple[str, ...]:
        """Fault, injected, survived, lost."""
        counts = self.outcome.injected, self.outcome.survived, len(self.outcome.lost)
        return self.outcome.fault, *map(str, counts)

    @property
    def page_cells(self) -> tuple[str, ...]:
        """The cells of the page."""
        seen = "; ".join([self.outcome.seen, *self.outcome.lost[:2]])
        return *self.cells, seen, self.date, self.commit, f"{self.seconds / 60:.1f}"


def main(
    only: Annotated[list[str] | None, typer.Argument(help="Numbers such as R4; all where none is given.")] = None,
    scale: Annotated[float, typer.Option(help="Fraction of the full counts; the page takes full ones only.")] = 1.0,
) -> None:
    """Run the campaigns one after the other; a campaign of full count replaces its row of the page."""
    chosen = [c for c in CAMPAIGNS if not only or c[0].split()[0].rstrip("ab") in only or c[0] in only]
    if not ports.HAS_JOB_SERVER and (absent := [c for c in chosen if c[0] == JOB]):
        print(f"{JOB} needs abstudy[submit]: python -m tests.versions jobs")
        chosen.remove(absent[0])
    code = describe_code()
    commit = code["commit"][:7] + (" and changes" if code["diff"] else "")
    rows = []
    for number, run, count in chosen:
        folder = Path(tempfile.mkdtemp(prefix="abstudy-faults-"))
        started = time.perf_counter()
        planned = max(1, round(count * scale))
        outcome = run(folder, planned)
        seconds = time.perf_counter() - started
        row = Row(outcome=outcome, seconds=seconds, date=today(), commit=commit, planned=planned)
        if row.is_met or outcome.is_stock:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"the files of {number} are kept in {folder}")
        rows.append(row)
        _, injected, survived, lost = row.cells
        print(f"{number}: {injected} injected, {survived} survived, {lost} lost, {row.verdict}; {outcome.seen}")
        print("".join(f"    {line}\n" for line in outcome.lost[:10]), end="", flush=True)
        if scale == 1.0:
            _keep(number, row)
    columns = ("fault", "injected", "survived", "lost", "seconds", "")
    Table("", columns, [(*row.cells, f"{row.seconds:.0f}", row.verdict) for row in rows]).print()
    raise typer.Exit(0 if all(row.is_met for row in rows if not row.outcome.is_stock) else 1)


def _keep(number: str, row: Row) -> None:
    """Replace one row of the results, and the page."""
    rows = TypeAdapter(dict[str, Row])
    kept = rows.validate_json(RESULTS.read_bytes()) if RESULTS.exists() else {}
    kept[number] = row
    order = [name for name, _, _ in CAMPAIGNS]
    kept = {name: kept[name] for name in order if name in kept}
    RESULTS.write_bytes(rows.dump_json(kept, indent=1) + b"\n")
    python = f"{describe_machine()}, Python {platform.python_version()}"
    columns = ("fault", "injected", "survived", "lost", "seen", "run", "commit", "minutes")
    table = Table("", columns, [row.page_cells for row in kept.values()])
    missing = ", ".join(name for name in order if name not in kept)
    ending = [f"Not run at full count yet: {missing}."] if missing else []
    write_page(FAULTS_PAGE, [f"{describe_machine(*PACKAGES, machine=python)}.", table, *ending])


if __name__ == "__main__":
    typer.run(main)

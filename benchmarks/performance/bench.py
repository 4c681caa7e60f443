"""The ratios P1 to P19 and P21 of the performance table: ``python -m benchmarks.performance.bench [P2 P3] [--device cuda]``.

Figures are kept in results.json; RESULTS.md, or RESULTS-GPU.md, is written from all that were measured so far. With
--device cuda P2 to P5, P11, P12 and P15 are measured on the GPU. A row whose package, such as Ray, is not installed is left out.
"""

import json
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import torch
import typer
from rich.console import Console

from benchmarks.pages import Table, describe_machine, today, write_page
from benchmarks.ratios import Ratio
from search_spaces.errors import UserInputError
from trainables.processes import keep_freed_memory

RESULTS = {"cpu": Path(__file__).parents[1] / "RESULTS.md", "cuda": Path(__file__).parents[1] / "RESULTS-GPU.md"}
KEPT = Path(__file__).with_name("results.json")
COLUMNS = ("", "ratio", "goal", "median", "range", "", "", "measured")
NOT_MEASURED = ("—", "—", "not measured here")  # Median, range and verdict.


class Bench(NamedTuple):
    """A function that measures one number of the table: its module, its name, and the package that it needs."""

    module: str
    function: str
    package: str = ""

    def measure(self, device: torch.device) -> list[Ratio]:
        """Return the rows."""
        function = getattr(import_module(f"benchmarks.performance.{self.module}"), self.function)
        return cast(list[Ratio], function(device) if self.module in ON_DEVICE else function())


# Modules are imported when they are measured: P2 to P5 and P10 must work where Ray, Optuna and grad-cam are not installed.
BENCHES: dict[str, Bench] = {
    "P1": Bench("study_ratios", "measure_study", "ray"),
    "P1-long": Bench("paired_study", "measure_long_study", "ray"),
    "P2": Bench("training_ratios", "measure_reference"),
    "P3": Bench("training_ratios", "measure_augmentation"),
    "P4": Bench("training_ratios", "measure_fixed_tensor"),
    "P5": Bench("training_ratios", "measure_precision"),
    "P6": Bench("study_ratios", "measure_starts", "ray"),
    "P8": Bench("study_ratios", "measure_many_trials", "ray"),
    "P9": Bench("study_ratios", "measure_memory", "ray"),
    "P10": Bench("bootstrap_ratio", "measure_bootstrap"),
    "P11": Bench("forensics_speed", "measure_limits", "pytorch_grad_cam"),
    "P12": Bench("training_ratios", "measure_packed"),
    "P13": Bench("decoding_ratios", "measure_decoding"),
    "P14": Bench("decoding_ratios", "measure_second_start"),
    "P15": Bench("checkpoint_ratios", "measure_stand_still", "pyarrow"),
    "P16": Bench("forensics_workers", "measure_workers", "ray"),
    "P17": Bench("mapped_ratio", "measure_mapped"),
    "P18": Bench("command_times", "measure_commands", "optuna"),
    "P19": Bench("study_ratios", "measure_fixed_cost", "ray"),
    "P21": Bench("probe_ratio", "measure_probe_trial"),
}
ON_DEVICE = frozenset({"training_ratios", "forensics_speed", "checkpoint_ratios"})
ONLY_BY_NAME = frozenset({"P1-long"})


def main(
    only: Annotated[
        list[str] | None, typer.Argument(help="Numbers such as P2; all but P1-long where none is given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for P2 to P5, P11, P12 and P15.")] = "cpu",
) -> None:
    """Measure; print each row and write it to the page at once."""
    unknown = sorted(set(only or ()) - set(BENCHES))
    if unknown:
        print(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        raise typer.Exit(2)
    if device not in {"cpu", "cuda"} or (device == "cuda" and not torch.cuda.is_available()):
        print(f"--device is {device}, but torch finds no such device here", file=sys.stderr)
        raise typer.Exit(2)
    keep_freed_memory()  # As in a trial's process; the other sides run in this one, too.
    console = Console()
    missed = False
    for number in only or (name for name in BENCHES if name not in ONLY_BY_NAME):
        package = BENCHES[number].package
        if package and find_spec(package) is None:
            rows = [(number, "—", "—", *NOT_MEASURED, f"{package} is not installed")]
        else:
            started = time.perf_counter()
            try:
                ratios = BENCHES[number].measure(torch.device(device))
            except UserInputError as error:
                print(error, file=sys.stderr)
                raise typer.Exit(2) from None
            rows = [ratio.row() for ratio in ratios]
            missed |= any(ratio.verdict == "MISSED" for ratio in ratios)
            keep_rows(device, number, rows, time.perf_counter() - started)
            write_page(RESULTS[device], [tabulate_kept(device)])
        for row in rows:
            console.print("  ".join(row), soft_wrap=True, highlight=False, markup=False)
    console.print(f"{RESULTS[device]}")
    raise typer.Exit(1 if missed else 0)


def keep_rows(device: str, number: str, rows: list[tuple[str, ...]], seconds: float) -> None:
    """Replace the rows of one number on one kind of device."""
    kept = read_kept()
    gpu = torch.cuda.get_device_name() if device == "cuda" else ""
    machine = describe_machine(*(name for name in ("torch", "ray", "optuna") if find_spec(name)), machine=gpu)
    kept.setdefault(device, {})[number] = {
        "rows": [list(row) for row in rows],
        "measured": f"{today()}, {seconds / 60:.1f} min, {machine}",
    }
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def read_kept() -> dict[str, dict[str, Any]]:
    """Return the rows measured so far, by kind of device and number."""
    return cast(dict[str, dict[str, Any]], json.loads(KEPT.read_text())) if KEPT.exists() else {}


def tabulate_kept(device: str) -> Table:
    """Return the rows of RESULTS.md."""
    kept = read_kept().get(device, {})
    rows: list[tuple[str, ...]] = []
    for number in BENCHES:
        found = kept.get(number, {"rows": [[number, "—", "—", *NOT_MEASURED, ""]], "measured": ""})
        rows += [(*row, found["measured"]) for row in found["rows"]]
    searches = ("P7", "device time until the choice of a search stays good enough / that of another search")
    rows.append((*searches, "—", "—", "—", "in [SEARCH_MODELED.md](SEARCH_MODELED.md)", "", ""))
    return Table("", COLUMNS, rows)


if __name__ == "__main__":
    typer.run(main)

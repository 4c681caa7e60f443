"""The ratios P1 to P12 of the performance table: ``python -m benchmarks.performance.bench [P2 P3] [--device cuda]``.

What is measured is kept in results.json and told in RESULTS.md, or RESULTS-GPU.md, beside what was measured before. With
--device cuda P2 to P5 and P11 are measured on the GPU; they and P10 need no Ray, and where there is none the others are not
measured.
"""

import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from rich.console import Console

from benchmarks.performance import training_ratios
from benchmarks.performance.ratios import Ratio
from trainables.processes import keep_freed_memory

RESULTS = {"cpu": Path(__file__).parents[1] / "RESULTS.md", "cuda": Path(__file__).parents[1] / "RESULTS-GPU.md"}
KEPT = Path(__file__).with_name("results.json")
HEAD = ("", "what", "goal", "median", "range", "", "", "measured")
NOT_MEASURED = (
    "P12",
    "packed trials per GPU / one after the other, at most 64 px",
    ">= 1.3",
    "—",
    "—",
    "not measured here",
    "",
    "",
)


def measure_bootstrap(_: torch.device) -> list[Ratio]:
    """P10: the crossed bootstrap against a loop over scikit-learn's f1_score."""
    from benchmarks.performance.bootstrap_speed import measure_bootstrap_speed

    speed = measure_bootstrap_speed()
    return [
        Ratio(
            number="P10",
            what="a loop over f1_score / the crossed bootstrap, 5,000 draws, 10 seeds, 10,000 images",
            goal=100.0,
            is_at_most=False,
            values=(speed.ratio,),
            note=f"{speed.seconds:.2f} s, medians of five; largest difference {speed.largest_difference:.0e}",
        )
    ]


def measure_forensics(device: torch.device) -> list[Ratio]:
    """P11: audit and Grad-CAM against the model's limit. Needs grad-cam, P2 to P5 do not."""
    from benchmarks.performance.forensics_speed import measure_limits

    return measure_limits(device)


def measure_with_ray(name: str) -> list[Ratio]:
    """Measure what needs Ray, on the CPU."""
    from benchmarks.performance import search_ratio, study_ratios

    return {
        "P1": study_ratios.measure_study,
        "P1-long": study_ratios.measure_long_study,
        "P6": study_ratios.measure_starts,
        "P7": search_ratio.measure_time_to_target,
        "P8": study_ratios.measure_many_trials,
        "P9": study_ratios.measure_memory,
    }[name]()


BENCHES: dict[str, Callable[[torch.device], list[Ratio]]] = {
    "P1": lambda _: measure_with_ray("P1"),
    "P1-long": lambda _: measure_with_ray("P1-long"),
    "P2": training_ratios.measure_reference,
    "P3": training_ratios.measure_augmentation,
    "P4": training_ratios.measure_fixed_tensor,
    "P5": training_ratios.measure_precision,
    "P6": lambda _: measure_with_ray("P6"),
    "P7": lambda _: measure_with_ray("P7"),
    "P8": lambda _: measure_with_ray("P8"),
    "P9": lambda _: measure_with_ray("P9"),
    "P10": measure_bootstrap,
    "P11": measure_forensics,
}
ONLY_BY_NAME = frozenset({"P1-long"})
NEED_RAY = frozenset({"P1", "P1-long", "P6", "P7", "P8", "P9"})


def main(
    only: Annotated[
        list[str] | None, typer.Argument(help="Numbers such as P2; all but P1-long where none is given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for P2 to P5 and P11.")] = "cpu",
) -> None:
    """Measure; print a row and write it into the page as soon as it is there."""
    unknown = sorted(set(only or ()) - set(BENCHES))
    if unknown:
        print(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        raise typer.Exit(2)
    if device not in {"cpu", "cuda"} or (device == "cuda" and not torch.cuda.is_available()):
        print(f"--device is {device}, but torch finds no such device here", file=sys.stderr)
        raise typer.Exit(2)
    keep_freed_memory()  # as in a trial's process; the other sides run in this one, too
    console = Console()
    missed = False
    for number in only or (name for name in BENCHES if name not in ONLY_BY_NAME):
        if number in NEED_RAY and find_spec("ray") is None:
            rows = [(number, "needs Ray", "—", "—", "—", "not measured here", "Ray is not installed")]
        else:
            started = time.perf_counter()
            ratios = BENCHES[number](torch.device(device))
            rows = [ratio.row() for ratio in ratios]
            missed |= not all(ratio.is_met for ratio in ratios)
            keep_rows(device, number, rows, time.perf_counter() - started)
            RESULTS[device].write_text(build_page(device))
        for row in rows:
            console.print("  ".join(row), soft_wrap=True, highlight=False, markup=False)
    console.print(f"{RESULTS[device]}")
    raise typer.Exit(1 if missed else 0)


def keep_rows(device: str, number: str, rows: list[tuple[str, ...]], seconds: float) -> None:
    """Replace what is kept of one number on one kind of device."""
    kept = read_kept()
    today = datetime.datetime.now(datetime.UTC).date()
    kept.setdefault(device, {})[number] = {
        "rows": [list(row) for row in rows],
        "measured": f"{today}, {seconds / 60:.1f} min, {describe_machine(device)}",
    }
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def read_kept() -> dict[str, dict[str, Any]]:
    """Return what was measured, by kind of device and number."""
    return cast(dict[str, dict[str, Any]], json.loads(KEPT.read_text())) if KEPT.exists() else {}


def describe_machine(device: str) -> str:
    """Return the machine and the versions that a figure belongs to."""
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    packages = [name for name in ("torch", "ray", "optuna") if find_spec(name)]
    return f"{machine}, " + ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def build_page(device: str) -> str:
    """Return RESULTS.md."""
    kept = read_kept().get(device, {})
    rows: list[tuple[str, ...]] = []
    for number in BENCHES:
        missing = {"rows": [[number, *("—",) * 4, "not measured here", ""]], "measured": ""}
        found = kept.get(number, missing)
        rows += [(*row, found["measured"]) for row in found["rows"]]
    lines = [
        "# Performance, measured side by side",
        "",
        "Made by `make bench`, or a number at a time by `make bench-P2` and so on; P1-long, of 25 minutes, by its name only.",
        "Each figure is a ratio with both sides in one run, in turn; medians and ranges of repetitions.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|" + " --- |" * len(HEAD),
        *(f"| {' | '.join(row)} |" for row in [*rows, NOT_MEASURED]),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)

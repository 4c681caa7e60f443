"""The ratios P1 to P12 of the performance table: ``python -m benchmarks.bench [P2 P3]``; all of them write RESULTS.md.

P2 to P5, P10 and P11 need no Ray; P2 to P5 use a GPU where torch finds one, P10 and P11 are measured on the CPU.
"""

import datetime
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks import forensics_speed, training_ratios
from benchmarks.ratios import Ratio

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = ("", "what", "goal", "median", "range", "", "")
NOT_MEASURED = (
    "P12",
    "packed trials per GPU / one after the other, at most 64 px",
    ">= 1.3",
    "—",
    "—",
    "not measured here",
)


def measure_bootstrap() -> list[Ratio]:
    """P10: the crossed bootstrap against a loop over scikit-learn's f1_score."""
    from benchmarks.bootstrap_speed import measure_bootstrap_speed

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


def measure_with_ray(name: str) -> list[Ratio]:
    """Measure what needs Ray, which a GPU machine may not have."""
    from benchmarks import search_ratio, study_ratios

    return {
        "P1": study_ratios.measure_study,
        "P6": study_ratios.measure_starts,
        "P7": search_ratio.measure_time_to_target,
        "P8": study_ratios.measure_many_trials,
        "P9": study_ratios.measure_memory,
    }[name]()


BENCHES: dict[str, Callable[[], list[Ratio]]] = {
    "P1": lambda: measure_with_ray("P1"),
    "P2": training_ratios.measure_reference,
    "P3": training_ratios.measure_augmentation,
    "P4": training_ratios.measure_fixed_tensor,
    "P5": training_ratios.measure_precision,
    "P6": lambda: measure_with_ray("P6"),
    "P7": lambda: measure_with_ray("P7"),
    "P8": lambda: measure_with_ray("P8"),
    "P9": lambda: measure_with_ray("P9"),
    "P10": measure_bootstrap,
    "P11": forensics_speed.measure_limits,
}


def main(
    only: Annotated[list[str] | None, typer.Argument(help="Numbers such as P2; all where none is given.")] = None,
) -> None:
    """Measure, print a row as soon as it is there, and write RESULTS.md where all were measured."""
    unknown = sorted(set(only or ()) - set(BENCHES))
    if unknown:
        print(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        raise typer.Exit(2)
    console = Console()
    started = time.perf_counter()
    rows = []
    for number in only or BENCHES:
        for ratio in BENCHES[number]():
            console.print("  ".join(ratio.row()), soft_wrap=True, highlight=False, markup=False)
            rows.append(ratio)
    if not only:
        RESULTS.write_text(build_page(rows, time.perf_counter() - started))
    raise typer.Exit(0 if all(row.is_met for row in rows) else 1)


def build_page(rows: list[Ratio], seconds: float) -> str:
    """Return RESULTS.md."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, no GPU"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision", "ray", "optuna"))
    lines = [
        "# Performance, measured side by side",
        "",
        "Made by `make bench`. Each figure is a ratio with both sides in one run, in turn; medians and ranges of repetitions.",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {platform.machine()}, {device}, {versions}; {seconds / 60:.1f} minutes.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|" + " --- |" * len(HEAD),
        *(f"| {' | '.join(row.row())} |" for row in rows),
        f"| {' | '.join((*NOT_MEASURED, ''))} |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)

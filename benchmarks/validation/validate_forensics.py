"""The error rates of the forensics where the truth is known; prints their tables and writes benchmarks/FORENSICS.md.

A validation that was stopped resumes: outcomes of finished worlds are stored.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pages import publish_simulation
from benchmarks.validation.audit_tables import WAVE_WEIGHTS, tabulate_audits
from benchmarks.validation.cause_tables import CAUSE_WEIGHTS, tabulate_causes, tabulate_null_studies
from benchmarks.validation.cluster_tables import tabulate_clusters
from benchmarks.validation.goals import count_open, list_problems, tabulate_goals
from benchmarks.validation.planted_maps import tabulate_maps
from benchmarks.validation.worlds import DEFAULT_FOLDER, WorldCache

PAGE = Path(__file__).parents[1] / "FORENSICS.md"


def main(
    whole: Annotated[bool, typer.Option("--whole", help="All worlds, up to four hours, instead of a sample.")] = False,
    folder: Annotated[
        Path, typer.Option(help="Outcomes of finished worlds; a validation that was stopped resumes.")
    ] = (DEFAULT_FOLDER),
) -> None:
    """Run every simulation and print the tables; with --whole, write the page."""
    started = time.perf_counter()
    cache = WorldCache(folder=folder)
    # Each takes minutes on one core.
    cache.make_files({**CAUSE_WEIGHTS, **WAVE_WEIGHTS}, ".pt")
    sections = [
        tabulate_clusters(cache),
        tabulate_causes(cache, whole=whole),
        tabulate_null_studies(cache, whole=whole),
        tabulate_audits(cache, whole=whole),
        tabulate_maps(cache, whole=whole),
    ]
    tables = [table for found, _ in sections for table in found]
    goals = [goal for _, found in sections for goal in found]
    tables = [tabulate_goals(goals), *tables]
    publish_simulation(started, tables, list_problems(goals), count_open(goals), PAGE if whole else None)


if __name__ == "__main__":
    typer.run(main)

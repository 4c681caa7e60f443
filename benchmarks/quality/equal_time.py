"""P20, quality at equal time: ``python -m benchmarks.quality.equal_time``; about three hours, and a stopped run resumes.

What was measured lies in ``benchmarks/quality/measured/``, with its predictions, and is committed: a run goes on where another
one stopped, of another machine too. Delete a cell's two files to measure it again.

A study and three recipes get the same images, weights and minutes. Each hands over one model, which is judged on images that no
side was given.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.quality.cells import Cell, measure_cells
from benchmarks.quality.drawn_sets import SETS, draw_set, find_data
from benchmarks.quality.quality_page import BEFORE, PLAN, RECIPES, STUDY, write_results
from benchmarks.quality.recipes import Material, run_fastai, run_probe, run_tutorial
from benchmarks.quality.study_side import ROOT, THIS_STUDY, run_study
from search_spaces.errors import UserInputError

PAGE, MEASURED = Path(__file__).parents[1] / "QUALITY.md", Path(__file__).with_name("measured")
WORK = Path(".venv/cache/equal_time")
RUNNERS = dict(zip(RECIPES, (run_probe, run_tutorial, run_fastai), strict=True))
PLAN_BEFORE = [("refuse-600", 0, 15.0), ("cifar10-2000", 0, 15.0)]
PRODUCT, OWN = ("study", "analysis", "trainables", "search_spaces"), ("benchmarks/quality/recipes.py",)


def main(
    side: Annotated[list[str] | None, typer.Option(help=f"{', '.join((STUDY, *RECIPES))}. Default: all.")] = None,
    images: Annotated[list[str] | None, typer.Option(help=f"{', '.join(SETS)}. Default: all.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="To try the first split in other minutes; writes no page.")
    ] = None,
    study_command: Annotated[str, typer.Option(help="`study` of an earlier commit, for two cells of 15 min.")] = "",
    study_commit: Annotated[str, typer.Option(help="The commit of --study-command.")] = "",
) -> None:
    """Measure the cells that have no file in benchmarks/quality/measured, and write QUALITY.md from those that have."""
    if unknown := ({*(side or ())} - {STUDY, *RECIPES}) | ({*(images or ())} - {*SETS}):
        raise typer.BadParameter(f"there is no {', '.join(unknown)}; --help lists sides and sets")
    if bool(study_command) != bool(study_commit):
        raise typer.BadParameter("--study-command and --study-commit need each other; give both, or neither")
    plan = PLAN_BEFORE if study_command else PLAN
    if minutes is not None:
        plan = [(name, 0, minutes) for name in SETS]
    data = find_data()
    results = MEASURED if minutes is None else WORK.absolute() / "results"
    for name, split in dict.fromkeys(place[:2] for place in plan if not images or place[0] in images):
        limits = [place[2] for place in plan if place[:2] == (name, split)]
        for one in [BEFORE] if study_command else side or [STUDY, *RECIPES]:
            commit = study_commit or find_commit(*(OWN if one in RECIPES else PRODUCT))
            cells = [Cell(one, name, split, limit, commit) for limit in limits]
            measure_side(cells, data, WORK.absolute(), results, study_command or THIS_STUDY)
    if minutes is None:
        write_results(results, PAGE)


def measure_side(cells: Sequence[Cell], data: Path, work: Path, results: Path, command: str) -> None:
    """Measure those cells of a side on one split that have no file yet: a recipe once for all, a study once for each."""
    missing = [cell for cell in cells if not cell.locate(results).exists()]
    given, judging = draw_set(cells[0].images, cells[0].split, data, work / "sets")
    material = Material(given, data / "weights", cells[0].split)
    if missing and cells[0].side in RUNNERS:
        side = RUNNERS[cells[0].side](material, min(cell.minutes for cell in missing))
        measure_cells(side, missing, judging, results)
    elif missing:
        for cell in missing:
            folder = cell.locate(work / "studies").with_suffix("")
            measure_cells(run_study(material, cell.minutes, folder, command), [cell], judging, results)


def find_commit(*paths: str) -> str:
    """Return the last commit that changed the paths; with "+" if they have changed since."""
    git = ["git", "-C", str(ROOT)]
    last = subprocess.check_output([*git, "log", "-1", "--format=%h", "--", *paths], text=True).strip()
    return last + ("+" if subprocess.check_output([*git, "status", "--porcelain", "--", *paths]) else "")


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserInputError as error:
        sys.exit(f"error: {error}")

"""The page of P20: its goals, judged where all their cells are measured, and all cells."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.pages import Table, describe_machine, write_page
from benchmarks.quality.cells import compute_difference, read_cells
from benchmarks.quality.drawn_sets import SETS

STUDY, RECIPES, BEFORE = "study", ("probe", "tutorial", "fastai"), "study before"
# Set, split and minutes: two splits at 5 minutes, one at 15.
PLAN = [(name, split, minutes) for name in SETS for split, minutes in ((0, 5.0), (0, 15.0), (1, 5.0))]
PLACE = ["images", "split", "minutes"]
COLUMNS = (
    "set",
    "split",
    "minutes",
    "side",
    "macro-F1",
    "seconds",
    "study minus side (pp)",
    "first looked at",
    "commit",
)


def write_results(results: Path, page: Path) -> None:
    """Write the page from the cells that are stored; of a cell that was measured at several commits, the last."""
    stored = [cell for cell in read_cells(results) if cell[1:4] in PLAN]
    latest, first = ({(*c[1:4], c.side): c for c in order} for order in (stored, reversed(stored)))
    rows, found = [], []
    for key in [(*place, side) for place in PLAN for side in (STUDY, *RECIPES, BEFORE) if (*place, side) in latest]:
        cell, study = latest[key], latest.get((*key[:3], STUDY))
        pair = cell.side != STUDY and study is not None and study.predictions and cell.predictions
        difference = compute_difference(study, cell, results) if pair else None
        score = f"{cell.macro_f1:.3f}" if cell.predictions else "missed"
        minus = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*difference) if difference else "—"
        rows.append(
            [
                key[0],
                *(f"{part:g}" for part in key[1:3]),
                cell.side,
                score,
                f"{cell.seconds:.0f}",
                minus,
                first[key].looked_at[:10],
                cell.commit,
            ]
        )
        found.append([*key, cell.macro_f1, difference[2] if difference else None])
    frame = pd.DataFrame(found, columns=[*PLACE, "side", "score", "high"])
    tables = [Table("Goals", ("goal", "measured", ""), judge_goals(frame)), Table("Cells", COLUMNS, rows)]
    for table in tables:
        table.print()
    write_page(page, [f"{describe_machine('torch', 'torchvision', 'scikit-learn')}.", *tables])


def judge_goals(cells: pd.DataFrame) -> list[list[str]]:
    """Return goal, figure and verdict of each goal. Where the study missed a cell, its macro-F1 counts as 0.

    Args:
        cells: Set, split, minutes and side; macro-F1, none where the side missed the cell; and, where study and side have one,
            the upper end of the interval of their difference (pp).
    """
    missed = cells["score"].isna() & (cells["side"] == STUDY)
    filled = cells.assign(score=cells["score"].astype(float).mask(missed, 0.0))
    score = filled.set_index([*PLACE, "side"])["score"].unstack().reindex(columns=[STUDY, *RECIPES])
    minus = 100 * score.rsub(score[STUDY], axis=0)
    goals = [
        (f"study minus {side}, on average: at least -1 pp", minus[side].dropna(), -1.0, [side]) for side in RECIPES
    ]
    pays = score[["tutorial", "fastai"]].max(axis=1) >= score["probe"] + 0.03
    goal = "study minus probe, on average where tutorial or fastai exceeds it by 3 pp: above 0 pp"
    goals.append((goal, minus["probe"][pays].dropna(), np.nextafter(0, 1), RECIPES))
    rows = []
    for goal, found, least, sides in goals:
        measured = (
            f"{found.mean():+.1f} pp over {len(found)} cell{'s' if len(found) > 1 else ''}" if len(found) else "no cell"
        )
        rows.append([goal, measured, judge(not len(found) or found.mean() >= least, cells, sides)])
    worse = int((cells["high"][cells["side"].isin(RECIPES)].astype(float) < -4).sum())
    rows.append(["cells with a difference surely below -4 pp: none", str(worse), judge(not worse, cells, RECIPES)])
    goal = "cells in which the study takes over a tenth more than its minutes: none"
    return [*rows, [goal, str(missed.sum()), judge(not missed.any(), cells, ())]]


def judge(is_met: bool, cells: pd.DataFrame, recipes: Sequence[str]) -> str:
    """Return the verdict of a goal, which is open as long as cells of the study or of the recipes are not measured."""
    done, planned = int(cells["side"].isin([STUDY, *recipes]).sum()), len(PLAN) * (1 + len(recipes))
    return f"open: {done} of {planned} cells" if done < planned else "met" if is_met else "MISSED"

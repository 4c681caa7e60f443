"""What the simulations of `validate_statistics` and `validate_forensics` share: repeating on all cores, and their pages."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed

Table = tuple[str, list[str], list[list[str]]]


def repeat(function: Callable[[Any, int], Any], world: object, count: int) -> list[Any]:
    """Return what `function` gives for `world` and each number from 0 to `count` - 1, in order, computed on all cores."""
    blocks = np.array_split(np.arange(count), 2 * (os.cpu_count() or 1))
    parts = Parallel(n_jobs=os.cpu_count())(delayed(_run_block)(function, world, block.tolist()) for block in blocks)
    return [value for part in parts for value in part]


def _run_block(function: Callable[[Any, int], Any], world: object, numbers: list[int]) -> list[Any]:
    return [function(world, number) for number in numbers]


def build_page(head: Sequence[str], tables: Sequence[Table], problems: Sequence[str]) -> str:
    """Return a page of markdown: the lines of `head`, each table under its title, and the goals that were missed."""
    lines = [*head, ""]
    for title, columns, rows in tables:
        lines += [f"## {title}", "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    lines += ["Goals missed: " + ("none." if not problems else "; ".join(problems) + "."), ""]
    return "\n".join(lines)

"""Simulations are repeated on all cores."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import Parallel, delayed


def repeat(function: Callable[[Any, int], Any], world: object, count: int) -> list[Any]:
    """Return the results of `function` for `world` and each number from 0 to `count` - 1, in order, computed on all cores."""
    blocks = np.array_split(np.arange(count), 2 * (os.cpu_count() or 1))
    parts = Parallel(n_jobs=os.cpu_count())(delayed(_run_block)(function, world, block.tolist()) for block in blocks)
    return [value for part in parts for value in part]


def _run_block(function: Callable[[Any, int], Any], world: object, numbers: list[int]) -> list[Any]:
    return [function(world, number) for number in numbers]

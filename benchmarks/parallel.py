"""The same function for many inputs, on all cores."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from rich.progress import track


def map_in_processes(
    function: Callable[[Any], Any],
    inputs: Sequence[Any],
    *,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
    num_processes: int | None = None,
) -> list[Any]:
    """Return the results in the order of the inputs, with a progress bar.

    Args:
        function: at the top level of a module, as spawned processes find it by name.
        inputs: taken one by one, so that the long ones are better put first.
        initializer, initargs: called once in each process.
        num_processes: as many as there are cores where it is None.
    """
    pool = ProcessPoolExecutor(
        num_processes or os.cpu_count(), mp_context=get_context("spawn"), initializer=initializer, initargs=initargs
    )
    with pool:
        return list(track(pool.map(function, inputs), function.__name__, total=len(inputs)))

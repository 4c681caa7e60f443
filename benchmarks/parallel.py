"""The same function for many arguments, on all cores that this process may use (`taskset -c 0` leaves one)."""

from collections.abc import Callable, Iterable
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config


def run_parallel(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return the results of `function` for each tuple of arguments, in order; each process computes with one thread."""
    with parallel_config("loky", inner_max_num_threads=1):
        return list(Parallel(n_jobs=cpu_count())(delayed(function)(*arguments) for arguments in calls))


def repeat(function: Callable[[Any, int], Any], world: object, count: int) -> list[Any]:
    """Return the results of `function` for `world` and each number from 0 to `count` - 1, in order."""
    return run_parallel(function, ((world, number) for number in range(count)))

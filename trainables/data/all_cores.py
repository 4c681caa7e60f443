"""Threads on all cores, with a progress bar."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

NUM_ITEMS_PER_TASK = 16
NUM_TASKS_AHEAD = 4  # Per core.
SECONDS_WITHOUT_PROGRESS_BAR = 1.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_all_cores(
    function: Callable[[int, Item], Result], items: Iterable[Item], num_items: int, title: str
) -> Iterator[Result]:
    """Yield function(position, item) for each item, in order.

    Args:
        function: Called in threads; worth it for functions that release the interpreter's lock, such as those of NumPy, Pillow
            and hashlib.
        items: Read a few tasks ahead, by the calling thread.
        num_items: Number of items, for the progress bar.
        title: Words before the bar, which appears on a terminal's stderr after a second.
    """
    # Not at the top: commands that read a spec import this module, and joblib takes a tenth of a second.
    from joblib import cpu_count

    def run(chunk: list[tuple[int, Item]]) -> list[Result]:
        return [function(position, item) for position, item in chunk]

    numbered = enumerate(items)
    num_workers = cpu_count()
    waiting: deque[Future[list[Result]]] = deque()
    pool = ThreadPoolExecutor(num_workers)
    with _show_progress(title, num_items) as advance:

        def take() -> list[Result]:
            results = waiting.popleft().result()
            advance(len(results))
            return results

        try:
            while chunk := list(islice(numbered, NUM_ITEMS_PER_TASK)):
                waiting.append(pool.submit(run, chunk))
                if len(waiting) > NUM_TASKS_AHEAD * num_workers:
                    yield from take()
            while waiting:
                yield from take()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _show_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts finished items; a bar appears on a terminal's stderr after a second."""
    console = Console(stderr=True)
    started = time.monotonic()
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True)
    task = bar.add_task(title, total=total)

    def advance(count: int) -> None:
        bar.advance(task, count)
        if (
            console.is_terminal
            and not bar.live.is_started
            and time.monotonic() - started > SECONDS_WITHOUT_PROGRESS_BAR
        ):
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()

"""Run seeds on all cores: `python -m tests.simulation --seeds 10000`; a failing one prints itself and its trace."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from joblib import cpu_count

from tests.simulation.mutants import MUTANTS, run_mutant
from tests.simulation.world import Outcome


def main() -> int:
    """Return the exit status: 1 if a seed failed, or with --mutant if none did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=cpu_count(), help="processes that run seeds at once")
    parser.add_argument(
        "--mutant", choices=[*MUTANTS, "all"], help="break the product in this way, and stop where it is found"
    )
    parser.add_argument("--trace", action="store_true", help="print the whole trace of each seed")
    given = parser.parse_args()
    if given.mutant:
        names = [*MUTANTS] if given.mutant == "all" else [given.mutant]
        return int(sum(not _hunt(name, given.first, given.seeds) for name in names) > 0)
    started, failed, steps, faults, fewest = time.perf_counter(), 0, 0, Counter(), None
    for outcome in _run(range(given.first, given.first + given.seeds), "", given.jobs):
        steps, faults = steps + outcome.steps, faults + outcome.faults
        own = (outcome.steps, sum(outcome.faults.values()))
        fewest = own if fewest is None else (min(fewest[0], own[0]), min(fewest[1], own[1]))
        if outcome.problem or given.trace:
            failed += bool(outcome.problem)
            print(outcome.describe(len(outcome.trace) if given.trace else 60), flush=True)
    seconds = time.perf_counter() - started
    print(
        f"{given.seeds} seeds, {failed} failed, {given.seeds / seconds:.1f} a second, {steps / given.seeds:.0f} steps each;"
    )
    print(f"fewest steps and faults {fewest}; faults {dict(faults.most_common())}")
    return int(failed > 0)


def _run(seeds: range, mutant: str, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(partial(run_mutant, mutant), seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(run_mutant, mutant), seeds, chunksize=4)


def _hunt(name: str, first: int, number: int) -> bool:
    for outcome in _run(range(first, first + number), name, 1):
        if outcome.problem:
            lines = outcome.problem.strip().splitlines()
            print(f"{name}: found at seed {outcome.seed}, {outcome.seed - first + 1} seeds: {lines[-1]}", flush=True)
            return True
    print(f"{name}: not found in {number} seeds", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())

"""P1-long: a search and its trainings as bare loops at the same time, each on a core of its own. With Ray, on Linux."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from benchmarks.performance.study_ratios import (
    MAX_EPOCHS,
    NUM_TRIALS,
    explain_seconds,
    launch_search,
    load_data,
    read_search,
    train_one,
)
from benchmarks.ratios import Ratio, measure_seconds
from search_spaces.errors import UserInputError
from trainables.records.record import TrialRecord

NUM_IMAGES = 25_000
# Each core has the search once.
NUM_TRIALS_EACH = NUM_TRIALS // 2
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTimes:
    """A search and its trainings as bare loops, which ran at the same time.

    Attributes:
        study: Wall seconds of the search, with the start of Ray and all its files.
        bare: Wall seconds of the trainings as bare loops, without loading the images and waiting for the next configuration.
        bare_epochs: Seconds of each of their epochs.
        records: Of the search.
    """

    study: float
    bare: float
    bare_epochs: tuple[float, ...]
    records: Sequence[TrialRecord]

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch of the search."""
        return [epoch.train_seconds for record in self.records for epoch in record.epochs]

    def describe(self) -> str:
        """Return the figures that the ratio is made of."""
        epochs, bare_epochs = statistics.median(self.epochs), statistics.median(self.bare_epochs)
        sides = f"study {self.study:.0f} s, bare loops {self.bare:.0f} s"
        # One trial runs at a time.
        explanation = explain_seconds(self.records, self.study, 1)
        return f"{sides}; an epoch took {epochs:.2f} s in the study, {bare_epochs:.2f} s in bare loops. {explanation}"


def measure_long_study() -> list[Ratio]:
    """P1 with ten times the images, where the start of Ray and of its processes weighs less; 20 to 45 minutes on two cores.

    One side after the other measures the machine, where other users of a host make the speed of its cores drift by more than the
    goal within minutes. So both sides run at once, with one trial at a time and a core each, and then change the cores. What Ray
    and the driver do counts against the search's core.
    """
    one, other = choose_cores()
    found = [run_pair(study, bare, NUM_IMAGES, NUM_TRIALS_EACH) for study, bare in ((one, other), (other, one))]
    epoch = statistics.median(second for pair in found for second in pair.epochs)
    name = f"wall time of a search of {NUM_TRIALS_EACH} trials of {MAX_EPOCHS} epochs, {epoch:.1f} s each / the same trainings "
    name += "as bare loops; at the same time, one core each, then with changed cores"
    ratios = tuple(pair.study / pair.bare for pair in found)
    return [Ratio("P1-long", name, "<= 1.03", ratios, "; ".join(pair.describe() for pair in found))]


def choose_cores() -> tuple[int, int]:
    """Return two cores that this process may use.

    Raises:
        UserInputError: If it may use one only, or the system cannot say.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise UserInputError("P1-long keeps each side on a core of its own, which needs Linux; measure P1 here")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UserInputError(
            "P1-long keeps each side on a core of its own, but this process may use one; measure P1 here"
        )
    return cores[0], cores[1]


def run_pair(study_core: int, bare_core: int, num_images: int, num_trials: int) -> PairedTimes:
    """Run a search on one core and, as it records them, its trainings as bare loops on the other.

    Raises:
        subprocess.CalledProcessError: If the search fails.
    """
    overrides = (f"search.num_trials={num_trials}", "resources.max_concurrent=1")
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    bare, bare_epochs = 0.0, list[float]()
    load_data(num_images)
    with (
        tempfile.TemporaryDirectory(prefix="bench-pair-") as folder,
        # The search's processes inherit the core of the thread that starts them.
        ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {study_core})) as pool,
    ):
        search = pool.submit(launch_search, num_images, folder, overrides)
        os.sched_setaffinity(0, {bare_core})
        # As a trial that holds one core; two threads on one core would wait for each other.
        torch.set_num_threads(1)
        try:
            for record in follow_search(folder, search, num_trials):
                config = record.config
                bare += measure_seconds(lambda config=config: bare_epochs.extend(train_one(config, num_images)))
        finally:
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)
        return PairedTimes(
            study=search.result(), bare=bare, bare_epochs=tuple(bare_epochs), records=read_search(folder)
        )


def follow_search(folder: str, search: Future[float], num_trials: int) -> Iterator[TrialRecord]:
    """Yield each trial of a running search once it is recorded; wait for the next one.

    Raises:
        RuntimeError: If the search has ended with fewer trials.
    """
    seen: set[str] = set()
    while len(seen) < num_trials:
        has_ended = search.done()
        new = [record for record in read_search(folder) if record.trial_id not in seen]
        if not new and has_ended:
            search.result()
            raise RuntimeError(f"the search has ended after {len(seen)} of {num_trials} trials")
        for record in new:
            seen.add(record.trial_id)
            yield record
        if not new:
            time.sleep(POLL_SECONDS)

"""Cells: what a side scores on a set, a split and a number of minutes; each in a JSON file, with its predictions beside it."""

import functools
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from analysis.comparison.other_intervals import draw_image_weights
from analysis.statistics.metrics import compute_macro_f1, compute_weighted_macro_f1
from benchmarks.quality.recipes import ImageFolder, Predictor
from benchmarks.quality.study_side import TOLERANCE
from trainables.seeds import derive_seed, numpy_generator

NUM_DRAWS = 2000


class Cell(NamedTuple):
    """What was measured of a side; a missed cell has no score, and the seconds until the side ended or was stopped.

    `commit` is the last one that changed the side, `predictions` the SHA-256 of the predicted labels (int64), and `looked_at` the
    time (UTC) at which the score was computed.
    """

    side: str
    images: str
    split: int
    minutes: float
    commit: str
    seconds: float = 0.0
    macro_f1: float | None = None
    predictions: str = ""
    looked_at: str = ""

    def locate(self, results: Path) -> Path:
        """Return the JSON file."""
        return (
            results / f"{self.images}-{self.split}-{self.minutes:g}min-{self.side.replace(' ', '-')}-{self.commit}.json"
        )


def collect(side: Iterator[Predictor], minutes: Sequence[float]) -> tuple[dict[float, tuple[float, Predictor]], float]:
    """Run a side; return seconds and predictor of what it had handed over after each number of minutes, and its seconds in all.

    It is what the side yields last within the minutes, or else first within TOLERANCE times as many; otherwise there is none.
    """
    found: dict[float, tuple[float, Predictor]] = {}
    started, seconds = time.perf_counter(), 0.0
    while seconds < 60 * max(minutes) and (predictor := next(side, None)) is not None:
        seconds = time.perf_counter() - started
        for limit in minutes:
            if seconds <= 60 * limit or (limit not in found and seconds <= TOLERANCE * 60 * limit):
                found[limit] = seconds, predictor
    return found, time.perf_counter() - started


def measure_cells(side: Iterator[Predictor], cells: Sequence[Cell], judging: Path, results: Path) -> None:
    """Run a side once for cells that differ in their minutes; predict outside the clock, and write the cells.

    Args:
        side: From its start.
        cells: Without what is measured.
        judging: Folder of the images that no side was given.
        results: Folder for the cells.
    """
    labels = np.array(ImageFolder(judging).targets)
    results.mkdir(parents=True, exist_ok=True)
    predict = functools.cache(lambda predictor: predictor(judging).astype(np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(cells[0].split, "equal-time"))
        found, seconds = collect(side, [cell.minutes for cell in cells])
        for cell in cells:
            values = {"seconds": seconds, "looked_at": datetime.now(UTC).isoformat(timespec="seconds")}
            if cell.minutes in found:
                values["seconds"], predictor = found[cell.minutes]
                predicted = predict(predictor)
                values["macro_f1"] = float(compute_macro_f1(labels, predicted, labels.max() + 1))
                values["predictions"] = hashlib.sha256(predicted.tobytes()).hexdigest()
                np.savez_compressed(cell.locate(results).with_suffix(".npz"), labels=labels, predicted=predicted)
            cell.locate(results).write_text(json.dumps(cell._asdict() | values, indent=1) + "\n")


def read_cells(results: Path) -> list[Cell]:
    """Return the stored cells, the earliest first."""
    return sorted((Cell(**json.loads(path.read_text())) for path in results.glob("*.json")), key=lambda c: c.looked_at)


def compute_difference(treatment: Cell, control: Cell, results: Path) -> tuple[float, float, float]:
    """Return the difference of macro-F1 (pp) and its 95 % interval over judging images: a paired bootstrap within classes."""
    stored = [np.load(cell.locate(results).with_suffix(".npz")) for cell in (treatment, control)]
    labels, both = stored[0]["labels"], np.stack([one["predicted"] for one in stored])
    weights = draw_image_weights(labels, NUM_DRAWS, numpy_generator(0, "equal-time-images"))
    drawn = compute_weighted_macro_f1(labels, both, weights, labels.max() + 1)
    low, high = np.quantile(100 * (drawn[:, 0] - drawn[:, 1]), [0.025, 0.975])
    return 100 * (treatment.macro_f1 - control.macro_f1), float(low), float(high)

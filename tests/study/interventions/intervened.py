"""Studies of interventions without Ray and training: simulated curves, real records, and planted confusions."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from rich.console import Console

from analysis.confusions import rates as directed_confusions
from analysis.formats.figures import figure_to_png
from analysis.interventions.render import plot_interventions
from study.cluster.process_workers import ProcessWorkers
from study.confirmation.plan import note_test_read
from study.confirmation.trained_models import TEST
from study.inputs.preparation import Prepared, load_split_images, prepare
from study.inputs.provenance import make_passport
from study.open_study import OpenStudy
from study.results import figure_files
from study.scheduling.director import Director
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from study.stages import launching, stage, training
from study.state import paths
from study.state.record_book import RecordBook, open_trial_files
from study.state.sealed_files import write_sealed_json, write_sealed_toml
from tests.study.searched import analyze_here
from tests.study.simulated import drive, learning_curve
from tests.study.small_study import small_study
from trainables.data.images import ImageSet
from trainables.data.splits import Splits
from trainables.records.record import TrialRecord
from trainables.seeds import numpy_generator
from trainables.storage.store import Store
from trainables.training.predictions import Predictions

# Share of the images of class "three" that an arm predicts as "eight".
RATES: Mapping[str, float] = {
    **{"all": 0.4, "control": 0.4, "weighted_loss": 0.1, "cutmix": 0.4},
    # Runs of a factorial design of these two, in which they help more together.
    **{"run-1": 0.4, "run-a": 0.2, "run-b": 0.4, "run-ab": 0.05},
}
CONFUSED = (3, 8)
OTHER_ERRORS = 0.05

FRACTIONS = {"search_fraction": 0.1, "confirm_fraction": 0.1, "test_fraction": 0.7}
SPEC = small_study(
    "parent",
    seed=5,
    data={"source": "digits", "num_images": None, **FRACTIONS},
    train={"image_size": 32, "batch_size": 64},
    search={
        **{"factor": None, "allocation": "pooled", "max_epochs": 2, "ranges": {"momentum": [0.8, 0.95]}},
        "fixed": {"backbone": "resnet18", "class_weighting": "none", "cutmix_probability": 0.0},
    },
    confirm={"looks": [3, 5], "margin": 0.01},
)


def predict(record: TrialRecord, prepared: Prepared, rates: Mapping[str, float] = RATES) -> Predictions:
    """Return test predictions: the same images are hard for every arm, and each seed adds noise of its own."""
    ids = prepared.splits.test
    labels, num_classes = prepared.image_set.labels[ids], prepared.image_set.num_classes
    hardness = numpy_generator(0, "hardness").random((2, len(ids)))
    noise = numpy_generator(record.config.seed, record.config.arm).normal(0, 0.03, (2, len(ids)))
    confused, wrong = (hardness + noise) % 1
    others = labels + numpy_generator(0, "other errors").integers(1, num_classes, size=len(ids))
    predicted = np.where(wrong < OTHER_ERRORS, others % num_classes, labels)
    predicted[(labels == CONFUSED[0]) & (confused < rates.get(record.config.arm, 0.4))] = CONFUSED[1]
    logits = np.eye(num_classes, dtype=np.float32)[predicted] * 4
    return Predictions(sample_ids=ids, labels=labels, logits=logits, split=TEST)


class Killed(BaseException):
    """Ends the command line as a signal would."""


class FakeCluster:
    """Stands in for Ray: trials are simulated, and the test split is predicted by `predict`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rates: Mapping[str, float] = RATES) -> None:
        self.rates, self.trained = rates, 0
        self.kill_after: int | None = None
        # Arms whose only search trial diverges.
        self.diverging: tuple[str, ...] = ()
        # Half of the time of an analysis here, for a number that no test reads.
        monkeypatch.setattr(directed_confusions, "count_images_to_decide", lambda *_: None)
        monkeypatch.setattr(figure_files, "draw_figures", _draw_interventions)
        monkeypatch.setattr(stage, "connect_cluster", self._connect)
        monkeypatch.setattr(stage, "check_cluster", lambda *_: 1)
        monkeypatch.setattr(stage, "make_workers", lambda _, spec, data: ProcessWorkers(spec, data))
        monkeypatch.setattr(launching, "count_devices", lambda *_: 1.0)
        monkeypatch.setattr(training, "run_to_the_end", self._run)
        monkeypatch.setattr(training, "read_test_split", self._read)

    @contextmanager
    def _connect(self, _: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(describe=lambda: "simulated", node_gpus=(0.0,))

    def _run(self, _session: object, director: Director, _splits: object) -> None:
        def curve(record: TrialRecord, epoch: int) -> float:
            diverges = record.stage == "search" and record.config.arm in self.diverging
            return math.nan if diverges else learning_curve(record, epoch)

        if director.stage == "confirmation" and self.kill_after is not None:
            self.trained += drive(director, curve, max_events=self.kill_after)
            if not director.is_exhausted or director.unfinished():
                raise Killed
        self.trained += drive(director, curve)
        for record in director.book.of_stage(director.stage):
            if not record.confirm_macro_f1 and record.state.is_finished:
                director.book.save(record.updated(confirm_macro_f1=0.6, num_parameters=1000))

    def _read(self, book: Any, plan: Any, runs: list[TrialRecord], _workers: object, spec: Any, _also: object) -> None:
        if missing := [run.trial_id for run in runs if TEST not in run.predictions]:
            note_test_read(book.store, plan, missing)
        store_predictions(book, runs, prepare(spec, _load_once(spec)), self.rates)


_LOADED: dict[str, tuple[ImageSet, Splits]] = {}


def _load_once(spec: StudySpec) -> tuple[ImageSet, Splits]:
    """Return the images and splits of the studies with this seed, [data] and image size."""
    key = f"{spec.seed} {spec.data.model_dump_json()} {spec.train.image_size}"
    if key not in _LOADED:
        _LOADED[key] = load_split_images(spec)
    return _LOADED[key]


def _draw_interventions(*arguments: Any) -> dict[str, bytes]:
    """Draw the figure of interventions alone."""
    found = arguments[-1]
    return {} if found is None else {"interventions.png": figure_to_png(plot_interventions(found.effects))}


def store_predictions(book: Any, runs: list[TrialRecord], prepared: Prepared, rates: Mapping[str, float]) -> None:
    """Store test predictions of runs that have none."""
    for run in runs:
        if TEST not in run.predictions:
            files = open_trial_files(book.store, run)
            digests = files.write_predictions(predict(run, prepared, rates), run.attempts)
            digests |= files.write_weights({"fc.bias": torch.tensor([float(run.config.seed)])}, run.attempts)
            book.save(run.updated(predictions=(*run.predictions, TEST), digests=run.digests | digests))


def make_parent(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[OpenStudy, FakeCluster]:
    """Return an analyzed study of one arm whose models predict many images of one class as another, and its cluster.

    Args:
        folder: the storage root.
        monkeypatch: puts the fake cluster into place.
        changes: sections of the spec.
    """
    spec = validate_spec({**SPEC, **changes}, where="test")
    cluster, store = FakeCluster(monkeypatch), Store(folder / "parent")
    prepared = prepare(spec)
    write_sealed_json(store, paths.PASSPORT, make_passport(prepared, "simulated", 1.0))
    write_sealed_toml(store, paths.SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))
    study = OpenStudy(store=store, spec=spec, book=RecordBook(store))  # type: ignore[arg-type]
    session = stage.Session(Console(quiet=True))
    session.study, session.prepared = study, prepared
    training.Search().run(session)
    training.CONFIRM.run(session)
    analyze_here(study, prepared.image_set)
    return study, cluster

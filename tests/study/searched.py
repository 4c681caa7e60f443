"""Studies on disk whose trials trained nothing: simulated curves, real records."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tomli_w
import torch

from analysis.report.study_findings import Findings
from study.cluster.process_workers import ProcessWorkers
from study.confirmation.plan import confirmation_seeds, make_plan, write_plan
from study.inputs.preparation import prepare
from study.inputs.provenance import make_passport
from study.open_study import OpenStudy
from study.results.findings import compute_findings
from study.scheduling.director import ConfirmationDirector, want
from study.scheduling.search_director import SearchDirector
from study.spec.reading import with_overrides
from study.spec.study_spec import StudySpec
from study.state import paths
from study.state.record_book import RecordBook
from study.state.sealed_files import write_sealed_json, write_sealed_toml
from tests.built_values import predictions_of
from tests.made_once import made_once
from tests.study.simulated import FIXED, Curve, drive, learning_curve, make_spec
from trainables.data.images import ImageSet
from trainables.records.record import TrialRecord, TrialState, best_trials
from trainables.records.trial_files import TrialFiles
from trainables.storage.store import Store

ARMS = ("resnet18", "resnet50")
STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL"}


def curve_with_failures(record: TrialRecord, epoch: int) -> float | None:
    return math.nan if record.trial_id in ("00003", "00004") and epoch == 2 else learning_curve(record, epoch)


def simulate(folder: Path, max_events: int | None = None, **search: object) -> OpenStudy:
    """Return a searched study on disk, with weights of its complete trials that hold the trial's number.

    The search is made once per run, and copied to `folder`.
    """
    kind = f"search of {max_events} events, {sorted(search.items())}"
    made = made_once(kind, lambda place: _search(Store(place), make_spec(**search), max_events))
    shutil.copytree(made, folder, dirs_exist_ok=True)
    store = Store(folder)
    return OpenStudy(store=store, spec=make_spec(**search), book=RecordBook(store))


def _search(store: Store, spec: StudySpec, max_events: int | None) -> None:
    write_sealed_toml(store, paths.SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))
    data = {"class_names": ["cat", "dog"], "num_images": {"search": 40}, "stored_size": [48, 48]}
    write_sealed_json(store, paths.PASSPORT, {"data": data})
    book = RecordBook(store)
    fixed = {name: value for name, value in FIXED.items() if name not in spec.varied_settings} | {"image_size": 32}
    drive(SearchDirector(book, spec, fixed), curve_with_failures, max_events=max_events)
    for record in book.of_stage("search"):
        if record.state is TrialState.COMPLETE:
            book.save(write_weights(store, record))


def analyze_here(study: OpenStudy, image_set: ImageSet) -> Findings:
    """Return the findings of a study, whose models compute in this process."""
    data: Any = SimpleNamespace(
        images=image_set.images,
        labels=image_set.labels,
        class_names=image_set.class_names,
        groups=image_set.groups,
        splits=None,
    )
    return compute_findings(study, image_set, ProcessWorkers(study.spec, data))


def simulate_confirmed(folder: Path) -> OpenStudy:
    """Return a confirmed study on disk that `study analyze` accepts; without audits and heat maps, which need trained models."""
    study = simulate(folder, fixed={"class_weighting": "none"})
    overrides = ["data.num_images=200", "confirm.looks=[2]", "analyze.num_audit_images=0", "analyze.num_panels=0"]
    overrides += ['analyze.groups.cats=["cat"]', 'analyze.groups.dogs=["dog"]']
    spec = with_overrides(study.spec, overrides, where="test")
    write_sealed_toml(study.store, paths.SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))
    prepared = prepare(spec)
    passport = make_passport(prepared, "simulated", 1.0)
    data = passport["data"] | {"class_names": ["cat", "dog"]}
    write_sealed_json(study.store, paths.PASSPORT, passport | {"data": data})
    confirm(study, read_test=True)
    return OpenStudy(store=study.store, spec=spec, book=study.book)


def write_weights(store: Store, record: TrialRecord) -> TrialRecord:
    """Store weights that hold the trial's number; return the record with their digest."""
    folder = paths.TrialPaths(stage=record.stage, trial_id=record.trial_id).folder
    state = {"fc.bias": torch.tensor([record.config.seed])}
    digests = TrialFiles(store.child(folder)).write_weights(state, record.attempts)
    return record.updated(digests=record.digests | digests)


def confirm(study: OpenStudy, *, read_test: bool, num_seeds: int = 2, curve: Curve = learning_curve) -> None:
    """Run the winners with fresh seeds and write the plan; store test predictions where `read_test`."""
    winners = {arm: best_trials(study.book.of_stage("search"), arm)[0] for arm in ARMS}
    seeds = confirmation_seeds(study.spec)[:num_seeds]
    wanted = [trial for winner in winners.values() for trial in want(winner, seeds)]
    drive(ConfirmationDirector(study.book, wanted), curve)
    write_plan(study.store, make_plan(study.spec, winners, seeds[::-1]))
    predictions = predictions_of([0, 0, 1, 1], [[1, 0], [1, 0], [0, 1], [1, 0]])
    for record in study.book.of_stage("confirmation"):
        stored = study.book.save(write_weights(study.store, record))
        if read_test:
            files = TrialFiles(study.store.child(f"confirmation/{record.trial_id}"))
            digests = files.write_predictions(predictions, record.attempts)
            study.book.save(stored.updated(predictions=("test",), digests=stored.digests | digests))

"""The test split: read in one place, counted, and only after the plan is written."""

from collections.abc import Sequence
from typing import Any

import ray
import torch

from study.confirmation.plan import Plan
from study.confirmation.read_count import note_test_read
from study.confirmation.trained_models import load_model
from study.spec.study_spec import StudySpec
from study.state.paths import TrialPaths
from study.state.record_book import RecordBook
from trainables.devices import choose_device
from trainables.models.backbones import place_model
from trainables.processes import prepare_to_train
from trainables.records.record import TrialRecord
from trainables.records.store import Store
from trainables.records.trial_files import TrialFiles
from trainables.training.evaluation import place_images, predict
from trainables.training.loop import TrialData

TEST = "test"


def predict_stored_trial(
    study_uri: str, record: TrialRecord, data: TrialData, device: torch.device, split: str
) -> dict[str, str]:
    """Load a trial's final weights, store its predictions on `split` beside them, and return their digest."""
    store = Store(study_uri)
    files = TrialFiles(store.child(TrialPaths(stage=record.stage, trial_id=record.trial_id).folder))
    config = record.trial_config()
    model = place_model(load_model(files, record, len(data.class_names)), config, device)
    predictions = predict(
        model,
        place_images(data.images, device),
        getattr(data.splits, split),
        data.labels,
        split,
        config,
        device,
        config.whole("batch_size"),
    )
    return files.write_predictions(predictions)


def read_test_split(
    book: RecordBook,
    plan: Plan,
    runs: Sequence[TrialRecord],
    shared: Any,
    spec: StudySpec,
) -> None:
    """Store the test predictions of every planned run that has none, in parallel on the cluster; count it as one read.

    A read that was stopped before its end goes on as the same read. `shared` is the data in the object store, as
    `trainables.tune_adapter.share` puts it there.
    """
    missing = [r for r in runs if TEST not in r.predictions]
    if not missing:
        return
    note_test_read(book.store, plan, [r.trial_id for r in missing])
    tasks = []
    for record in missing:
        cpu, gpu = (spec.resources.of_arm(kind, record.config.arm) for kind in ("cpu", "gpu"))
        remote = ray.remote(num_cpus=cpu, num_gpus=gpu, max_retries=spec.resources.retries)(_predict_remotely)
        tasks.append(remote.remote(book.store.root, record, shared, spec.resources.device, cpu, gpu))
    for record, digests in zip(missing, ray.get(tasks), strict=True):
        current = book.get(record.stage, record.trial_id)
        book.save(current.updated(predictions=(*current.predictions, TEST), digests={**current.digests, **digests}))


def _predict_remotely(
    study_uri: str, record: TrialRecord, data: TrialData, device: str, cpu: float, gpu: float
) -> dict[str, str]:
    prepare_to_train(max(1, int(cpu)))
    return predict_stored_trial(study_uri, record, data, choose_device(device, gpu), TEST)

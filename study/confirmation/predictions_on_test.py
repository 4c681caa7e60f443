"""The test split: read in one place, counted, and only after the plan is written."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray

from study.confirmation.plan import Plan
from study.confirmation.read_count import note_test_read
from study.confirmation.trained_models import load_model
from study.spec.study_spec import StudySpec
from study.state.record_book import RecordBook, open_trial_files
from trainables.devices import choose_device
from trainables.models.backbones import place_model
from trainables.processes import prepare_to_train
from trainables.records.record import TrialRecord
from trainables.records.store import Store
from trainables.training.evaluation import place_images, predict
from trainables.training.loop import TrialData
from trainables.training.predictions import Predictions

TEST = "test"


def read_test_split(book: RecordBook, plan: Plan, runs: Sequence[TrialRecord], shared: Any, spec: StudySpec) -> None:
    """Predict the test split with every confirmation trial that has no test predictions; count it as one read.

    The trials predict in parallel on the cluster; this process stores what they return. A read that was interrupted continues
    as the same read.

    Args:
        book: the study's records, opened to be driven.
        plan: the plan, which is written before the first read.
        runs: confirmation trials that the plan names.
        shared: the data in the object store, as `trainables.tune_adapter.share` puts it there.
        spec: the study's spec.
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
    for record, task in zip(missing, tasks, strict=True):
        digests = open_trial_files(book.store, record).write_predictions(ray.get(task))
        current = book.get(record.stage, record.trial_id)
        book.save(current.updated(predictions=(*current.predictions, TEST), digests={**current.digests, **digests}))


def _predict_remotely(
    study_uri: str, record: TrialRecord, data: TrialData, device: str, cpu: float, gpu: float
) -> Predictions:
    """Load a trial's final weights and return its predictions on the test split."""
    prepare_to_train(max(1, int(cpu)))
    chosen, config = choose_device(device, gpu), record.config
    loaded = load_model(open_trial_files(Store(study_uri), record), record, len(data.class_names))
    model, images = place_model(loaded, config, chosen), place_images(data.images, chosen)
    found = predict(model, images, data.splits.test, data.labels, TEST, config, chosen, config.whole("batch_size"))
    return found if data.groups is None else replace(found, groups=data.groups[found.sample_ids])

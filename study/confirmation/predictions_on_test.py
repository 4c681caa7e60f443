"""The test split: read in one place, counted, and only after the plan is written."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from study.cluster.task_device import find_device
from study.cluster.tasks import Workers, make_task
from study.confirmation.plan import Plan, note_test_read
from study.confirmation.trained_models import load_classifier
from study.spec.study_spec import StudySpec
from study.state.record_book import RecordBook, open_trial_files
from trainables.processes import prepare_to_train
from trainables.records.record import TrialRecord
from trainables.records.trial_files import WEIGHTS, find_file
from trainables.seeds import numpy_generator
from trainables.storage.store import Store
from trainables.training.predictions import Predictions
from trainables.training.trial_data import TrialData

TEST = "test"


def read_test_split(
    book: RecordBook,
    plan: Plan,
    runs: Sequence[TrialRecord],
    workers: Workers,
    spec: StudySpec,
    also: Sequence[str] = (),
) -> None:
    """Predict the test split with every confirmation trial that has no test predictions; count it as one read.

    The trials predict on the workers; this process stores what they return. A read that was interrupted continues as the same
    read.

    Args:
        book: the study's records, opened to be driven.
        plan: the plan, which is written before the first read.
        runs: confirmation trials that the plan names.
        workers: with the data of the study.
        spec: the study's spec.
        also: what else predicts the test split in this read, which is noted with the trials.
    """
    missing = [r for r in runs if TEST not in r.predictions]
    if not missing:
        return
    note_test_read(book.store, plan, [*(r.trial_id for r in missing), *also])
    root, resources = book.store.address, spec.resources
    tasks = [make_task(spec, r.config.arm, root, r, resources.of_arm("cpu", r.config.arm)) for r in missing]
    results = workers.run_tasks(predict_test_split, tasks)
    for record, (predictions, is_by_model) in zip(missing, results, strict=True):
        current = book.get(record.stage, record.trial_id)
        digests = open_trial_files(book.store, record).write_predictions(predictions, current.attempts)
        changes = {} if is_by_model else {"last_finite_epoch": 0}
        book.save(
            current.updated(predictions=(*current.predictions, TEST), digests={**current.digests, **digests}, **changes)
        )


def predict_test_split(study_uri: str, record: TrialRecord, cpu: float, *, data: TrialData) -> tuple[Predictions, bool]:
    """Return a trial's predictions on the test split, and whether its stored weights made them.

    A trial that diverged predicts with the weights of its last finite epoch. Where there are none, or their logits are not
    finite, its labels are drawn at random.
    """
    prepare_to_train(max(1, int(cpu)))
    num_classes, indices = len(data.class_names), data.splits.test
    if record.diverged and not find_file(WEIGHTS, record.digests):
        return with_groups(draw_predictions(record, indices, data.labels, num_classes), data), False
    files = open_trial_files(Store(study_uri), record)
    classify = load_classifier(files, record, num_classes, find_device(), record.config.whole("batch_size"))
    logits = classify(data.images, indices)
    if record.diverged and not np.isfinite(logits).all():
        return with_groups(draw_predictions(record, indices, data.labels, num_classes), data), False
    found = Predictions(sample_ids=indices, labels=data.labels[indices], logits=logits, split=TEST)
    return with_groups(found, data), True


def with_groups(predictions: Predictions, data: TrialData) -> Predictions:
    """Return predictions with the group of each image, where some of their images share one."""
    groups = None if data.groups is None else data.groups[predictions.sample_ids]
    is_independent = groups is None or len(np.unique(groups)) == len(groups)
    return predictions if is_independent else replace(predictions, groups=groups)


def draw_predictions(
    record: TrialRecord, indices: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> Predictions:
    """Return the predictions of a trial without a finite epoch: labels drawn uniformly, from the trial's own seed.

    Args:
        record: of the trial.
        indices: (M,) of the test split.
        labels: (N,) of all images.
        num_classes: K.
    """
    generator = numpy_generator(record.config.seed, "labels at chance", record.config.arm)
    drawn = generator.integers(num_classes, size=len(indices))
    logits = np.eye(num_classes, dtype=np.float32)[drawn]
    return Predictions(sample_ids=indices, labels=labels[indices], logits=logits, split=TEST)

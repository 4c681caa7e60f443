"""Models of finished trials, rebuilt from their stored weights, and what they predict on the test split.

The test split is read here alone: counted, and only after the plan is written.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import nn

from study.cluster.tasks import Workers, find_device, make_task
from study.confirmation.plan import Plan, note_test_read
from study.spec.study_spec import StudySpec
from study.state.record_book import RecordBook, open_trial_files
from trainables.data.image_array import ImageArray
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import fold_batch_norm
from trainables.processes import prepare_to_train
from trainables.records.record import TrialRecord
from trainables.records.trial_files import WEIGHTS, TrialFiles, find_file
from trainables.seeds import numpy_generator
from trainables.storage.store import Store
from trainables.training.evaluation import compute_logits
from trainables.training.predictions import Predictions
from trainables.training.trainable import GuardedTrainable, is_own_loop
from trainables.training.trial_data import TrialData, place_images
from trainables.training.trial_run import unpack_state

TEST = "test"

# Maps (N, H, W, 3) uint8 images and (n,) indices of some of them to (n, K) float32 logits.
Classifier = Callable[[ImageArray, NDArray[np.int64]], NDArray[np.float32]]


def load_model(files: TrialFiles, record: TrialRecord, num_classes: int) -> nn.Module:
    """Return a trial's final model on the CPU.

    Args:
        files: of the trial.
        record: of the trial: its configuration, and the digests that its weights must have.
        num_classes: K, the outputs of the model.

    Raises:
        DamagedFileError: naming weights that are missing or are not those that were stored.
    """
    return files.load_weights(build_model(record.config, num_classes, weights="none"), record.digests)


def load_classifier(
    files: TrialFiles,
    record: TrialRecord,
    num_classes: int,
    device: torch.device,
    batch_size: int,
    *,
    folds: bool = False,
) -> Classifier:
    """Return the function by which a trial's final model classifies images, whatever loop trained it.

    Args:
        files: of the trial.
        record: of the trial.
        num_classes: K.
        device: that a network computes on.
        batch_size: images per step of a network.
        folds: whether rounding may differ from that of the trial, for the sake of speed (`fold_batch_norm`).

    Raises:
        DamagedFileError: naming weights that are missing or are not those that were stored.
        UserInputError: if the trial's custom loop cannot be used here.
    """
    config = record.config
    if is_own_loop(config):
        loop = GuardedTrainable(config.word("trainable"), num_classes)
        loop.restore(unpack_state(load(files.read_weights(record.digests))))
        return lambda images, indices: loop.predict(images[indices])
    loaded = load_model(files, record, num_classes)
    model = place_model(fold_batch_norm(loaded, config) if folds else loaded, config, device).eval()

    def classify(images: ImageArray, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return compute_logits(model, place_images(images, device), indices, config, device, batch_size)

    return classify


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
    data = data.of_trial(record.config)
    prepare_to_train(max(1, int(cpu)))
    num_classes = len(data.class_names)
    if not record.diverged or find_file(WEIGHTS, record.digests):
        files = open_trial_files(Store(study_uri), record)
        classify = load_classifier(files, record, num_classes, find_device(), record.config.whole("batch_size"))
        logits = classify(data.images, data.splits.test)
        if not record.diverged or np.isfinite(logits).all():
            return make_test_predictions(logits, data), True
    return make_test_predictions(draw_logits(record, len(data.splits.test), num_classes), data), False


def make_test_predictions(logits: NDArray[np.float32], data: TrialData) -> Predictions:
    """Return (M, K) logits of the M images of the test split as predictions, with the group of each where some share one."""
    ids = data.splits.test
    groups = None if data.groups is None else data.groups[ids]
    is_independent = groups is None or len(np.unique(groups)) == len(groups)
    groups = None if is_independent else groups
    return Predictions(sample_ids=ids, labels=data.labels[ids], logits=logits, split=TEST, groups=groups)


def draw_logits(record: TrialRecord, num_images: int, num_classes: int) -> NDArray[np.float32]:
    """Return the (M, K) logits of a trial without a finite epoch: labels drawn uniformly, from the trial's own seed.

    Args:
        record: of the trial.
        num_images: M, of the test split.
        num_classes: K.
    """
    generator = numpy_generator(record.config.seed, "labels at chance", record.config.arm)
    drawn = generator.integers(num_classes, size=num_images)
    return np.eye(num_classes, dtype=np.float32)[drawn]

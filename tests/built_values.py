"""Values that many tests need: a test names the fields that it is about, and the others are plain."""

from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.interval import Interval
from search_spaces.config import TrialConfig, Value
from trainables.records.record import EpochRecord, TrialRecord, TrialState
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.predictions import Predictions

# A configuration of the space transfer_learning.
BASE: dict[str, Value] = {
    **{"backbone": "resnet18", "max_lr": 0.05, "backbone_lr_ratio": 0.1, "cutmix_probability": 0.0},
    **{"class_weighting": "none", "interpolation": "bicubic", "weight_decay": 1e-4, "label_smoothing": 0.0},
}


def interval_around(estimate: float, width: float) -> Interval:
    """Return an interval that reaches `width` to both sides."""
    return Interval(estimate=estimate, low=estimate - width, high=estimate + width)


def arm_of(labels: npt.ArrayLike, predicted: npt.ArrayLike, name: str = "a", **changes: Any) -> ArmPredictions:
    """Return the classes that an arm predicted, (S, N) or (N,), for images with these labels (N,), with seeds 0, 1, ..."""
    labels, predicted = np.asarray(labels), np.atleast_2d(predicted)
    values = {"seeds": tuple(range(len(predicted))), "sample_ids": np.arange(len(labels))}
    values["num_classes"] = int(labels.max()) + 1
    return ArmPredictions(name=name, labels=labels, predicted=predicted, **values | changes)


def predictions_of(labels: npt.ArrayLike, logits: npt.ArrayLike, **changes: Any) -> Predictions:
    """Return predictions of the test split: labels (N,) and logits (N, K) of images 0, 1, ..."""
    labels = np.asarray(labels, dtype=np.int64)
    values: dict[str, Any] = {"sample_ids": np.arange(len(labels)), "split": "test"}
    return Predictions(labels=labels, logits=np.asarray(logits, dtype=np.float32), **values | changes)


def metrics_of(epoch: int, macro_f1: float | None, **changes: Any) -> EpochMetrics:
    """Return the metrics of an epoch in which both classes have the macro-F1."""
    values = {
        "train_loss": 1.0,
        "search_loss": 1.0,
        "per_class_f1": (macro_f1,) * 2,
        "head_lr": 0.1,
        "backbone_lr": 0.01,
    }
    values |= {"train_seconds": 1.0, "evaluate_seconds": 0.25}
    values |= {"train_images_per_second": 100.0, "peak_memory_bytes": 1}
    return EpochMetrics(epoch=epoch, macro_f1=macro_f1, **values | changes)


def epoch_of(metrics: EpochMetrics, **changes: Any) -> EpochRecord:
    """Return the record of an epoch after which the trial went on."""
    values = {"device_seconds": float(metrics.epoch), "order": metrics.epoch, "decision": "continue"}
    return EpochRecord(**dict(metrics) | values | changes)


def record_of(config: TrialConfig, **changes: Any) -> TrialRecord:
    """Return a complete trial of the search."""
    values = {"trial_id": "00000", "stage": "search", "state": TrialState.COMPLETE, "suggested_order": 0}
    return TrialRecord(**values | {"config": config, "fingerprint": config.fingerprint} | changes)

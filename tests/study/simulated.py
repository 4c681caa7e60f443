"""Trials that train nothing: curves computed from the configuration, driven through a director as Ray would."""

from collections.abc import Callable
from typing import Any

from study.cluster.tasks import Stage
from study.scheduling.director import Director
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from tests.built_values import metrics_of
from trainables.records.record import EpochReport, TrialRecord

Curve = Callable[[TrialRecord, int], float | None]
FIXED: dict[str, float | int | str | bool] = {"max_epochs": 6}


def make_spec(**search: Any) -> StudySpec:
    """Return a valid spec of a study on planted scenes, 6 epochs, with changes to [search]."""
    return validate_spec(
        {
            "name": "simulated",
            "data": {"source": "planted"},
            "model": {"weights": "none"},
            "train": {"image_size": 32},
            # Its suggestions take no time, so that a test may ask for hundreds.
            "search": {"num_trials": 24, "max_epochs": 6, "sampler": "tpe_multivariate", **search},
        },
        where="test",
    )


def make_stage(max_concurrent: int) -> Stage:
    """Return the settings of a run of trials that have no settings and predict nothing."""
    settings: Any = None
    return Stage(settings=settings, max_concurrent=max_concurrent, splits_to_predict=(), on_change=lambda: None)


def make_report(
    epoch: int, macro_f1: float | None, device_seconds: float, train_loss: float | None = 1.0
) -> EpochReport:
    """Return a report as a trial's actor sends it."""
    metrics = metrics_of(epoch, macro_f1, train_loss=train_loss, train_seconds=device_seconds)
    return EpochReport(metrics=metrics, device_seconds=device_seconds, device="simulated")


def learning_curve(record: TrialRecord, epoch: int) -> float:
    """Return a plausible macro-F1: rises over the epochs, best at max_lr 0.05 and a high ratio."""
    import math

    values = record.config.hyperparameters
    distance = abs(math.log10(float(values["max_lr"])) - math.log10(0.05))
    ceiling = 0.8 - 0.15 * distance - 0.05 * abs(math.log10(float(values["backbone_lr_ratio"])))
    return max(0.05, ceiling * (1 - math.exp(-0.6 * epoch)))


def seconds_per_epoch(record: TrialRecord) -> float:
    """Return what an epoch costs: ResNet50 three times ResNet18."""
    return 3.0 if record.config.arm == "resnet50" else 1.0


def drive(
    director: Director, curve: Curve = learning_curve, *, num_workers: int = 2, max_events: int | None = None
) -> int:
    """Run the director's trials on simulated workers; return the number of reports made.

    Each worker holds one trial; the report that is due first in simulated time comes first. `max_events` stops the driver in
    the middle, as a kill would.
    """
    running: list[tuple[float, int, TrialRecord]] = []
    clock, events = 0.0, 0
    while True:
        while len(running) < num_workers and (record := director.next_trial()) is not None:
            first = record.epochs[-1].epoch + 1 if record.epochs else 1
            running.append((clock + seconds_per_epoch(record), first, record))
        if not running or (max_events is not None and events >= max_events):
            return events
        running.sort(key=lambda item: (item[0], item[2].trial_id))
        clock, epoch, record = running.pop(0)
        events += 1
        if director.on_report(record.trial_id, make_report(epoch, curve(record, epoch), seconds_per_epoch(record))):
            running.append((clock + seconds_per_epoch(record), epoch + 1, record))

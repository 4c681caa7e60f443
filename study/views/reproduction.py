"""Reproduction: retrain one trial here and say how its numbers compare with the recorded ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from search_spaces.errors import UserInputError, nearest_name
from study.confirmation.runs import runs_of
from study.inputs.preparation import Prepared
from study.inputs.provenance import list_differences, make_passport
from study.open_study import OpenStudy, read_passport, trial_files
from trainables.devices import choose_device, device_name
from trainables.processes import prepare_to_train
from trainables.records.ranking import best_trials
from trainables.records.record import TrialRecord, TrialState
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.loop import TrainingRun
from trainables.training.predictions import Predictions

# Without two runs of the same configuration under other seeds, this stands in for the seed-to-seed spread of macro-F1:
# twice a standard deviation of one percentage point.
DEFAULT_SPREAD = 0.02


class Outcome(StrEnum):
    """What a reproduction found."""

    MATCH = "MATCH"
    CLOSE = "CLOSE"
    DIFFERENT = "DIFFERENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A reproduction's result.

    Attributes:
        outcome: MATCH (every epoch's macro-F1 and every stored logit bit-identical), CLOSE (the last epoch's macro-F1
            within `spread`), or DIFFERENT (neither; or not bit-identical, and the record was altered).
        is_altered: whether the record's configuration was changed after the study wrote it.
        trial_id: the trial.
        first_different_epoch: None where all epochs agree bit for bit.
        recorded, reproduced: macro-F1 of every epoch.
        largest_logit_difference: over the stored predictions; None where the trial stored none.
        spread: the tolerance in macro-F1, and where it comes from.
        spread_source: in words.
        differences: what differs between the study's passport and this machine, and in the record itself.
    """

    outcome: Outcome
    is_altered: bool
    trial_id: str
    first_different_epoch: int | None
    recorded: tuple[float, ...]
    reproduced: tuple[float, ...]
    largest_logit_difference: float | None
    spread: float
    spread_source: str
    differences: tuple[str, ...]


def choose_trial(study: OpenStudy, trial: str, arm: str | None) -> TrialRecord:
    """Return the record that `--trial` names: "best", a search trial's id, or ``confirmation/<id>``.

    Raises UserInputError if there is no such trial or it did not run to its end.
    """
    arms = [a.name for a in study.spec.arms()]
    if arm is not None and arm not in arms:
        raise UserInputError(f"the study has no arm {arm!r}{nearest_name(arm, arms)}")
    if trial == "best":
        records = study.book.of_stage("search")
        best = best_trials(records, arm, study.spec.search.max_epochs)
        if not best:
            raise UserInputError("no trial of this study ran every epoch, so there is no best one yet")
        return best[0]
    stage, _, trial_id = trial.rpartition("/")
    records = tuple(r for r in study.book if r.stage == (stage or "search"))
    found = next((r for r in records if r.trial_id == trial_id), None)
    if found is None:
        near = nearest_name(trial_id, [r.trial_id for r in records])
        raise UserInputError(f"there is no {stage or 'search'} trial {trial_id!r}{near}")
    if not found.epochs:
        raise UserInputError(f"trial {trial} has no recorded epoch to compare with")
    return found


def reproduce(
    study: OpenStudy, record: TrialRecord, prepared: Prepared, on_epoch: Callable[[int, float, float], None]
) -> Reproduction:
    """Retrain `record` on this machine, epoch for epoch as far as it went, and compare.

    `on_epoch(epoch, recorded, reproduced)` is called after each epoch. A trial that held a GPU is retrained on the CPU
    where there is none; the list of differences then names both devices.
    """
    config = record.trial_config()
    if record.num_threads:
        prepare_to_train(record.num_threads)
    num_gpus = study.spec.resources.of_arm("gpu", record.config.arm)
    device = choose_device(study.spec.resources.device, num_gpus if torch.cuda.is_available() else 0)
    run = TrainingRun(config, prepared.data, device=device, weights=prepared.weights)
    reproduced: list[float] = []
    recorded = [e.macro_f1 if e.macro_f1 is not None else float("nan") for e in record.epochs]
    losses: list[tuple[float | None, float]] = []
    for epoch in record.epochs:
        metrics: EpochMetrics = run.run_epoch()
        reproduced.append(metrics.macro_f1)
        losses.append((epoch.train_loss, metrics.train_loss))
        on_epoch(epoch.epoch, recorded[metrics.epoch - 1], metrics.macro_f1)
    first = _first_difference(recorded, reproduced, losses)
    logit_difference = _compare_logits(study, record, run)
    spread, source = _seed_spread(study, record)
    close = bool(abs(recorded[-1] - reproduced[-1]) <= spread)
    identical = first is None and not logit_difference
    differences = list_environment_differences(study, record, prepared, device_name(device))
    altered = record.is_altered
    outcome = Outcome.MATCH if identical else Outcome.CLOSE if close and not altered else Outcome.DIFFERENT
    return Reproduction(
        outcome=outcome,
        is_altered=altered,
        trial_id=record.trial_id,
        first_different_epoch=first,
        recorded=tuple(recorded),
        reproduced=tuple(reproduced),
        largest_logit_difference=logit_difference,
        spread=spread,
        spread_source=source,
        differences=differences,
    )


def list_environment_differences(
    study: OpenStudy, record: TrialRecord, prepared: Prepared, device: str
) -> tuple[str, ...]:
    """Return one line for each thing that is not as it was: code, versions, platform, data, weights, device, record."""
    then = read_passport(study.store)
    now: dict[str, Any] = make_passport(prepared, then["cluster"], then["num_devices"])
    lines = list(list_differences(then, now))
    if record.device and record.device != device:
        lines.append(f"device: {record.device} -> {device}")
    if record.is_altered:
        lines.append(f"record: the configuration of trial {record.trial_id} was changed after the study wrote it")
    return tuple(lines)


def _first_difference(
    recorded: Sequence[float], reproduced: Sequence[float], losses: Sequence[tuple[float | None, float]]
) -> int | None:
    for index, (old, new) in enumerate(zip(recorded, reproduced, strict=True)):
        old_loss, new_loss = losses[index]
        same_loss = old_loss == new_loss or (old_loss is None and not np.isfinite(new_loss))
        if not (old == new or (np.isnan(old) and np.isnan(new))) or not same_loss:
            return index + 1
    return None


def _compare_logits(study: OpenStudy, record: TrialRecord, run: TrainingRun) -> float | None:
    if record.state is not TrialState.COMPLETE or not record.predictions:
        return None
    largest = 0.0
    for split in record.predictions:
        stored: Predictions = trial_files(study, record).read_predictions(split, record.digests)
        again = run.predict(split)
        if again is None or not np.array_equal(stored.sample_ids, again.sample_ids):
            return float("inf")
        largest = max(largest, float(np.abs(stored.logits - again.logits).max()))
    return largest


def _seed_spread(study: OpenStudy, record: TrialRecord) -> tuple[float, str]:
    """Return two standard deviations of the last epoch's macro-F1 over the configuration's seeds."""
    scores = [r.last_macro_f1 for r in runs_of(study.book, record) if r.last_macro_f1 is not None]
    if len(scores) < 2:
        return DEFAULT_SPREAD, "assumed: the configuration was run with fewer than two other seeds"
    spread = 2 * float(np.std(scores, ddof=1))
    return spread, f"two standard deviations over {len(scores)} confirmation seeds"

"""`study reproduce`: retrain one trial on this machine and compare its numbers with the recorded ones."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console

from search_spaces.errors import UserInputError, check_choice
from study.confirmation.candidates import runs_of
from study.inputs.preparation import Prepared, prepare
from study.inputs.provenance import list_differences, make_passport, package_versions
from study.open_study import OpenStudy, load_study, read_passport
from study.spec.reading import with_overrides
from study.state.budget_extensions import launched_spec
from study.state.paths import SPEC
from study.state.record_book import open_trial_files
from study.views.printing import print_lines
from trainables.devices import choose_device, describe_libraries, device_name
from trainables.processes import prepare_to_train
from trainables.records.record import TrialRecord, TrialState, best_trials
from trainables.storage.store import Store
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.predictions import Predictions
from trainables.training.trial_cost import make_run
from trainables.training.trial_data import limit_memory, place_images
from trainables.training.trial_run import TrialRun

# The spread of macro-F1 over seeds where fewer than two trials of the configuration have other seeds: two standard deviations
# of one percentage point.
DEFAULT_SPREAD = 0.02
# The overrides that do not change a trial: locations on this machine, and the device.
RELOCATABLE = ("data.path", "model.weights", "resources.device", "resources.images", "resources.image_folder")


class ReproductionOutcome(StrEnum):
    """The outcome of a reproduction.

    MATCH: macro-F1 of every epoch and every stored logit are bit-identical. CLOSE: macro-F1 of the last epoch differs by at most
    the tolerance, and the record was not altered. DIFFERENT: neither.
    """

    MATCH = "MATCH"
    CLOSE = "CLOSE"
    DIFFERENT = "DIFFERENT"


def find_best_trial(study: OpenStudy, arm: str | None) -> TrialRecord:
    """Return the best search trial of an arm, or of all; raise UserInputError if there is none, or no such arm."""
    arms = [a.name for a in study.spec.arms()]
    if arm is not None:
        check_choice("the study has no arm", arm, arms)
    best = best_trials(study.book.of_stage("search"), arm)
    if not best:
        whose = "this study" if arm is None else f"the arm {arm!r}"
        raise UserInputError(f"no trial of {whose} has run every epoch yet, so there is no best trial")
    return best[0]


def find_trial(study: OpenStudy, trial: str, arm: str | None) -> TrialRecord:
    """Return the record that `--trial` names: "best", a search trial's id, or ``confirmation/<id>``.

    Raises:
        UserInputError: if there is no such trial, it has no recorded epoch, or an arm is given for a trial that is named.
    """
    if trial == "best":
        return find_best_trial(study, arm)
    if arm is not None:
        raise UserInputError(f"--arm applies to --trial best, but the trial is {trial!r}; remove --arm")
    stage, _, trial_id = trial.rpartition("/")
    records = {r.trial_id: r for r in study.book if r.stage == (stage or "search")}
    check_choice(f"there is no {stage or 'search'} trial", trial_id, records)
    if not records[trial_id].epochs:
        raise UserInputError(f"trial {trial} has no recorded epoch to compare with")
    return records[trial_id]


def reproduce_trial(
    study: OpenStudy, record: TrialRecord, prepared: Prepared, on_epoch: Callable[[int, float, float], None]
) -> tuple[ReproductionOutcome, str, tuple[str, ...]]:
    """Retrain a trial on this machine for as many epochs as it ran, and compare.

    A trial that held a GPU is retrained on the CPU if this machine has none; the list of differences then names both devices. One
    that held a part of a GPU gets the same part of the memory here, by which cuDNN chooses its algorithms.

    Args:
        study: the study, with a spec for this machine.
        record: of the trial.
        prepared: data and weights of the spec.
        on_epoch: called as ``on_epoch(epoch, recorded, reproduced)`` after each epoch, with macro-F1.

    Returns:
        The outcome; a sentence with the numbers that led to it; and a line for each difference between the study's passport and
        this machine, and in the record itself.
    """
    if record.num_threads:
        prepare_to_train(record.num_threads)
    num_gpus = study.spec.resources.of_arm("gpu", record.config.arm)
    device = choose_device(study.spec.resources.device, num_gpus if torch.cuda.is_available() else 0)
    # Not that of the spec: a trial that did not fit into its part was retried alone.
    share = record.devices_per_trial if num_gpus else 1.0
    limit_memory(device, share)
    place = partial(place_images, num_gpus=share)
    run = make_run(record.config, prepared.data, device=device, weights=prepared.weights, place=place)
    measured: list[EpochMetrics] = []
    with closing(run):
        for epoch in record.epochs:
            measured.append(run.run_epoch())
            on_epoch(epoch.epoch, _nan_if_none(epoch.macro_f1), _nan_if_none(measured[-1].macro_f1))
        logit_difference = _compare_logits(study, record, run)
    outcome, sentence = _judge(study, record, measured, logit_difference)
    here = device_name(device), describe_libraries(device)
    return outcome, sentence, list_environment_differences(study, record, prepared, *here)


def _judge(
    study: OpenStudy, record: TrialRecord, measured: Sequence[EpochMetrics], logit_difference: float | None
) -> tuple[ReproductionOutcome, str]:
    """Return the outcome, and one sentence with the numbers that led to it.

    Args:
        study: that the trial belongs to.
        record: of the trial.
        measured: its epochs here.
        logit_difference: the largest over the stored predictions; None if the trial stored none.
    """
    pairs = zip(record.epochs, measured, strict=True)
    differing = (old.epoch for old, new in pairs if (old.macro_f1, old.train_loss) != (new.macro_f1, new.train_loss))
    first = next(differing, None)
    recorded, reproduced = (_nan_if_none(epochs[-1].macro_f1) for epochs in (record.epochs, measured))
    last = f"macro-F1 {recorded:.6f} recorded, {reproduced:.6f} reproduced"
    if first is None and not logit_difference:
        logits = "" if logit_difference is None else ", and so are the stored predictions"
        return ReproductionOutcome.MATCH, f"all {len(measured)} epochs are bit-identical{logits} ({last})"
    where = (
        "the epochs agree, but the predictions do not" if first is None else f"epoch {first} is the first that differs"
    )
    if record.is_altered:
        altered = "the record was altered, so its configuration is not the one that was trained"
        return ReproductionOutcome.DIFFERENT, f"{where}; {last}; {altered}"
    spread, source = _seed_spread(study, record)
    gap = abs(recorded - reproduced)
    inside = "inside" if gap <= spread else "outside"
    return ReproductionOutcome.CLOSE if gap <= spread else ReproductionOutcome.DIFFERENT, (
        f"{where}; {last}; the gap of {100 * gap:.2f} pp is {inside} the seed-to-seed spread of {100 * spread:.2f} pp ({source})"
    )


def list_environment_differences(
    study: OpenStudy, record: TrialRecord, prepared: Prepared, device: str, libraries: str
) -> tuple[str, ...]:
    """Return a line for each difference from the launch: code, versions, platform, data, weights, device, record."""
    then = read_passport(study.store)
    now: dict[str, Any] = make_passport(prepared, then["cluster"], then["num_devices"])
    now["versions"] = package_versions(then["versions"])
    lines = list(list_differences(then, now))
    if record.device and record.device != device:
        lines.append(f"device: {record.device} -> {device}")
    if record.libraries and record.libraries != libraries:
        lines.append(f"libraries: {record.libraries} -> {libraries}")
    if record.is_altered:
        lines.append(f"record: the configuration of trial {record.trial_id} was changed after the study wrote it")
    return tuple(lines)


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value


def _compare_logits(study: OpenStudy, record: TrialRecord, run: TrialRun) -> float | None:
    if record.state is not TrialState.COMPLETE or not record.predictions:
        return None
    largest = 0.0
    for split in record.predictions:
        stored: Predictions = open_trial_files(study.store, record).read_predictions(split, record.digests)
        again = run.predict(split)
        if again is None or not np.array_equal(stored.sample_ids, again.sample_ids):
            return float("inf")
        largest = max(largest, float(np.abs(stored.logits - again.logits).max()))
    return largest


def _seed_spread(study: OpenStudy, record: TrialRecord) -> tuple[float, str]:
    """Return two standard deviations of the last epoch's macro-F1 over the configuration's seeds."""
    # Trials of folds have seen the images of the search split.
    trials = [r for r in runs_of(study.book, record) if bool(r.config.fold) == bool(record.config.fold)]
    scores = [r.last_macro_f1 for r in trials if r.last_macro_f1 is not None]
    if len(scores) < 2:
        return DEFAULT_SPREAD, "assumed: fewer than two confirmation trials of this configuration"
    spread = 2 * float(np.std(scores, ddof=1))
    return spread, f"two standard deviations over {len(scores)} confirmation seeds"


def run_reproduction(store: Store, trial: str, arm: str | None, overrides: Sequence[str], console: Console) -> bool:
    """Reproduce a trial and print the result.

    Args:
        store: the study.
        trial: as for `find_trial`.
        arm: as for `find_trial`.
        overrides: ``section.key=value`` texts; the keys are those of `RELOCATABLE`.
        console: receives the epochs and the result.

    Returns:
        Whether the outcome is MATCH or CLOSE.

    Raises:
        UserInputError: if there is no such trial, or an override would change the trial.
    """
    for override in overrides:
        if override.partition("=")[0].strip() not in RELOCATABLE:
            raise UserInputError(f"reproduce can set only {', '.join(RELOCATABLE)}, but got {override!r}")
    opened = load_study(store)
    record = find_trial(opened, trial, arm)
    where = store.locate(SPEC)
    spec = with_overrides(launched_spec(store), overrides, where)
    opened = replace(opened, spec=spec)
    # The file of human labels matters to no trial, and may be on another machine.
    prepared = prepare(spec.model_copy(update={"analyze": spec.analyze.model_copy(update={"human_counts": None})}))
    console.print(
        f"reproducing {record.stage} trial {record.trial_id} of {opened.name}: {len(record.epochs)} epochs",
        highlight=False,
    )

    def show(epoch: int, recorded: float, reproduced: float) -> None:
        sign = "=" if recorded == reproduced else "!="
        console.print(f"epoch {epoch}: recorded {recorded:.6f} {sign} reproduced {reproduced:.6f}", highlight=False)

    outcome, sentence, differences = reproduce_trial(opened, record, prepared, show)
    console.print(f"{outcome}: {sentence}", highlight=False, soft_wrap=True)
    if differences:
        console.print("differences from the study's passport:")
        print_lines((f"  {line}" for line in differences), console)
    else:
        console.print("code, versions, platform, device, data and weights are those of the study")
    return outcome is not ReproductionOutcome.DIFFERENT

"""`study export`: records as tables, the search as Optuna studies, and each arm's weights with preprocessing and model card."""

import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from analysis.baselines.values import LINEAR_PROBE
from analysis.formats.table_formats import to_csv
from analysis.report.pages import build_model_card
from analysis.report.study_findings import Findings, to_plain
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, count_noun
from search_spaces.settings import BUILT_IN_LOOP
from study.baselines.measuring import read_probe_weights, read_test_predictions
from study.confirmation.candidates import find_whole, planned_runs
from study.confirmation.evidence import is_confirmed, load_evidence, require_plan
from study.confirmation.plan import followed_plan
from study.confirmation.trained_models import TEST
from study.open_study import OpenStudy, load_study, read_baselines
from study.results.comparison import choose_handover
from study.results.findings import digest_basis
from study.results.optuna_export import export_optuna, hide_password
from study.results.stored_findings import load_findings
from study.state.paths import BASELINE_FOLDER, FINDINGS
from study.state.record_book import open_trial_files
from study.views.exported_model import CARD, STUDY, check_packages, describe_model, write_model, write_onnx
from study.views.notebook import Study
from study.views.printing import print_line, print_lines
from trainables.records.record import TrialRecord, TrialState, best_trials
from trainables.storage.store import Store
from trainables.training.evaluation import compute_mean_f1
from trainables.training.predictions import Predictions
from trainables.training.trainable import is_own_loop

EXPORT_FOLDER = "export"
TRIALS_CSV = "trials.csv"
TRIALS_PARQUET = "trials.parquet"
EPOCHS_PARQUET = "epochs.parquet"
OPTUNA_DATABASE = "optuna.db"
# What is said of the recipe beside the audit of the exported model.
RECIPE_AUDIT = (
    *("test_macro_f1", "class_scores", "directed", "ring_audits", "pulls", "root_causes", "color_losses"),
    "frequency_audit",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The files that an export wrote.

    Attributes:
        folder: the folder of the files.
        files: paths of the files in the folder.
        optuna_url: URL of the database of the Optuna studies, with the password hidden.
        optuna_studies: names of the Optuna studies.
        num_running: number of search trials that still run; they are in no Optuna study.
        missing: arms without weights, because none of their trials has run every epoch, or all of their confirmation diverged.
        handed_over: folder of the model that the study hands over; "" before the confirmation.
    """

    folder: Path
    files: tuple[str, ...]
    optuna_url: str
    optuna_studies: tuple[str, ...]
    num_running: int
    missing: tuple[str, ...]
    handed_over: str


def run_export(store: Store, to: str | None, optuna_url: str | None, console: Console, *, onnx: bool) -> None:
    """Export the study at `store`; print the files and the command that shows the search in optuna-dashboard."""
    study = load_study(store)
    exported = export_study(study, to, optuna_url, onnx=onnx)
    print_lines((f"{exported.folder}/{name}" for name in exported.files), console)
    for own in study.spec.arms() if onnx else ():
        if BUILT_IN_LOOP not in study.spec.trainables_of(own):
            console.print(f"no ONNX of {own.name}: a custom training loop has no network", markup=False)
    if exported.num_running:
        console.print(
            f"in no Optuna study, because it still runs: {count_noun(exported.num_running, 'trial')} of the search"
        )
    for arm in exported.missing:
        reason = "none of its trials has run every epoch, or all of its confirmation diverged"
        console.print(f"no weights of {arm}: {reason}", markup=False)
    if exported.handed_over:
        print_line(f"handed over: {exported.folder}/{exported.handed_over}", console)
    names = ", ".join(exported.optuna_studies)
    print_line(f"Optuna studies: {names}", console)
    print_line(f"optuna-dashboard {exported.optuna_url}", console)


def export_study(
    study: OpenStudy, to: str | None = None, optuna_url: str | None = None, *, onnx: bool = False
) -> Exported:
    """Write the tables, the Optuna studies and each arm's weights into a new folder.

    The folder appears when all files are written, or not at all.

    Args:
        study: a study in any stage.
        to: a local folder that is new or empty; None for `export` in the folder of a local study.
        optuna_url: SQLAlchemy URL of the database for the Optuna studies; None for `optuna.db` in the folder.
        onnx: whether to write each arm's model as ONNX too.

    Raises:
        UserInputError: if the study has no trial yet, the folder or the database cannot be used, the database already holds the
            study, or a model cannot be written as ONNX or computes other logits there.
    """
    if onnx:
        check_packages()
        if all(BUILT_IN_LOOP not in study.spec.trainables_of(arm) for arm in study.spec.arms()):
            raise UserInputError("--onnx writes networks, but custom training loops train every arm; leave it out")
    folder = _check_target(study, to)
    if not study.book.of_stage("search"):
        raise UserInputError(
            f"the study {study.name!r} has no trial yet; run `study resume {study.store.argument}` first"
        )
    with _written_aside(folder) as aside:
        # A column without any value would have no type in the parquet file.
        trials = Study(study).records().astype({"macro_f1": float, "confirm_macro_f1": float})
        epochs = Study(study).epochs()
        (aside / TRIALS_CSV).write_text(to_csv(trials), encoding="utf-8")
        trials.to_parquet(aside / TRIALS_PARQUET, index=False)
        epochs.to_parquet(aside / EPOCHS_PARQUET, index=False)
        missing = [arm.name for arm in study.spec.arms() if not export_weights(study, arm.name, aside, onnx=onnx)]
        _write_probe(study, aside)
        # Last, because a write to an external database cannot be undone.
        names = export_optuna(study, optuna_url or f"sqlite:///{aside / OPTUNA_DATABASE}")
    return Exported(
        folder=folder,
        files=tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())),
        optuna_url=hide_password(optuna_url or f"sqlite:///{folder / OPTUNA_DATABASE}"),
        optuna_studies=tuple(names),
        num_running=sum(not r.state.is_finished for r in study.book.of_stage("search")),
        missing=tuple(missing),
        handed_over=find_handed_over(study),
    )


def find_handed_over(study: OpenStudy) -> str:
    """Return the arm, or `LINEAR_PROBE`, whose model the study hands over; "" before the confirmation and in a round."""
    plan = followed_plan(study.book, study.spec) if is_confirmed(study) else None
    stored = None if plan is None else read_baselines(study)
    return "" if plan is None or stored is None else choose_handover(study, plan, stored.findings).handed_over


def choose_exported_trial(study: OpenStudy, arm: str) -> TrialRecord | None:
    """Return the trial whose weights are exported for `arm`; None if none of its trials has run every epoch and not diverged.

    After the confirmation it is the confirmation trial of the arm's winner with the first seed of the plan, which was not
    selected by a score; with folds, the one that trained on all images. Before the confirmation it is the best search trial,
    whose score is biased upward.
    """
    plan = followed_plan(study.book, study.spec)
    if plan is not None and is_confirmed(study):
        if arm not in plan.chosen:
            return None
        winner, seeds = study.book.get("search", plan.chosen[arm]), plan.seeds[: plan.looks[0]]
        if folds := study.spec.confirm.folds:
            whole = find_whole(study.book, winner, folds)
            return whole if whole is not None and whole.state is TrialState.COMPLETE else None
        return next((run for run in planned_runs(study.book, winner, seeds, 0) if not run.diverged), None)
    ranked = best_trials(study.book.of_stage("search"), arm)
    return ranked[0] if ranked else None


def _read_test(study: OpenStudy, record: TrialRecord) -> tuple[Predictions, ...]:
    """Return a trial's stored test predictions, or none. The test split itself is not read."""
    files = open_trial_files(study.store, record)
    return (files.read_predictions(TEST, record.digests),) if TEST in record.predictions else ()


def _score(predictions: Sequence[Predictions]) -> float | None:
    """Return the mean macro-F1 of predictions; None if there are none."""
    scores = [compute_mean_f1(one.labels, one.predicted, one.logits.shape[1]) for one in predictions]
    return fmean(scores) if scores else None


def _describe_origin(
    arm: str, stage: str, trial_id: str, source_trial_id: str, scores: tuple[float | None, ...]
) -> dict[str, Any]:
    """Return name, trial and scores (on search, confirm and test) of a model, as they stand in its description."""
    macro_f1 = dict(zip(("search", "confirm", "test"), scores, strict=True))
    trial = {"stage": stage, "trial_id": trial_id, "source_trial_id": source_trial_id}
    return {"arm": arm, **trial, "macro_f1": macro_f1}


def find_audit(study: OpenStudy, record: TrialRecord) -> tuple[Findings | None, str]:
    """Return the findings of the study, None where they are not current, and why they hold no audit of an exported model, or "".

    Args:
        study: that the model belongs to.
        record: from `choose_exported_trial`.
    """
    analyze = f"run `study analyze {study.store.argument}` and export again"
    if record.config.fold:
        return _load_current(study), (
            "This model has trained on all images, so that none is left to test or audit it on: its score is that of the folds, "
            "and the report of the study has the audits of the models of the first seed's folds."
        )
    if not study.store.exists(FINDINGS):
        return None, f"There is no audit of this model yet; {analyze}."
    findings = _load_current(study)
    arms = () if findings is None else findings.arms
    audits = [arm.exported for arm in arms if arm.arm == record.config.arm and arm.exported is not None]
    if [audit.trial_id for audit in audits] != [record.trial_id]:
        return (
            None,
            f"The findings of the study are those of an earlier state or version, so they are left out; {analyze}.",
        )
    return findings, ""


def _load_current(study: OpenStudy) -> Findings | None:
    """Return the findings of a study in its present state; None if there are none."""
    findings = load_findings(study) if study.store.exists(FINDINGS) else None
    return findings if findings is not None and findings.basis == digest_basis(study) else None


def export_weights(study: OpenStudy, arm: str, folder: Path, *, onnx: bool = False) -> bool:
    """Write an arm's weights, with preprocessing, audit and model card, into `folder`/`arm`; return whether it has any."""
    record = choose_exported_trial(study, arm)
    if record is None:
        return False
    if record.weights_dropped:
        raise UserInputError(
            f"the weights of trial {record.trial_id}, the best of the arm {arm!r}, were not kept "
            f"(search.keep_weights = {study.spec.search.keep_weights}); `study compare {study.store.argument}` trains others"
        )
    scores: tuple[float | None, ...] = (
        record.last_macro_f1,
        record.confirm_macro_f1,
        _score(_read_test(study, record)),
    )
    if record.config.fold:
        # It has seen all images: the score is that of the folds, whose models have not seen the images that they are tested on.
        scores = (None, None, _score(load_evidence(study, require_plan(study))[arm].finished().predictions))
    origin = _describe_origin(arm, record.stage, record.trial_id, record.source_trial_id or record.trial_id, scores)
    reproduce = f"study reproduce {study.store.argument} --trial {record.stage}/{record.trial_id}"
    weights = open_trial_files(study.store, record).read_weights(record.digests)
    _write_folder(study, folder, record.config, weights, origin, find_audit(study, record), reproduce, onnx=onnx)
    return True


def _write_probe(study: OpenStudy, folder: Path) -> None:
    """Write the study's linear probe as a network of its backbone, if there is one."""
    stored = read_baselines(study)
    if stored is None or stored.config is None:
        return
    probe = stored.findings.probe
    assert probe is not None
    weights, has_all_images = read_probe_weights(study, stored)
    test = _score(read_test_predictions(study))
    scores = (None, None, test) if has_all_images else (probe.search_macro_f1, probe.confirm_macro_f1, test)
    origin = _describe_origin(LINEAR_PROBE, BASELINE_FOLDER, LINEAR_PROBE, LINEAR_PROBE, scores)
    note = "A logistic regression on the features of the frozen backbone, which the study does not audit."
    if has_all_images:
        note += " It was fitted on all images: its score is that of the probes of the folds, which were not."
    reproduce = f"study resume {study.store.argument}"
    _write_folder(study, folder, stored.config, weights, origin, (_load_current(study), note), reproduce)


def _write_folder(
    study: OpenStudy,
    folder: Path,
    config: TrialConfig,
    weights: bytes,
    origin: dict[str, Any],
    audit: tuple[Findings | None, str],
    reproduce: str,
    *,
    onnx: bool = False,
) -> None:
    """Write a model, its description and its card into a folder of its name.

    Args:
        study: that the model belongs to.
        folder: of the export.
        config: of the trial.
        weights: content of the safetensors file.
        origin: from `_describe_origin`.
        audit: as from `find_audit`.
        reproduce: the command that trains the model again.
        onnx: whether to write it as ONNX too.
    """
    own, (found, note), chosen = folder / origin["arm"], audit, find_handed_over(study)
    description = describe_model(study, config) | origin
    if chosen:
        description["handed_over"] = chosen == origin["arm"]
    write_model(own, config, weights, description["class_names"], study.spec.data.aspect)
    if onnx and not is_own_loop(config):
        description["onnx"] = write_onnx(own, config, weights, len(description["class_names"]))
    description["audit"] = {"note": note, "model": None, "recipe": None}
    for arm in found.arms if found is not None and not note else ():
        if arm.arm == origin["arm"]:
            values = dataclasses.asdict(arm)
            recipe = {key: values[key] for key in RECIPE_AUDIT}
            description["audit"] |= to_plain({"model": values["exported"], "recipe": recipe})
    text = json.dumps(description, indent=1, sort_keys=True, allow_nan=False)
    (own / STUDY).write_text(text + "\n", encoding="utf-8")
    (own / CARD).write_text(build_model_card(description, found, note, reproduce), encoding="utf-8")


def _check_target(study: OpenStudy, to: str | None) -> Path:
    if to is None:
        if not study.store.is_local:
            raise UserInputError(f"the study is stored at {study.store.root}; name a local folder with --to")
        folder = study.store.local_path / EXPORT_FOLDER
    elif "://" in to:
        raise UserInputError(f"--to takes a local folder, but got {to!r}")
    else:
        folder = Path(to).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserInputError(f"{folder} exists and is not an empty folder; give another --to, or remove it")
    return folder


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that replaces it at the end, or is deleted on an error."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise UserInputError(f"{folder} cannot be created: {error.strerror}; give another --to") from None
    try:
        yield aside
        if folder.exists():
            folder.rmdir()
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise

"""`study export`: tables, Optuna studies and weights, in a folder that is complete or does not exist."""

import json
import math
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState as OptunaState
from safetensors.torch import load_file

from search_spaces.errors import UserInputError
from study.confirmation.evidence import load_evidence, require_plan
from study.open_study import OpenStudy
from study.state.record_book import RecordBook
from study.views import export
from study.views.export import Exported, choose_exported_trial, export_study
from tests.study.command_line import run_cli
from tests.study.searched import ARMS, confirm, simulate
from tests.study.simulated import learning_curve, make_spec
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, best_trials
from trainables.storage.store import Store


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return simulate(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def exported(searched: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_study(searched, str(tmp_path_factory.mktemp("exported") / "out"))


def test_tables_have_a_row_per_trial_and_per_epoch(searched: OpenStudy, exported: Exported) -> None:
    assert exported.files == (
        "epochs.parquet",
        "optuna.db",
        *(f"{arm}/{name}" for arm in ARMS for name in ("README.md", "config.json", "model.safetensors", "study.json")),
        "trials.csv",
        "trials.parquet",
    )
    trials, epochs = (pd.read_parquet(exported.folder / name) for name in ("trials.parquet", "epochs.parquet"))
    records = list(searched.book)
    assert list(trials["trial_id"]) == [r.trial_id for r in records]
    assert list(trials["max_lr"]) == [r.config.hyperparameters["max_lr"] for r in records]
    assert trials["confirm_macro_f1"].dtype == float
    assert len(pd.read_csv(exported.folder / "trials.csv")) == len(records)
    assert len(epochs) == sum(len(r.epochs) for r in records)
    assert "device_seconds" in epochs
    assert exported.optuna_url == f"sqlite:///{exported.folder}/optuna.db"


def test_weights_before_the_confirmation_are_those_of_the_best_search_trial(
    searched: OpenStudy, exported: Exported
) -> None:
    folder = exported.folder
    for arm in ARMS:
        best = best_trials(searched.book.of_stage("search"), arm)[0]
        assert load_file(folder / arm / "model.safetensors")["fc.bias"].tolist() == [best.config.seed]
        described = json.loads((folder / arm / "study.json").read_text())
        assert (described["stage"], described["trial_id"]) == ("search", best.trial_id)
        assert described["macro_f1"] == {"search": best.last_macro_f1, "confirm": None, "test": None}
        assert described["class_names"] == ["cat", "dog"]
        assert described["preprocessing"]["image_size"] == 32
        assert described["preprocessing"]["resize"].startswith("the shorter side to image_size")
        # Every training and every score was of images at the stored size.
        assert described["preprocessing"]["stored_size"] == [48, 48]
        assert (
            "turned as EXIF says, the shorter side to 48, then the center of 48 x 48 (bicubic, antialiased)."
            in (folder / arm / "README.md").read_text()
        )
        assert (
            "resized: the shorter side to 32, then the center of 32 x 32 pixels"
            in (folder / arm / "README.md").read_text()
        )
        assert described["preprocessing"]["interpolation"] == best.config.hyperparameters["interpolation"]
        assert described["configuration"]["hyperparameters"] == best.config.hyperparameters


def test_weights_after_the_confirmation_are_those_of_the_first_seed_of_the_plan(tmp_path: Path) -> None:
    study = simulate(tmp_path / "study")
    confirm(study, read_test=True)
    folder = export_study(study, str(tmp_path / "out")).folder
    seed = require_plan(study).seeds[0]
    for arm in ARMS:
        described = json.loads((folder / arm / "study.json").read_text())
        assert (described["stage"], described["configuration"]["seed"]) == ("confirmation", seed)
        assert load_file(folder / arm / "model.safetensors")["fc.bias"].tolist() == [seed]
        # Three of four right: F1 0.8 and 2/3.
        assert described["macro_f1"]["test"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_without_all_test_predictions_the_weights_are_those_of_the_search(tmp_path: Path) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=False)
    chosen = choose_exported_trial(study, "resnet18")
    assert chosen is not None
    assert chosen.stage == "search"


def test_an_arm_without_a_full_trial_has_no_weights(tmp_path: Path) -> None:
    study = simulate(tmp_path, max_events=9)
    full = {arm for arm in ARMS if best_trials(study.book.of_stage("search"), arm)}
    exported = export_study(study)
    assert set(exported.missing) == set(ARMS) - full != set()
    assert not any((exported.folder / arm / "study.json").exists() for arm in exported.missing)


def test_a_profiled_study_is_exported_with_a_column_per_part(tmp_path: Path) -> None:
    study = simulate(tmp_path / "study")
    for record in study.book.of_stage("search"):
        epochs = tuple(e.model_copy(update={"part_seconds": (("start", 0.5), ("data", 0.25))}) for e in record.epochs)
        study.book.save(record.updated(epochs=epochs))
    folder = export_study(study, str(tmp_path / "out")).folder
    epochs = pd.read_parquet(folder / "epochs.parquet")
    assert set(epochs["seconds_start"]) == {0.5}
    assert set(epochs["seconds_data"]) == {0.25}


def test_an_arm_whose_runs_all_diverged_leaves_the_export_of_the_others(tmp_path: Path) -> None:
    study = simulate(tmp_path / "study", num_trials=4, pruning="none")

    def curve(record: TrialRecord, epoch: int) -> float:
        return math.nan if record.config.arm == "resnet50" and epoch == 2 else learning_curve(record, epoch)

    confirm(study, read_test=True, curve=curve)
    exported = export_study(study, str(tmp_path / "out"))
    assert exported.missing == ("resnet50",)
    assert (exported.folder / "resnet18" / "study.json").exists()
    assert not (exported.folder / "resnet50").exists()


def test_a_folder_with_something_in_it_is_refused(searched: OpenStudy, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(UserInputError, match="is not an empty folder"):
        export_study(searched, str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]
    (tmp_path / "empty").mkdir()
    assert export_study(searched, str(tmp_path / "empty")).folder == tmp_path / "empty"


def test_a_failed_export_leaves_nothing(searched: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[str]:
        raise UserInputError("no database today")

    monkeypatch.setattr(export, "export_optuna", fail)
    with pytest.raises(UserInputError, match="no database today"):
        export_study(searched, str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_an_object_store_needs_a_folder_to_export_to(
    searched: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserInputError, match="--to takes a local folder"):
        export_study(searched, "s3://bucket/export")
    monkeypatch.setattr(Store, "is_local", property(lambda _: False))
    with pytest.raises(UserInputError, match="name a local folder with --to"):
        export_study(searched)
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_trials_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UserInputError, match="has no trial yet"):
        export_study(OpenStudy(store=store, spec=make_spec(), book=RecordBook(store)))


def test_command_line_prints_what_was_written_and_how_to_look_at_it(tmp_path: Path) -> None:
    simulate(tmp_path / "simulated", num_trials=8)
    outcome = run_cli("export", "simulated", "--storage", tmp_path)
    assert outcome.status == 0, outcome
    folder = tmp_path / "simulated" / "export"
    assert f"{folder}/trials.csv" in outcome.output
    assert f"optuna-dashboard sqlite:///{folder}/optuna.db" in outcome.output.splitlines()
    assert {t.state for t in optuna_trials(folder)} <= {OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL}
    again = run_cli("export", "simulated", "--storage", tmp_path)
    assert again.status == 2
    assert "is not an empty folder" in again.errors
    elsewhere = run_cli(
        "export", "simulated", "--storage", tmp_path, "--to", tmp_path / "b", "--optuna", f"sqlite:///{tmp_path}/b.db"
    )
    assert elsewhere.status == 0, elsewhere
    assert f"optuna-dashboard sqlite:///{tmp_path}/b.db" in elsewhere.output
    assert not (tmp_path / "b" / "optuna.db").exists()


def optuna_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    trials = optuna.load_study(study_name="simulated", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    return trials


def test_damaged_weights_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    study = simulate(tmp_path / "study")
    for weights in tmp_path.glob("study/trials/*/best/*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DamagedFileError, match=r"weights\.safetensors is damaged"):
        export_study(study)
    assert not (tmp_path / "study" / "export").exists()


def test_changed_plan_that_cannot_be_followed_is_named(tmp_path: Path) -> None:
    study = simulate(tmp_path / "study")
    confirm(study, read_test=True)
    file = tmp_path / "study" / "confirmation" / "plan.json"
    kept = file.read_text()
    plan = json.loads(kept)
    assert set(load_evidence(study, require_plan(study))) == set(ARMS)
    before = plan["chosen"]["resnet18"]
    other = next(r.trial_id for r in study.book.of_stage("search") if r.trial_id != before)
    changes = {
        "no complete confirmation trial": {"chosen": {**plan["chosen"], "resnet18": other}},
        "trials that the search does not have": {"chosen": {**plan["chosen"], "resnet18": "99999"}},
        "arms are not the study's": {"chosen": {"resnet18": before}},
        "arms that the study does not have": {"rows": [{**plan["rows"][0], "treatment_arms": ["resnet19"]}]},
        "seeds are not the study's": {"seeds": [plan["seeds"][0], 7]},
        "increasing numbers of its seeds": {"looks": [len(plan["seeds"]) + 1]},
        "margin, alpha or intervals": {"alpha": 5.0},
    }
    for told, change in changes.items():
        file.write_text(json.dumps({**plan, **change}))
        with pytest.raises(DamagedFileError, match=rf"confirmation/plan\.json was changed after.*{told}"):
            load_evidence(study, require_plan(study))
        assert "no complete" in told or run_cli("compare", tmp_path / "study").errors.count(told) == 1
    file.write_text(kept)
    assert set(load_evidence(study, require_plan(study))) == set(ARMS)

"""A search as Optuna studies: they contain the values of the records."""

import warnings
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from search_spaces.errors import UserInputError
from study.open_study import OpenStudy
from study.results.optuna_export import (
    build_optuna_study,
    build_search_studies,
    compute_importances,
    export_optuna,
    hide_password,
)
from study.spec.reading import validate_spec
from study.views.export import export_study
from tests.study.searched import ARMS, STATES, simulate
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialState, best_trials


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return simulate(tmp_path_factory.mktemp("searched"))


def test_every_trial_has_the_values_of_its_record(searched: OpenStudy) -> None:
    for arm in searched.spec.arms():
        records = [r for r in searched.book if r.config.arm == arm.name]
        trials = build_optuna_study(records, arm.space).trials
        assert [t.user_attrs["trial_id"] for t in trials] == [r.trial_id for r in records]
        for trial, record in zip(trials, records, strict=True):
            finite = {e.epoch: e.macro_f1 for e in record.epochs if e.macro_f1 is not None}
            searchable = {n: v for n, v in record.config.hyperparameters.items() if n in arm.space.names}
            assert trial.state.name == STATES[record.state]
            assert trial.intermediate_values == finite
            assert trial.value == (None if record.state is TrialState.FAILED else record.last_macro_f1)
            assert trial.params == searchable
            assert trial.user_attrs["device_seconds"] == record.device_seconds
            assert trial.datetime_start == datetime.fromisoformat(record.started).replace(tzinfo=None)
            assert trial.user_attrs.get("reason", "") == record.reason
            assert trial.user_attrs.get("note") == ("diverged" if record.diverged else None)


def test_all_kinds_of_trials_are_in_the_simulated_search(searched: OpenStudy) -> None:
    """Without this, the tests above could pass for lack of cases."""
    records = searched.book.of_stage("search")
    assert {r.state for r in records} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED}
    weighted = ["class_weight_strength" in r.config.hyperparameters for r in records]
    assert any(weighted)
    assert not all(weighted)


def test_best_trial_is_the_record_s(searched: OpenStudy) -> None:
    studies = build_search_studies(searched)
    for arm in ARMS:
        best = best_trials(searched.book.of_stage("search"), arm)[0]
        assert studies[f"simulated/{arm}"].best_trial.user_attrs["trial_id"] == best.trial_id


def test_the_study_of_all_arms_has_the_factor_as_a_parameter(searched: OpenStudy) -> None:
    whole = build_search_studies(searched)["simulated"]
    assert len(whole.trials) == len(searched.book.of_stage("search"))
    assert all(t.params["backbone"] == t.user_attrs["arm"] for t in whole.trials)
    assert whole.user_attrs == {"study": "simulated", "space": "transfer_learning", "factor": "backbone", "arm": ""}
    assert whole.metric_names == ["macro_f1"]


def test_a_pooled_search_is_one_study(tmp_path: Path) -> None:
    studies = build_search_studies(simulate(tmp_path, allocation="pooled", num_trials=6))
    assert list(studies) == ["simulated/all"]
    assert {t.params["backbone"] for t in studies["simulated/all"].trials} <= set(ARMS)


def test_a_running_trial_is_left_out(tmp_path: Path) -> None:
    study = simulate(tmp_path, max_events=20)
    running = [r.trial_id for r in study.book if r.state is TrialState.RUNNING]
    whole = build_search_studies(study)["simulated"]
    assert running
    assert all(t.state.is_finished() for t in whole.trials)
    assert not {t.user_attrs["trial_id"] for t in whole.trials} & set(running)
    assert export_study(study, str(tmp_path / "out")).num_running == len(running)


def test_a_configuration_outside_the_space_and_an_invalid_time_are_named(searched: OpenStudy) -> None:
    record = searched.book.of_stage("search")[0]
    config = replace(record.config, hyperparameters={**record.config.hyperparameters, "max_lr": 7.0})
    arm = next(a for a in searched.spec.arms() if a.name == record.config.arm)
    with pytest.raises(UserInputError, match=r"trial 00000 does not fit the space 'transfer_learning'"):
        build_optuna_study([record.updated(config=config)], arm.space)
    with pytest.raises(DamagedFileError, match=r"trial 00000 is damaged: it has ended, but 'noon' is not a time"):
        build_optuna_study([record.updated(ended="noon")], arm.space)


def test_given_configurations_with_a_backbone_of_timm_fit_their_space(searched: OpenStudy) -> None:
    """They were trained, and then the report failed: the space of all arms had no such backbone."""
    record = searched.book.of_stage("search")[0]
    given = {**record.config.hyperparameters, "backbone": "timm:test_resnet"}
    spec = validate_spec(
        {
            "name": "given",
            "data": {"source": "planted"},
            "configurations": {"slow": {**given, "max_lr": 0.01}, "fast": {**given, "max_lr": 0.02}},
        },
        where="test",
    )
    records = [
        record.updated(trial_id=f"{number:05d}", config=replace(record.config, arm=name, hyperparameters=dict(values)))
        for number, (name, values) in enumerate(spec.configurations.items())
    ]
    whole = build_optuna_study(records, spec.search_space())
    assert [trial.params["backbone"] for trial in whole.trials] == ["timm:test_resnet"] * 2


def test_times_of_another_zone_become_utc(searched: OpenStudy) -> None:
    record = searched.book.of_stage("search")[0].updated(started="2026-03-01T01:30:00+02:00")
    arm = next(a for a in searched.spec.arms() if a.name == record.config.arm)
    assert build_optuna_study([record], arm.space).trials[0].datetime_start == datetime(2026, 2, 28, 23, 30)


def test_the_database_holds_the_same_trials_and_takes_them_once(searched: OpenStudy, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    names = export_optuna(searched, url)
    assert names == ["simulated/resnet18", "simulated/resnet50", "simulated"]
    expected = build_search_studies(searched)
    storage = optuna.storages.RDBStorage(url)
    for name in names:
        stored = optuna.load_study(study_name=name, storage=storage)
        assert stored.direction is optuna.study.StudyDirection.MAXIMIZE
        assert stored.user_attrs == expected[name].user_attrs
        assert [_content(t) for t in stored.trials] == [_content(t) for t in expected[name].trials]
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(UserInputError, match=r"already contains the study 'simulated'; give another --optuna"):
        export_optuna(searched, url)


def _content(trial: optuna.trial.FrozenTrial) -> tuple[object, ...]:
    times = (trial.datetime_start, trial.datetime_complete)
    return (
        trial.state,
        trial.value,
        trial.params,
        trial.distributions,
        trial.intermediate_values,
        trial.user_attrs,
        times,
    )


@pytest.mark.parametrize("url", ["optuna.db", "sqlite:////no/such/folder/x.db", "nosuch://user:secret@host/x"])
def test_a_database_that_cannot_be_opened_is_refused_without_its_password(searched: OpenStudy, url: str) -> None:
    with pytest.raises(UserInputError, match="cannot be opened") as refused:
        export_optuna(searched, url)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_passwords_are_hidden() -> None:
    assert hide_password("mysql+pymysql://me:s@cret@host/db") == "mysql+pymysql://me:***@host/db"
    assert hide_password("postgresql://host/db?password=s@cret&user=me") == "postgresql://host/db?password=***&user=me"
    assert hide_password("mysql://me:s@cret@host/db?ssl_Key=s") == "mysql://me:***@host/db?ssl_Key=***"
    assert hide_password("mssql+pyodbc:///?odbc_connect=PWD%3Ds@cret") == "mssql+pyodbc:///?odbc_connect=***"
    assert hide_password("sqlite:////data/optuna.db") == "sqlite:////data/optuna.db"


def test_importances_are_those_of_the_dashboard_s_call(searched: OpenStudy) -> None:
    for study in build_search_studies(searched).values():
        found = compute_importances(study)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            expected = get_param_importances(
                study, target=lambda t: -t.values[0], evaluator=PedAnovaImportanceEvaluator()
            )
        assert found == expected
        assert sum(found.values()) == pytest.approx(1)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_one_complete_trial_has_no_importances(searched: OpenStudy) -> None:
    records = [r for r in searched.book if r.config.arm == "resnet18"]
    complete = [r for r in records if r.state is TrialState.COMPLETE]
    others = [r for r in records if r.state is not TrialState.COMPLETE]
    space = searched.spec.arms()[0].space
    assert compute_importances(build_optuna_study([complete[0], *others], space)) == (None, ())
    assert compute_importances(build_optuna_study([*complete[:2], *others], space))[0] is not None

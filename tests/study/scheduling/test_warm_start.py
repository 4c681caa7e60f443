"""Warm start: finished trials of another study change the first suggestions; a study that does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from search_spaces.errors import UserInputError
from study.scheduling.search_director import SearchDirector
from study.scheduling.warm_start import collect_warm_start, read_warm_start, write_warm_start
from study.spec.study_spec import StudySpec
from study.state.paths import SPEC
from study.state.record_book import MemoryBook, RecordBook
from study.state.sealed_files import write_sealed_toml
from tests.study.simulated import FIXED, drive, learning_curve, make_spec
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord, TrialState
from trainables.storage.store import Store


def finished_study(folder: Path, **search: object) -> StudySpec:
    """Write a simulated study in which one trial diverged."""
    spec = make_spec(**search)
    write_sealed_toml(Store(folder), SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))

    def curve(record: TrialRecord, epoch: int) -> float | None:
        return None if record.trial_id == "00004" and epoch == 2 else learning_curve(record, epoch)

    drive(SearchDirector(RecordBook(Store(folder)), spec, FIXED), curve)
    return spec


def suggestions(spec: StudySpec, number: int, **options: object) -> list[dict[str, object]]:
    director = SearchDirector(MemoryBook(), spec, FIXED, **options)  # type: ignore[arg-type]
    records = [director.next_trial() for _ in range(number)]
    return [dict(r.config.hyperparameters) for r in records if r is not None]


def test_warm_start_improves_the_first_suggestions(tmp_path: Path) -> None:
    finished_study(tmp_path / "other", num_trials=40)
    spec = make_spec(num_trials=24, warm_start=str(tmp_path / "other"))
    warm_start = collect_warm_start(spec, None)
    assert warm_start is not None
    assert len(warm_start.trials) == 40
    cold, warm = suggestions(spec, 10), suggestions(spec, 10, earlier=warm_start.trials)
    assert cold[0] != warm[0]
    assert len(warm) == 10

    def mean_value(chosen: list[dict[str, object]]) -> float:
        records = [_record(spec, h) for h in chosen]
        return sum(learning_curve(r, 6) for r in records) / len(records)

    assert mean_value(warm) > mean_value(cold) + 0.02


def test_earlier_trials_are_reported_to_the_samplers_as_they_ended(tmp_path: Path) -> None:
    finished_study(tmp_path / "other", num_trials=24)
    records = RecordBook(Store(tmp_path / "other")).of_stage("search")
    spec = make_spec(warm_start=str(tmp_path / "other"))
    warm_start = collect_warm_start(spec, None)
    assert warm_start is not None
    director = SearchDirector(MemoryBook(), spec, FIXED, earlier=warm_start.trials)
    for arm, sampler in director._samplers.items():
        reported = sampler.trials
        own = sorted((r for r in records if r.config.arm == arm), key=lambda r: r.ended_order or 0)
        assert [t.state.name for t in reported] == ["PRUNED" if r.diverged else r.state.value for r in own]
        for trial, record in zip(reported, own, strict=True):
            last = record.epochs[-1].macro_f1
            assert trial.value == (0.0 if record.diverged else last)


def test_warm_start_is_recorded_and_read_back(tmp_path: Path) -> None:
    finished_study(tmp_path / "other")
    spec = make_spec(warm_start=str(tmp_path / "other"))
    warm_start = collect_warm_start(spec, None)
    assert warm_start is not None
    store = Store(tmp_path / "new")
    assert read_warm_start(store) is None
    write_warm_start(store, warm_start)
    assert read_warm_start(store) == warm_start
    store.write_text("warm_start.json", store.read_text("warm_start.json").replace("0.3", "0.4"))
    with pytest.raises(DamagedFileError, match=r"warm_start\.json is damaged: .* checksum"):
        read_warm_start(store)


def test_other_number_of_epochs_gives_complete_trials_only(tmp_path: Path) -> None:
    finished_study(tmp_path / "other")
    warm_start = collect_warm_start(make_spec(max_epochs=9, warm_start=str(tmp_path / "other")), None)
    assert warm_start is not None
    assert {t.state for t in warm_start.trials if not t.diverged} == {TrialState.COMPLETE}


@pytest.mark.parametrize(
    ("search", "mentions"),
    [
        ({"ranges": {"max_lr": [0.01, 0.3]}}, r"max_lr is log \[0.001, 1.0\], here log \[0.01, 0.3\]"),
        ({"fixed": {"interpolation": "bicubic"}}, r"interpolation is one of .*, here fixed at 'bicubic'"),
        ({"allocation": "pooled"}, r"the arms are \['resnet18', 'resnet50'\], here \['all'\]"),
        ({"factor": "class_weighting"}, "the arms are"),
    ],
)
def test_another_space_is_refused_with_the_difference(tmp_path: Path, search: dict[str, object], mentions: str) -> None:
    finished_study(tmp_path / "other")
    with pytest.raises(UserInputError, match=mentions):
        collect_warm_start(make_spec(warm_start=str(tmp_path / "other"), **search), None)


def test_missing_study_and_study_without_trials_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="nowhere"):
        collect_warm_start(make_spec(warm_start=str(tmp_path / "nowhere")), None)
    spec = make_spec()
    write_sealed_toml(Store(tmp_path / "empty"), SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))
    with pytest.raises(UserInputError, match="no finished trial"):
        collect_warm_start(make_spec(warm_start=str(tmp_path / "empty")), None)


def _record(spec: StudySpec, hyperparameters: dict[str, object]) -> TrialRecord:
    director = SearchDirector(MemoryBook(), spec, FIXED)
    record = director.next_trial()
    assert record is not None
    config = replace(record.config, hyperparameters=hyperparameters)
    return record.model_copy(update={"config": config})

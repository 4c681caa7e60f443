"""Every view of a study names the same best trial, also where trials tie."""

from pathlib import Path

import pytest
import tomli_w
from rich.console import Console

from analysis.search.search_findings import compute_search_arms
from search_spaces.errors import UserInputError
from study.open_study import read_passport
from study.spec.reading import with_overrides
from study.spec.study_spec import StudySpec
from study.state import paths
from study.state.sealed_files import write_sealed_json, write_sealed_toml
from study.views import reproduction
from study.views.export import choose_exported_trial
from study.views.live_view import compute_progress
from study.views.reproduction import find_trial
from tests.study.searched import ARMS, simulate
from trainables.records.record import TrialState


def test_reproduction_needs_no_file_of_human_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It matters to no trial, and the machine that reproduces one need not have it."""
    study = simulate(tmp_path)
    spec = with_overrides(study.spec, [f"analyze.human_counts={tmp_path}/nowhere.npy"], where="test")
    write_sealed_toml(study.store, paths.SPEC, tomli_w.dumps(spec.model_dump(exclude_none=True)))
    asked = []

    def prepare(spec: StudySpec) -> None:
        asked.append(spec.analyze.human_counts)
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduction, "prepare", prepare)
    with pytest.raises(KeyboardInterrupt):
        reproduction.run_reproduction(study.store, "best", None, [], Console(quiet=True))
    assert asked == [None]


def test_ties_are_broken_alike_everywhere(tmp_path: Path) -> None:
    study = simulate(tmp_path)
    write_sealed_json(study.store, paths.PASSPORT, read_passport(study.store) | {"num_devices": 1})
    complete = [r for r in study.book.of_stage("search") if r.state is TrialState.COMPLETE]
    for record in complete:
        tied = record.epochs[-1].model_copy(update={"macro_f1": 0.5})
        study.book.save(record.updated(epochs=(*record.epochs[:-1], tied)))
    first = {arm: min(r.trial_id for r in complete if r.config.arm == arm) for arm in ARMS}
    assert all(sum(r.config.arm == arm for r in complete) > 1 for arm in ARMS)
    records = study.book.of_stage("search")
    assert {a.arm: a.best_trial_id for a in compute_search_arms(records)} == first
    assert {arm: getattr(choose_exported_trial(study, arm), "trial_id", "") for arm in ARMS} == first
    assert {arm: find_trial(study, "best", arm).trial_id for arm in ARMS} == first
    assert find_trial(study, "best", None).trial_id == min(first.values())
    assert {a.arm: a.best_trial_id for a in compute_progress(study, "search").arms} == first


def test_an_arm_is_refused_where_the_trial_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="--arm applies to --trial best, but the trial is '00003'; remove --arm"):
        find_trial(simulate(tmp_path), "00003", ARMS[0])

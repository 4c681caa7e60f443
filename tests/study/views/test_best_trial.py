"""Every view of a study names the same best trial, also where trials tie."""

from pathlib import Path

from analysis.search.search_arms import compute_search_arms
from study.open_study import read_passport
from study.state import paths
from study.state.checksums import write_sealed_json
from study.views.export import choose_trial as choose_exported
from study.views.live_view import compute_progress
from study.views.reproduction import choose_trial as choose_reproduced
from tests.study.searched import ARMS, simulate
from trainables.records.record import TrialState


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
    assert {arm: getattr(choose_exported(study, arm), "trial_id", "") for arm in ARMS} == first
    assert {arm: choose_reproduced(study, "best", arm).trial_id for arm in ARMS} == first
    assert choose_reproduced(study, "best", None).trial_id == min(first.values())
    assert {a.arm: a.best_trial_id for a in compute_progress(study, "search").arms} == first

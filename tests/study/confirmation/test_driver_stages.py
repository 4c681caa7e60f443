"""The stages of the confirmation: the ranking of the candidates, the comparison of the winners, the test split."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study import driver as driver_module
from study.confirmation.plan import Plan, confirmation_seeds, ranking_seeds
from study.driver import Driver
from study.open_study import OpenStudy
from study.scheduling.director import Director
from tests.study.searched import simulate
from tests.study.simulated import drive, learning_curve
from trainables.records.record import TrialRecord

DIVERGING = 3


def confirm(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, list[TrialRecord]]:
    """Run the confirmation with simulated trials, of which one diverges; return the plan and the runs that read the test."""
    read: list[TrialRecord] = []

    def run(_: Driver, director: Director, *__: Any) -> None:
        def curve(record: TrialRecord, epoch: int) -> float:
            diverges = record.config.seed == confirmation_seeds(study.spec)[DIVERGING] and epoch == 3
            return math.nan if diverges and record.config.arm == "resnet50" else learning_curve(record, epoch)

        drive(director, curve)

    monkeypatch.setattr(Driver, "_run", run)
    monkeypatch.setattr(driver_module, "require_finished_search", lambda _: None)
    monkeypatch.setattr(driver_module, "read_test_split", lambda _book, _plan, runs, *_: read.extend(runs))
    driver = Driver.__new__(Driver)
    driver.study, driver.workers, driver._on_change = study, SimpleNamespace(), lambda *_: None
    return driver.confirm(lambda *_: ()), read


def with_confirm(study: OpenStudy, **changes: Any) -> OpenStudy:
    confirm_spec = study.spec.confirm.model_copy(update=changes)
    return OpenStudy(store=study.store, spec=study.spec.model_copy(update={"confirm": confirm_spec}), book=study.book)


def test_the_comparison_uses_no_seed_of_the_ranking_and_every_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = with_confirm(simulate(tmp_path, num_trials=8, asha={"enabled": False}), num_ranking_seeds=2)
    plan, read = confirm(study, monkeypatch)
    records = study.book.of_stage("confirmation")
    ranked = [r for r in records if r.config.seed in ranking_seeds(study.spec)]
    assert len(ranked) == 2 * 2 * 2, "arms x candidates x seeds"
    assert plan.seeds == confirmation_seeds(study.spec)
    assert not set(plan.seeds) & {r.config.seed for r in ranked}
    assert len(records) == len(ranked) + 2 * 5
    assert sorted(r.config.seed for r in read) == sorted(2 * plan.seeds)
    assert [r.config.arm for r in read if r.diverged] == ["resnet50"]

"""The steps of the confirmation: the ranking of the candidates, the comparison of the winners, the test split."""

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from analysis.comparison.power import VarianceComponents
from study.cluster.connection import THIS_PROCESS
from study.confirmation.plan import Plan, confirmation_seeds, ranking_seeds, read_plan
from study.open_study import OpenStudy
from study.scheduling.director import Director
from study.stages import training
from study.stages.stage import Session
from study.views.forecast_basis import Basis
from tests.study.searched import simulate
from tests.study.simulated import drive, learning_curve
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord

DIVERGING = 3


def confirm(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch, console: Console | None = None
) -> tuple[Plan, list[TrialRecord]]:
    """Run the confirmation with simulated trials, of which one diverges; return the plan and the runs that read the test."""
    read: list[TrialRecord] = []

    def run(_: Session, director: Director, *__: Any) -> None:
        def curve(record: TrialRecord, epoch: int) -> float:
            diverges = record.config.seed == confirmation_seeds(study.spec)[DIVERGING] and epoch == 3
            return math.nan if diverges and record.config.arm == "resnet50" else learning_curve(record, epoch)

        drive(director, curve)

    monkeypatch.setattr(training, "run_to_the_end", run)
    monkeypatch.setattr(training, "require_finished_search", lambda _: None)
    monkeypatch.setattr(training, "read_test_split", lambda _book, _plan, runs, *_: read.extend(runs))
    monkeypatch.setattr(training, "find_undecided", lambda *_: ())
    session = Session(console or Console(quiet=True), THIS_PROCESS)
    splits = SimpleNamespace(test=range(2000), train=range(1000), search=range(100))
    session.study, session.prepared, session.workers = study, SimpleNamespace(splits=splits), SimpleNamespace()
    training.CONFIRM.run(session)
    plan = read_plan(study.store)
    assert plan is not None
    return plan, read


def with_confirm(study: OpenStudy, **changes: Any) -> OpenStudy:
    confirm_spec = study.spec.confirm.model_copy(update=changes)
    return OpenStudy(store=study.store, spec=study.spec.model_copy(update={"confirm": confirm_spec}), book=study.book)


def test_the_comparison_uses_no_seed_of_the_ranking_and_every_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = with_confirm(simulate(tmp_path, num_trials=8, pruning="none"), num_ranking_seeds=2)
    plan, read = confirm(study, monkeypatch)
    records = study.book.of_stage("confirmation")
    ranked = [r for r in records if r.config.seed in ranking_seeds(study.spec)]
    assert len(ranked) == 2 * 2 * 2, "arms x candidates x seeds"
    assert plan.seeds == confirmation_seeds(study.spec)
    assert not set(plan.seeds) & {r.config.seed for r in ranked}
    assert len(records) == len(ranked) + 2 * 5
    assert sorted(r.config.seed for r in read) == sorted(2 * plan.seeds)
    assert [r.config.arm for r in read if r.diverged] == ["resnet50"]


def test_what_the_ranking_says_about_the_looks_is_printed_before_the_comparison_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_trained = []
    components = VarianceComponents(seeds=0.0, images=0.1, seeds_x_images=0.1, num_measured_seeds=3)

    def find(study: OpenStudy, chosen: dict[str, tuple[TrialRecord, ...]], seeds: tuple[int, ...]) -> Basis:
        num_trained.append(len(study.book.of_stage("confirmation")))
        assert num_trained[-1] == len(seeds) * sum(map(len, chosen.values()))
        return Basis(components=components, source="the ranking", costs={"resnet18": 1.0, "resnet50": 3.0})

    console = Console(record=True, width=1000, file=io.StringIO())
    monkeypatch.setattr(training, "find_ranked_basis", find)
    study = with_confirm(simulate(tmp_path / "said", num_trials=8, pruning="none"), num_ranking_seeds=2)
    confirm(study, monkeypatch, console)
    assert num_trained == [8]
    said = console.export_text()
    assert (
        "warning: 5 seeds and 2,000 test images decide a difference of 1.00 pp, twice the margin, with a chance of"
        in said
    )
    assert "variances: the ranking" in said
    assert "of device time" in said

    def refuse(*_: object) -> None:
        raise DamagedFileError("confirm.npz is damaged")

    monkeypatch.setattr(training, "find_ranked_basis", refuse)
    confirm(with_confirm(simulate(tmp_path / "damaged", num_trials=8), num_ranking_seeds=2), monkeypatch, console)
    assert "not known from the ranking: confirm.npz is damaged" in console.export_text()

"""The comparison of a study: its analysis computes it once, and the findings contain it."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.arms.values import ArmScores
from analysis.comparison.other_intervals import compute_crossed_bootstrap
from analysis.statistics.interval import Interval
from search_spaces.errors import UserInputError
from study.confirmation.evidence import is_confirmed
from study.confirmation.plan import confirmation_seeds
from study.open_study import OpenStudy
from study.results.comparison import compute_comparison, find_class_groups
from study.results.stored_findings import load_findings
from study.spec.sections import AnalyzeSpec, MinimumSpec
from study.stages.concluding import COMPARE
from study.stages.stage import Session
from study.state import paths
from study.state.sealed_files import write_sealed_json
from study.views.notebook import Study
from tests.built_values import predictions_of
from tests.study.searched import analyze_here, confirm, simulate
from tests.study.simulated import learning_curve
from trainables.data.images import ImageSet
from trainables.data.sources.labeled_files import load_descriptions
from trainables.records.record import TrialRecord
from trainables.records.trial_files import TrialFiles


def test_analysis_computes_the_comparison_once_and_the_findings_contain_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=True)
    spec = study.spec.model_copy(update={"analyze": AnalyzeSpec(num_panels=0, num_audit_images=0)})
    study = OpenStudy(store=study.store, spec=spec, book=study.book)
    calls = []

    def count(*sides: object, **options: float) -> Interval:
        calls.append(sides)
        return compute_crossed_bootstrap(*sides, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("analysis.comparison.other_intervals.compute_crossed_bootstrap", count)
    images, labels = np.zeros((4, 8, 8, 3), dtype=np.uint8), np.zeros(4, dtype=np.int64)
    analyze_here(study, ImageSet(images=images, labels=labels, class_names=("cat", "dog"), source="none"))
    assert len(calls) == 1
    findings, comparison = load_findings(study), compute_comparison(study)
    assert findings.rows == comparison.rows
    assert len(findings.rows) == 1
    table = pd.read_csv(tmp_path / paths.SIDE_METRICS_CSV)
    assert table["difference"].tolist() == [m.difference.estimate for m in findings.rows[0].side_metrics]
    scores = [{name: getattr(arm, name) for name in ArmScores.__dataclass_fields__} for arm in findings.arms]
    assert scores == [vars(arm) for arm in comparison.arms.values()]


def test_metrics_beside_macro_f1_are_computed_on_the_groups_of_the_analysis_or_of_the_data_set(tmp_path: Path) -> None:
    study = simulate(tmp_path)
    confirm(study, read_test=True)

    def change(class_groups: dict[str, list[str]] | None, **groups: tuple[str, ...]) -> OpenStudy:
        data = study.spec.data.model_copy(update={"options": {"class_groups": class_groups} if class_groups else {}})
        spec = study.spec.model_copy(update={"data": data, "analyze": AnalyzeSpec(groups=groups)})
        return OpenStudy(store=study.store, spec=spec, book=study.book)

    furry = {"furry": ["cat", "dog"]}
    assert find_class_groups(change(None)) == {}
    assert find_class_groups(change(furry, barks=("dog",))) == {"barks": ("dog",)}
    (row,) = compute_comparison(change(furry)).rows
    assert {m.group for m in row.side_metrics} == {"", "furry"}
    names = load_descriptions()["cifar10"].class_names
    write_sealed_json(study.store, paths.PASSPORT, {"data": {"class_names": list(names)}})
    assert set(find_class_groups(change(None))) == {"rigid", "deformable"}


def show_comparison(study: OpenStudy) -> list[str]:
    session = Session(Console(quiet=True))
    session.study = study
    return session.run([COMPARE])


def test_scores_use_finished_runs_and_rows_count_those_that_diverged(tmp_path: Path) -> None:
    """The control diverges with one seed of four; predicting one class there, it would not pass the minimum."""
    study = simulate(tmp_path, num_trials=4, pruning="none")

    def curve(record: TrialRecord, epoch: int) -> float:
        diverges = (record.config.arm, record.config.seed) == ("resnet18", confirmation_seeds(study.spec)[1])
        return math.nan if diverges and epoch == 2 else learning_curve(record, epoch)

    confirm_spec = study.spec.confirm.model_copy(update={"looks": [4], "margin": 0.5})
    changes = {"confirm": confirm_spec, "minimum": MinimumSpec(macro_f1=0.7)}
    study = OpenStudy(store=study.store, spec=study.spec.model_copy(update=changes), book=study.book)
    confirm(study, read_test=True, num_seeds=4, curve=curve)
    (diverged,) = [r for r in study.book.of_stage("confirmation") if r.diverged]
    labels = np.repeat([0, 1], 20)
    for record in study.book.of_stage("confirmation"):
        predicted = (
            0 * labels if record.diverged else np.where(np.arange(40) == record.config.seed % 40, 1 - labels, labels)
        )
        predictions = predictions_of(labels, np.eye(2)[predicted])
        files = TrialFiles(study.store.child(f"confirmation/{record.trial_id}"))
        digests = files.write_predictions(predictions, record.attempts)
        study.book.save(record.updated(digests=record.digests | digests))
    comparison = compute_comparison(study)
    assert diverged.trial_id not in comparison.arms["resnet18"].confirmation_ids
    assert len(comparison.evidence["resnet18"].runs) == 3
    assert {arm: scores.minimum_cleared for arm, scores in comparison.arms.items()} == {
        "resnet18": False,
        "resnet50": True,
    }
    (missed,) = show_comparison(study)
    assert missed.startswith("minimum missed: resnet18 has macro-F1 0.9")
    assert missed.endswith("but with its runs that diverged not above the minimum of 0.7")
    (row,) = comparison.rows
    assert (row.num_seeds, len(row.divergence)) == (3, 2)
    assert row.all_runs_effect is not None
    assert row.all_runs_effect.estimate > row.effect.estimate + 0.1
    assert is_confirmed(study)


@pytest.mark.parametrize(("num_diverged", "reason"), [(1, "fewer than two of its runs finished"), (2, "every run of")])
def test_an_arm_without_a_lower_bound_misses_the_gate(tmp_path: Path, num_diverged: int, reason: str) -> None:
    study = simulate(tmp_path, num_trials=4, pruning="none")
    seeds = confirmation_seeds(study.spec)[:num_diverged]

    def curve(record: TrialRecord, epoch: int) -> float:
        diverges = record.config.arm == "resnet18" and record.config.seed in seeds
        return math.nan if diverges and epoch == 2 else learning_curve(record, epoch)

    changes = {"confirm": study.spec.confirm.model_copy(update={"looks": [2]}), "minimum": MinimumSpec(macro_f1=0.01)}
    study = OpenStudy(store=study.store, spec=study.spec.model_copy(update=changes), book=study.book)
    confirm(study, read_test=True, num_seeds=2, curve=curve)
    (missed,) = show_comparison(study)
    assert missed.startswith("minimum missed: ")
    assert "resnet18" in missed
    assert reason in missed


def test_a_study_whose_runs_all_diverged_says_so(tmp_path: Path) -> None:
    study = simulate(tmp_path, num_trials=4, pruning="none")

    def diverge(record: TrialRecord, epoch: int) -> float:
        return math.nan if epoch == 2 else learning_curve(record, epoch)

    confirm(study, read_test=True, num_seeds=2, curve=diverge)
    images, labels = np.zeros((40, 8, 8, 3), dtype=np.uint8), np.zeros(40, dtype=np.int64)
    image_set = ImageSet(images=images, labels=labels, class_names=("cat", "dog"), source="none")
    with pytest.raises(UserInputError, match=r"every run of the confirmation diverged.*lower learning rates"):
        analyze_here(study, image_set)
    with pytest.raises(UserInputError, match=r"every run of the confirmation .* diverged, so that no image"):
        Study(study).images()

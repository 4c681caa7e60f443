"""Runs that diverged: the rows count them, scores and forensics leave them out."""

import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from search_spaces.errors import UserInputError
from study.confirmation.evidence import is_confirmed
from study.confirmation.plan import confirmation_seeds
from study.open_study import OpenStudy
from study.results.comparison import compute_comparison
from study.spec.sections import MinimumSpec
from study.stages.concluding import COMPARE
from study.stages.stage import Session
from study.views.notebook import Study
from tests.built_values import predictions_of
from tests.study.searched import analyze_here, confirm, simulate
from tests.study.simulated import learning_curve
from trainables.data.images import ImageSet
from trainables.records.record import TrialRecord
from trainables.records.trial_files import TrialFiles


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

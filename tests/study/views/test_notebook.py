"""A study in Python: the A/B table and the images as DataFrames, and how a notebook shows it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import study
from search_spaces.errors import UserInputError
from study.confirmation.evidence import load_evidence, require_plan
from study.open_study import load_study
from study.state import paths
from study.state.record_book import RecordBook
from tests.study.command_line import run_cli
from trainables.records.record import best_trials
from trainables.storage.store import Store

FINISHED = Path(__file__).parents[2] / "golden" / "finished"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished study, whose comparison is written anew."""
    copy = Path(shutil.copytree(FINISHED, tmp_path_factory.mktemp("notebook") / "finished"))
    assert run_cli("compare", copy).status == 0
    return copy


def test_the_comparison_has_the_values_of_its_file(folder: Path) -> None:
    table = study.load(str(folder)).comparison()
    written = pd.read_csv(folder / paths.COMPARISON_CSV)
    assert list(table["verdict"]) == list(written["verdict"])
    np.testing.assert_allclose(table["effect_pp"], written["effect_pp"])


def test_images_have_a_row_per_test_image_and_arm(folder: Path) -> None:
    opened = study.load(str(folder))
    images = opened.images()
    read = load_study(Store(folder))
    for arm, found in load_evidence(read, require_plan(read)).items():
        own = images[images.arm == arm]
        predictions = found.predictions
        assert list(own.sample_id) == predictions[0].sample_ids.tolist()
        correct = np.mean([p.predicted == p.labels for p in predictions], axis=0)
        np.testing.assert_allclose(own.correct, correct)
        assert own.correct.mean() == pytest.approx(correct.mean())
    assert images.agreement.between(0.5 / len(images.label.unique()), 1).all()
    assert images.confidence.between(0, 1).all()
    assert (images.loss >= 0).all()
    # Where all seeds are right, the label is predicted by all.
    sure = images[images.correct == 1]
    assert (sure.predicted == sure.label).all()
    assert (sure.agreement == 1).all()


def test_a_notebook_shows_the_answers_or_how_far_the_study_is(folder: Path, tmp_path: Path) -> None:
    shown = study.load(str(folder))._repr_html_()
    assert "<b>Which:</b>" in shown
    assert "<table" in shown
    copy = Path(shutil.copytree(folder, tmp_path / "unread"))
    (copy / paths.FINDINGS).unlink()
    assert "not analyzed yet" in study.load(str(copy))._repr_html_()


def test_the_best_trial_without_its_weights_says_how_to_get_them(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "dropped"))
    book = RecordBook(Store(copy))
    best = best_trials(book.of_stage("search"), "bicubic")[0]
    book.save(best.updated(weights_dropped=True))
    with pytest.raises(
        UserInputError, match=r"were not kept \(search.keep_weights\); `study reproduce .* --arm bicubic`"
    ):
        study.load(str(copy)).best("bicubic")

"""explore.html holds what the models of each arm predict for the images that have a thumbnail."""

import json
import re

import numpy as np
import pytest
from scipy.special import softmax

from analysis.arms.arm_evidence import tabulate_images, tabulate_models
from analysis.report.explorer import ExplorerInput, build_explorer
from analysis.report.galleries import ThumbnailSheets
from tests.analysis.findings_factory import SEEDS
from tests.browser.pages import make_evidence

NAMES = tuple("abcdefghij")
SHOWN = np.array([3, 7, 40])


def test_arms_and_models_have_their_predictions_of_the_images_that_are_shown() -> None:
    evidence = [make_evidence("one", 0.8, 60), make_evidence("other", 0.5, 60)]
    images = np.zeros((60, 8, 8, 3), dtype=np.uint8)
    shown = ExplorerInput(
        study="mine",
        class_names=NAMES,
        images=[tabulate_images(found, NAMES) for found in evidence],
        models=[table for found in evidence for table in tabulate_models(found, NAMES)],
        records=[],
        thumbnails=ThumbnailSheets.draw(images, SHOWN, 60),
        panels={},
    )
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', build_explorer(shown, ""))
    assert found
    data = json.loads(found[1])["images"]
    assert data["ids"] == SHOWN.tolist()
    assert data["labels"] == evidence[0].predictions[0].labels[SHOWN].tolist()
    assert [(arm["name"], arm["num_seeds"]) for arm in data["arms"]] == [("one", len(SEEDS)), ("other", len(SEEDS))]
    assert [(model["arm"], model["seed"]) for model in data["models"]] == [
        (e.arm, s) for e in evidence for s in e.seeds
    ]
    for model, predictions in zip(data["models"], [p for e in evidence for p in e.predictions], strict=True):
        probabilities = softmax(predictions.logits[SHOWN].astype(float), axis=1)
        assert model["predicted"] == probabilities.argmax(axis=1).tolist()
        assert model["confidence"] == pytest.approx(probabilities.max(axis=1), abs=6e-4)
        of_label = probabilities[np.arange(len(SHOWN)), predictions.labels[SHOWN]]
        assert model["of_label"] == pytest.approx(of_label, abs=6e-4)
    votes = np.stack([p.logits[SHOWN].argmax(axis=1) for p in evidence[1].predictions])
    agreement = [
        (column == predicted).mean() for column, predicted in zip(votes.T, data["arms"][1]["predicted"], strict=True)
    ]
    assert data["arms"][1]["agreement"] == pytest.approx(agreement)

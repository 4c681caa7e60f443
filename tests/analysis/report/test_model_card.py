"""The model card: the model itself in front, the recipe beside it, and how to train it again."""

import dataclasses

import pytest

from analysis.formats.numbers import format_interval, format_signed_pp
from analysis.report.pages import MAX_CONFUSIONS, build_model_card
from tests.analysis.findings_factory import make_findings

REPRODUCE = "study reproduce studies/mine --trial confirmation/0000"
MODEL = {
    "study": "mine",
    "arm": "resnet50",
    "stage": "confirmation",
    "trial_id": "0000",
    "architecture": "torchvision.models.resnet50",
    "loading": "import timm",
    "class_names": ["airplane", "ship"],
    "preprocessing": {
        "image_size": 32,
        "resize": "to image_size x image_size, without crop",
        "interpolation": "bicubic",
        "clamp": "to [0, 255] after resizing",
        "scale": "divide by 255",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    },
    "macro_f1": {"search": 0.71, "confirm": None, "test": 0.69},
    "configuration": {"seed": 101},
}


def test_the_card_has_this_model_and_the_recipe() -> None:
    arm = next(arm for arm in make_findings().arms if arm.exported)
    card = build_model_card(MODEL, arm, "", REPRODUCE)
    assert "```python\nimport timm\n```" in card
    audit = arm.exported
    assert audit is not None
    assert audit.macro_f1.recipe is None
    assert arm.test_macro_f1.recipe is not None
    assert format_interval(audit.macro_f1.models) in card.replace("\\", "")
    assert format_interval(arm.test_macro_f1.recipe) in card.replace("\\", "")
    for cell in audit.directed[:MAX_CONFUSIONS]:
        assert f"{cell.true_class} | {cell.predicted_class} | " in card
    for own, all_seeds in zip(audit.ring_audits[0].classes, arm.ring_audits[0].classes, strict=True):
        assert format_signed_pp(own.gap.models) in card.replace("\\", "")
        assert all_seeds.gap.recipe is not None
        assert format_signed_pp(all_seeds.gap.recipe) in card.replace("\\", "")
    assert "FAIL (confirmed)" in card
    assert REPRODUCE in card


@pytest.mark.parametrize("note", ["There is no audit of this model yet."])
def test_without_an_audit_the_card_says_why(note: str) -> None:
    card = build_model_card(MODEL, None, note, REPRODUCE)
    assert note in card
    assert "71.00 % on the search split" in card
    assert "— on the confirm split" in card
    assert "## Audit" not in card
    assert REPRODUCE in card


def test_the_card_says_that_images_are_gray() -> None:
    arm = next(arm for arm in make_findings().arms if arm.exported)
    assert arm.exported is not None
    gray = dataclasses.replace(arm, exported=dataclasses.replace(arm.exported, color_losses=()), color_losses=())
    sentence = "not measured, because the images are gray"
    assert sentence in build_model_card(MODEL, gray, "", REPRODUCE)
    assert sentence not in build_model_card(MODEL, arm, "", REPRODUCE)


def test_an_arm_that_was_not_audited_has_scores_alone() -> None:
    arm = next(arm for arm in make_findings().arms if arm.exported)
    assert arm.exported is not None
    bare = dataclasses.replace(arm.exported, ring_audits=(), color_losses=(), frequency_audit=None)
    card = build_model_card(
        MODEL, dataclasses.replace(arm, exported=bare, ring_audits=(), color_losses=()), "", REPRODUCE
    )
    assert "The model was not audited." in card
    assert "F1 of the recipe" in card


def test_the_card_says_whether_the_study_hands_over_this_model() -> None:
    def build(**known: bool) -> str:
        return build_model_card({**MODEL, **known}, None, "note", REPRODUCE)

    assert "\n\nThis model is the one that the study hands over.\n\n## Use" in build(handed_over=True)
    assert "\n\nThis model is not the one that the study hands over.\n\n## Use" in build(handed_over=False)
    assert "hands over" not in build()

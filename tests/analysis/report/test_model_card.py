"""The model card: the model itself in front, the recipe beside it, and how to train it again."""

import dataclasses

import pytest
from huggingface_hub import ModelCard

from analysis.arms.values import ArmFinding
from analysis.baselines.values import LINEAR_PROBE
from analysis.comparison.tables import build_table_rows
from analysis.confusions.values import Materiality
from analysis.formats.numbers import format_interval, format_signed_pp
from analysis.report.pages import MAX_CONFUSIONS, build_model_card
from analysis.report.study_findings import Findings
from analysis.report.summary import list_failing
from tests.analysis.findings_factory import make_baselines, make_findings

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


def find_arm() -> ArmFinding:
    return next(arm for arm in make_findings().arms if arm.exported)


def with_arm(arm: ArmFinding) -> Findings:
    found = make_findings()
    return dataclasses.replace(found, arms=tuple(arm if one.arm == arm.arm else one for one in found.arms))


def test_the_card_has_this_model_and_the_recipe() -> None:
    arm = find_arm()
    card = build_model_card(MODEL, make_findings(), "", REPRODUCE)
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
    assert "## Verdict" not in card
    assert REPRODUCE in card


def test_the_card_says_that_images_are_gray() -> None:
    arm = find_arm()
    assert arm.exported is not None
    gray = dataclasses.replace(arm, exported=dataclasses.replace(arm.exported, color_losses=()), color_losses=())
    sentence = "not measured, because the images are gray"
    assert sentence in build_model_card(MODEL, with_arm(gray), "", REPRODUCE)
    assert sentence not in build_model_card(MODEL, with_arm(arm), "", REPRODUCE)


def test_an_arm_that_was_not_audited_has_scores_alone() -> None:
    arm = find_arm()
    assert arm.exported is not None
    bare = dataclasses.replace(arm.exported, ring_audits=(), color_losses=(), frequency_audit=None)
    changed = dataclasses.replace(arm, exported=bare, ring_audits=(), color_losses=())
    card = build_model_card(MODEL, with_arm(changed), "", REPRODUCE)
    assert "The model was not audited." in card
    assert "F1 of the recipe" in card


def test_the_card_says_whether_the_study_hands_over_this_model() -> None:
    def build(**known: bool) -> str:
        return build_model_card({**MODEL, **known}, None, "note", REPRODUCE)

    assert "\n\nThis model is the one that the study hands over.\n\n## Use" in build(handed_over=True)
    assert "\n\nThis model is not the one that the study hands over.\n\n## Use" in build(handed_over=False)
    assert "hands over" not in build()


def test_the_card_has_the_verdicts_on_the_arm_with_their_intervals_and_what_they_cover() -> None:
    found = dataclasses.replace(make_findings(), warnings=("Seeds of one arm diverged.",), num_test_reads=2)
    card = build_model_card(MODEL, found, "", REPRODUCE).replace("\\", "")
    own, other = build_table_rows(found.rows)
    assert (own.value.treatment, other.value.treatment) == ("resnet50", "resnet50-cutmix")
    assert f"{own.effect} {own.interval}" in card
    assert f"resnet50 vs resnet18 | {own.effect}" in card
    assert other.interval not in card, "a row without this arm"
    assert card.index("## Verdict") < card.index("## Where it fails") < card.index("## What the claim covers")
    assert "it holds for new seeds and new test images" in card
    assert "the 2000 test images of the study were (cifar10, fingerprint 0123abcd)" in card
    assert "was read 2 times" in card
    assert "**Warning:** Seeds of one arm diverged." in card


def test_the_card_names_the_slices_on_which_this_model_fails() -> None:
    arm = find_arm()
    assert arm.exported is not None
    card = build_model_card(MODEL, make_findings(), "", REPRODUCE).replace("\\", "")
    fails = card[card.index("## Where it fails") : card.index("## What the claim covers")]
    lowest = min(arm.exported.class_scores, key=lambda own: own.f1.estimate)
    assert f"| lowest F1 | {lowest.class_name} | {format_interval(lowest.f1.models)} |" in fails
    failing = list_failing(arm.exported)
    assert failing
    for own in failing:
        assert f"audit: accuracy lost | {own.class_name} | {format_signed_pp(own.gap.models)} |" in fails
    material = [cell for cell in arm.exported.directed if cell.verdict is Materiality.MATERIAL]
    assert fails.count("| material confusion |") == min(len(material), 4)


def test_the_card_of_the_probe_has_the_row_against_it_and_no_audit() -> None:
    found = dataclasses.replace(make_findings(), baselines=make_baselines())
    assert found.baselines is not None
    assert found.baselines.row is not None
    card = build_model_card({**MODEL, "arm": LINEAR_PROBE}, found, "not audited", REPRODUCE).replace("\\", "")
    (row,) = build_table_rows([found.baselines.row])
    assert f"{row.effect} {row.interval}" in card
    assert "## Where it fails" not in card
    assert "not audited" in card


def test_hugging_face_reads_the_front_matter() -> None:
    card = ModelCard(build_model_card(MODEL, make_findings(), "", REPRODUCE))
    loaded = card.data.to_dict()
    assert loaded["pipeline_tag"] == "image-classification"
    assert loaded["tags"] == ["abstudy"]
    assert "library_name" not in loaded, "the lines of this model do not load it by timm"
    by_timm = build_model_card({**MODEL, "loading": 'timm.create_model("local-dir:FOLDER")'}, None, "note", REPRODUCE)
    assert ModelCard(by_timm).data.to_dict()["library_name"] == "timm"
    assert ModelCard(by_timm).text.lstrip().startswith("# resnet50 of the study mine")

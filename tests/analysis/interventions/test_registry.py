"""The registry: what the built-in interventions ask for and change, and custom interventions from another package."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.arms.values import ArmAudits
from analysis.confusions.values import ArmConfusions, ConfusionCluster, DirectedConfusion, Materiality
from analysis.interventions import registry
from analysis.interventions.intervention import Diagnosis
from analysis.interventions.registry import load_interventions
from analysis.interventions.values import TargetKind
from analysis.statistics.interval import Interval, TwoIntervals
from search_spaces import extensions
from search_spaces.errors import UserInputError
from tests.analysis.findings_factory import make_causes, make_ring_audit

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OWN = """
from analysis.interventions.intervention import Diagnosis, Intervention, Reason


class MoreEpochs(Intervention):
    name = "more_epochs"
    title = "twice the epochs"

    def find_reason(self, diagnosis: Diagnosis) -> Reason | None:
        if not diagnosis.cells:
            return None
        true, called = diagnosis.cells[0]
        return Reason(symptom=f"{true} is called {called}", diagnosis="trained too briefly", verdict="MATERIAL")

    def make_changes(self, diagnosis: Diagnosis) -> dict[str, int]:
        return {"max_epochs": 2 * diagnosis.configuration["max_epochs"]}
"""


def make_diagnosis(**changes: object) -> Diagnosis:
    rate = TwoIntervals(models=Interval(estimate=0.2, low=0.15, high=0.26), recipe=None)
    cell = DirectedConfusion(
        true_class="cat",
        predicted_class="dog",
        rate=rate,
        num_images=200,
        verdict=Materiality.MATERIAL,
        recipe_verdict=None,
        images_to_decide=None,
    )
    confusions = ArmConfusions(confused_pairs=(), clusters=(), group_contrasts=(), directed=(cell,))
    values: dict[str, object] = {
        "class_names": NAMES,
        "configuration": {
            "max_epochs": 6,
            "image_size": 64,
            "interpolation": "bicubic",
            "cutmix_probability": 0.0,
            "backbone": "resnet18",
        },
        "cells": (("cat", "dog"), ("dog", "cat"), ("deer", "horse")),
        "confusions": confusions,
        "backbones": ("resnet50",),
        "native_size": 32,
    }
    return Diagnosis(**{**values, **changes})  # type: ignore[arg-type]


def find_changes(diagnosis: Diagnosis) -> Mapping[str, object]:
    return {
        name: one.make_changes(diagnosis)
        for name, one in load_interventions().items()
        if one.find_reason(diagnosis) is not None
    }


def test_a_confusion_asks_for_what_could_reduce_it() -> None:
    assert find_changes(make_diagnosis()) == {
        "head_groups": None,
        "head_balanced": None,
        "weighted_loss": {"class_weighting": "group", "class_weight_strength": 1.0, "weighted_group": "confused"},
        "hard_examples": {"hard_group": "confused", "hard_fraction": 0.25, "hard_from_epoch": 4},
        "cutmix": {"cutmix_probability": 0.5},
        "other_backbone": {"backbone": "resnet50"},
        "other_interpolation": {"interpolation": "bilinear"},
    }


def test_what_cannot_change_changes_nothing_and_cutmix_is_switched_off_where_it_is_on() -> None:
    configuration = {**make_diagnosis().configuration, "cutmix_probability": 0.3}
    changes = find_changes(make_diagnosis(configuration=configuration, backbones=(), native_size=64))
    assert changes["cutmix"] == {"cutmix_probability": 0.0}
    assert changes["other_backbone"] is None
    assert changes["other_interpolation"] is None


def test_nothing_asks_for_anything_where_nothing_is_found() -> None:
    assert find_changes(make_diagnosis(cells=())) == {}


def test_the_target_is_the_pair_or_its_cluster_or_the_cell_that_is_named() -> None:
    assert make_diagnosis().target.cells == (("cat", "dog"),), "the other cell of the pair is not material"
    undecided = replace(make_diagnosis().confusions, directed=())
    assert make_diagnosis(confusions=undecided).target.cells == (("cat", "dog"), ("dog", "cat"))
    assert make_diagnosis().confused == ("cat", "dog")
    confusions = ArmConfusions(
        confused_pairs=(),
        clusters=(ConfusionCluster(classes=("cat", "dog", "horse"), stability=0.99),),
        group_contrasts=(),
    )
    clustered = make_diagnosis(confusions=confusions, cells=(("cat", "dog"), ("horse", "dog"), ("deer", "horse")))
    assert clustered.confused == ("cat", "dog", "horse")
    assert clustered.target.cells == (("cat", "dog"), ("horse", "dog"))
    assert clustered.target.classes == ("cat", "horse")
    named = make_diagnosis(confusions=confusions, cells=(("cat", "dog"),), is_named=True)
    assert named.confused == ("cat", "dog")


def test_a_failed_ring_audit_asks_for_background_swaps_on_the_classes_that_fail() -> None:
    audits = ArmAudits(ring_audits=(make_ring_audit(NAMES, 4, large=True),), root_causes=make_causes(NAMES))
    diagnosis, swap = make_diagnosis(audits=audits), load_interventions()["background_swap"]
    reason = swap.find_reason(diagnosis)
    failing = [c.class_name for c in audits.ring_audits[0].classes if str(c.verdict or c.recipe_verdict) == "FAIL"]
    assert failing
    assert reason is not None
    assert reason.verdict == "FAIL"
    for asked in (swap, load_interventions()["head_ring_swaps"]):
        assert asked.find_reason(diagnosis) == reason
        target = asked.choose_target(diagnosis)
        assert target.kind is TargetKind.RING_GAP
        assert list(target.classes) == failing
        assert asked.find_reason(make_diagnosis()) is None
        assert asked.choose_target(make_diagnosis()).classes == NAMES


def test_a_new_head_is_tried_only_as_the_images_allow_it() -> None:
    kinds = ("ring_swaps", "groups", "balanced")
    for allowed in (kinds, ()):
        changes = [load_interventions()[f"head_{kind}"].make_changes(make_diagnosis(refits=allowed)) for kind in kinds]
        assert changes == [{"head_refit": kind} if allowed else None for kind in kinds]


def test_doubtful_training_labels_ask_for_training_without_them() -> None:
    diagnosis, without = make_diagnosis(doubtful=(41, 7), num_training=9000), load_interventions()["leave_out_doubtful"]
    reason = without.find_reason(diagnosis)
    assert reason is not None
    assert reason.symptom == "2 of 9,000 training images have the most doubtful labels"
    assert without.make_changes(diagnosis) == {"leave_out": "7 41"}
    assert without.choose_target(diagnosis) == diagnosis.target
    assert without.find_reason(make_diagnosis()) is None
    assert without.make_changes(make_diagnosis()) is None
    assert without.find_reason(make_diagnosis(doubtful=(41,), num_training=9000, cells=())) is None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_interventions.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, "own_interventions:MoreEpochs")


def install(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    found = {f"entry{i}": value for i, value in enumerate(values)}
    for module in (registry, extensions):
        monkeypatch.setattr(module, "list_entry_points", lambda group: found if group == registry.ENTRY_POINTS else {})


@pytest.mark.usefixtures("installed")
def test_an_intervention_of_another_package_is_tried_like_the_others() -> None:
    assert len(OWN.strip().splitlines()) < 40
    assert find_changes(make_diagnosis())["more_epochs"] == {"max_epochs": 12}
    assert list(load_interventions())[-1] == "more_epochs"


def test_all_entry_points_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "no_such_module:Own", "json:dumps", "analysis.interventions.registry:CutMix")
    with pytest.raises(UserInputError) as caught:
        load_interventions()
    for message in (
        "No module named 'no_such_module'",
        "it is no subclass",
        "there is an intervention 'cutmix' already",
    ):
        assert message in str(caught.value)


def test_nothing_is_weighted_where_all_classes_are_confused() -> None:
    """The weights would be equal: the control itself, at the price of a row."""
    both = make_diagnosis(class_names=("cat", "dog"))
    for name in ("weighted_loss", "hard_examples"):
        intervention = load_interventions()[name]
        assert intervention.make_changes(both) is None
        assert "all classes are confused" in intervention.no_change
        assert intervention.make_changes(make_diagnosis()) is not None

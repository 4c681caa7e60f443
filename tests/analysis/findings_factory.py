"""Findings of an invented study with three arms, for tests of figures, tables and reports."""

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.arms.values import ArmFinding, ModelAudit
from analysis.baselines.values import LINEAR_PROBE, MAJORITY, Baseline, BaselineFindings
from analysis.causes.values import CueEffect, RootCause
from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.values import ArmChoice, ChoiceRule, SideMetric, Verdict
from analysis.confusions.class_scores import (
    compute_class_scores,
    compute_confusion,
    compute_macro_f1_intervals,
    find_confusion_examples,
)
from analysis.confusions.rates import compute_directed_confusions
from analysis.confusions.values import ConfusedPair, ConfusionCluster, GroupContrast, HumanExcess, LabelIssue
from analysis.heat_maps.values import ArmCam, CamAdmission, CamCandidate, CamPanel, CamTest, CamView
from analysis.report.study_findings import Findings
from analysis.search.values import ParameterImportance, RungFinding, SearchArm, TuningCurve, TuningPoint
from analysis.shortcuts.values import AuditVerdict, ClassAudit, ClassGap, ColorLoss, FrequencyAudit, PairPull, RingAudit
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.interval import Interval, TwoIntervals
from tests.built_values import arm_of
from trainables.seeds import numpy_generator

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SKILLS = {"resnet18": 1.55, "resnet50": 1.75, "resnet50-cutmix": 1.56}
CONTRAST = GroupContrast(
    groups=("rigid", "deformable"), difference=0.12, p_value=0.029, smallest_p=1 / 210, num_classes=10
)
SEEDS = (101, 102, 103, 104, 105)
PASSPORT = {
    "code": {"commit": "4f2a9c1", "changes": "none"},
    "versions": {"torch": "2.13.0", "ray": "2.60.0", "optuna": "5.0.0"},
    "platform": {"system": "Linux", "cuda_devices": ["NVIDIA A100", "NVIDIA A100"]},
    "data": {"source": "cifar10", "fingerprint": "0123abcd", "num_images": {"train": 35000, "test": 2000}},
}


@functools.cache
def make_findings(num_classes: int = 10, num_images: int = 1500) -> Findings:
    """Return findings computed from random predictions, which depend on the arguments alone."""
    names = CLASS_NAMES[:num_classes]
    arms = {arm: make_predictions(arm, skill, num_classes, num_images) for arm, skill in SKILLS.items()}
    pairs = (("resnet50", "resnet18"), ("resnet50-cutmix", "resnet18"))
    costs = (2.3, None)
    rows = tuple(
        dataclasses.replace(
            compare_arms(arms[a], arms[b], margin=0.005, alpha=0.05, num_rows=len(pairs), cost_ratio=cost),
            side_metrics=SIDE_METRICS,
        )
        for (a, b), cost in zip(pairs, costs, strict=True)
    )
    panels = (make_panel(17, "both correct"), make_panel(204, "most confused pair"))
    keys = ["root_causes", "clever_hans", "tuning_curves", "arm_shares", "class_f1", "comparison", "learning_curves"]
    keys += ["rungs", "panel_01", "panel_02", *(f"confusion_{arm}" for arm in arms)]
    return Findings(
        study="cifar10-backbones",
        created="2026-01-15T12:00:00+00:00",
        class_names=names,
        factor="backbone",
        minimum=0.65,
        search=tuple(make_search_arm(arm, share) for arm, share in zip(arms, (0.36, 0.4, 0.24), strict=True)),
        rungs=(3, 9),
        rung_findings=tuple(make_rung_finding(arm, epoch) for arm in arms for epoch in (3, 9)),
        importances=make_importances(list(arms)),
        tuning_curves=tuple(make_tuning_curve(arm, scale) for arm, scale in zip(arms, (0.80, 0.84, 0.78), strict=True)),
        search_notes=("resnet18: some regimes for parameter class_weight_strength have less than 2 trials.",),
        search_page="search.html",
        allocation="per_arm",
        warm_start="an-earlier-study",
        arms=tuple(make_arm_finding(a, names, minimum=0.65) for a in arms.values()),
        rows=rows,
        audit_note="" if num_classes == 10 else "The audit was switched off.",
        human_note="" if num_classes == 10 else "There are no human counts.",
        label_issues=(LabelIssue(sample_id=42, label=names[0], suggested=names[1], label_quality=0.0213),),
        panels=panels,
        cam_note="Heat maps are shown as illustrations, not as evidence: they were not tested.",
        num_test_reads=1,
        folds=0,
        warnings=("The arm resnet50-cutmix got 24% of the search's device time; an equal share is 33%.",),
        figures={key: f"{key}.png" for key in sorted(keys)},
        passport=PASSPORT,
    )


def make_predictions(arm: str, skill: float, num_classes: int, num_images: int) -> ArmPredictions:
    """Return noisy predictions with errors in favor of the next class, on images that all arms share."""
    labels = np.arange(num_images) % num_classes
    hardness = numpy_generator(0, "images").normal(0, 1, (num_images, num_classes))
    bias = np.roll(np.eye(num_classes), 1, axis=1) * 0.8
    predicted = []
    for seed in SEEDS:
        noise = numpy_generator(seed, arm).normal(0, 0.5, (num_images, num_classes))
        scores = 2 * skill * np.eye(num_classes)[labels] + bias[labels] + hardness + noise
        predicted.append(scores.argmax(axis=1))
    return arm_of(labels, predicted, arm, seeds=SEEDS, num_classes=num_classes)


def make_arm_finding(arm: ArmPredictions, class_names: tuple[str, ...], minimum: float | None) -> ArmFinding:
    """Return the finding of one arm; cost and configuration are invented."""
    macro_f1 = compute_macro_f1_intervals(arm, 0.95)
    directed, num_directed = compute_directed_confusions(arm, class_names)
    large = "50" in arm.name
    return ArmFinding(
        arm=arm.name,
        trial_id="0012",
        confirmation_ids=tuple(f"{i:04d}" for i in range(len(arm.seeds))),
        seeds=arm.seeds,
        hyperparameters={"max_lr": 0.0031622776, "interpolation": "bicubic"} | ({"cutmix": 0.5} if large else {}),
        search_macro_f1=macro_f1.estimate + 0.012,
        confirm_macro_f1=macro_f1.estimate + 0.003,
        test_macro_f1=macro_f1,
        class_scores=compute_class_scores(arm, class_names, 0.95),
        confusion=compute_confusion(arm, class_names, 0.95),
        confused_pairs=make_pairs(class_names) if large else (),
        directed=directed,
        num_directed=num_directed,
        examples=find_confusion_examples(arm, class_names),
        ring_audits=tuple(make_ring_audit(class_names, pixels, large=large) for pixels in (4, 6)),
        pulls=(PairPull(true_class=class_names[0], ring_class=class_names[1], pull=PULL),) if large else (),
        group_contrasts=(CONTRAST,) if large else (),
        color_losses=tuple(ColorLoss(class_name=name, loss=PULL) for name in class_names) if large else (),
        root_causes=make_causes(class_names) if large else (),
        frequency_audit=FREQUENCIES if large else None,
        cam_admission=ADMISSION if large else None,
        exported=make_model_audit(arm, class_names) if large else None,
        clusters=(ConfusionCluster(classes=class_names[:2], stability=0.9825),) if large else (),
        minimum_cleared=None if minimum is None else recipe_of(macro_f1).low > minimum,
        num_parameters=23_528_522 if large else 11_181_642,
        forward_flops=8_178_368_512 if large else 3_628_146_688,
        device_seconds=412.7 if large else 179.4,
        train_images_per_second=1874.0,
        predict_images_per_second=5210.0,
        points_per_device_hour=612.0,
        peak_memory_bytes=3_221_225_472,
        device="NVIDIA A100",
    )


def recipe_of(found: TwoIntervals) -> Interval:
    """Return the interval for the recipe, which these arms of several seeds have."""
    assert found.recipe is not None
    return found.recipe


def both(estimate: float, low: float, high: float) -> TwoIntervals:
    """Return intervals of which that for these models is half as wide."""
    return TwoIntervals(
        models=Interval(estimate=estimate, low=(estimate + low) / 2, high=(estimate + high) / 2),
        recipe=Interval(estimate=estimate, low=low, high=high),
    )


PULL = both(0.08, 0.03, 0.13)
SIDE_METRICS = (
    SideMetric(name="accuracy", group="", treatment=0.8421, control=0.8301, difference=both(0.012, -0.004, 0.028)),
    SideMetric(name="log loss", group="", treatment=0.5123, control=0.5435, difference=both(-0.0312, -0.05, -0.0124)),
    SideMetric(name="accuracy", group="rigid", treatment=0.9, control=0.8, difference=both(0.1, 0.05, 0.15)),
)
FAILED: dict[str, Any] = {"verdict": AuditVerdict.FAIL, "recipe_verdict": AuditVerdict.UNDECIDED}
FREQUENCIES = FrequencyAudit(
    waves=((0, 5), (31, 2)),
    gap=both(0.01, -0.01, 0.03),
    classes=(ClassGap(class_name="airplane", gap=both(0.2, 0.02, 0.38), **FAILED),),
    **FAILED,
)


def make_candidate(layer: str, side: int, method: str, num_images: int, road: float, similarity: float) -> CamCandidate:
    """Return a method with maps of `side` cells a side, of which none is empty."""
    values: dict[str, Any] = {"num_images": num_images, "road": road, "standard_error": 0.015, "empty_share": 0.0}
    return CamCandidate(layer=layer, map_size=(side, side), method=method, similarity=similarity, **values)


ADMISSION = CamAdmission(
    layer="layer2",
    map_size=(4, 4),
    num_images=640,
    tests=(
        CamTest(name="empty maps", estimate=both(0.0, 0.0, 0.006), rule="under 1 %", is_passed=True),
        CamTest(name="ROAD", estimate=both(0.02, -0.01, 0.05), rule="lies above 0", is_passed=False),
        CamTest(name="rings", estimate=both(0.1, -0.1, 0.3), rule="correlates", is_passed=False, applies=False),
    ),
    is_admitted=False,
    object_focus=both(0.12, 0.08, 0.16),
    method="HiResCAM",
    candidates=(
        make_candidate("layer2", 4, "HiResCAM", 96, 0.0719, 0.03),
        make_candidate("layer1", 8, "LayerCAM", 32, 0.104, 0.78),
    ),
)


def make_model_audit(arm: ArmPredictions, class_names: tuple[str, ...]) -> ModelAudit:
    """Return the audit of the model with the first seed, which has no interval for the recipe."""
    alone = dataclasses.replace(arm, seeds=arm.seeds[:1], predicted=arm.predicted[:1])
    of_model = TwoIntervals(models=PULL.models, recipe=None)
    return ModelAudit(
        seed=arm.seeds[0],
        trial_id="0000",
        macro_f1=compute_macro_f1_intervals(alone, 0.95),
        class_scores=compute_class_scores(alone, class_names, 0.95),
        directed=compute_directed_confusions(alone, class_names)[0],
        ring_audits=tuple(make_ring_audit(class_names, pixels, large=True) for pixels in (4, 6)),
        color_losses=tuple(ColorLoss(class_name=name, loss=of_model) for name in class_names),
        frequency_audit=FREQUENCIES,
    )


def make_pairs(class_names: tuple[str, ...]) -> tuple[ConfusedPair, ...]:
    """Return one pair with a human confusion rate and one without."""
    rate = both(0.123, 0.101, 0.149)
    excess = both(0.071, 0.043, 0.098)
    human = HumanExcess(human_rate=0.052, excess=excess, word="machine-specific", recipe_word="undecided")
    first = ConfusedPair(classes=class_names[:2], rate=rate, expected_rate=0.04, p_adjusted=0.001, human=human)
    return first, ConfusedPair(classes=class_names[1:3], rate=rate, expected_rate=0.06, p_adjusted=0.012)


def make_ring_audit(class_names: tuple[str, ...], pixels: int, *, large: bool) -> RingAudit:
    """Return an audit in which a large arm fails for two classes, of which the first is confirmed."""
    low, high = both(0.01, -0.02, 0.04), both(0.2, 0.11, 0.29)
    open_, ring = both(0.04, -0.03, 0.11), both(0.22, 0.2, 0.25)
    classes = [
        ClassAudit(
            class_name=name,
            gap=high if large and i < 2 else open_ if i == 2 else low,
            verdict=AuditVerdict.FAIL if large and i < 2 else AuditVerdict.UNDECIDED if i == 2 else AuditVerdict.PASS,
            recipe_verdict=AuditVerdict.FAIL if large and i == 0 else AuditVerdict.UNDECIDED,
            object_free_gap=high if i == 0 else None,
            is_confirmed=i == 0 if large and i < 2 else None,
            recipe_confirmed=True if large and i == 0 else None,
            ring_only_accuracy=ring,
        )
        for i, name in enumerate(class_names)
    ]
    return RingAudit(
        ring_pixels=pixels,
        gap=both(0.05, 0.03, 0.07),
        ring_only_accuracy=ring,
        chance=1 / len(class_names),
        classes=tuple(classes),
        verdict=AuditVerdict.FAIL if large else AuditVerdict.UNDECIDED,
        recipe_verdict=AuditVerdict.FAIL if large else AuditVerdict.UNDECIDED,
        object_free_by="fewest edges in the ring",
        num_object_free=500,
        region="bottom side" if large else "",
    )


def make_causes(class_names: tuple[str, ...]) -> tuple[RootCause, ...]:
    """Return a pair with a named cause, one that was not measured, and one in one direction, of one model."""
    strengths = {"texture": 1.2, "shape": 0.3, "color": 0.1, "context": -0.2}
    effects = tuple(
        CueEffect(cue=cue, effect=both(value, value - 0.4, value + 0.4)) for cue, value in strengths.items()
    )
    mixed: dict[str, Any] = {"cause": "mixed", "recipe_cause": "mixed"}
    measured: dict[str, Any] = {"effects": effects, "lead": both(0.9, 0.3, 1.5)}
    named = RootCause(classes=class_names[:2], num_images=31, note="", **measured, **mixed | {"cause": "texture"})
    unknown: dict[str, Any] = {"effects": (), "lead": both(0.0, 0.0, 0.0)}
    too_few = RootCause(classes=class_names[1:3], num_images=3, note="too few images", **unknown, **mixed)
    one_way: dict[str, Any] = {"num_references": 60, "note": "one model", "is_directed": True, "recipe_cause": None}
    directed = RootCause(classes=class_names[1::-1], num_images=22, **measured, **mixed | one_way)
    return named, too_few, directed


def make_search_arm(arm: str, share: float) -> SearchArm:
    """Return the search of one arm with ten trials."""
    counts = {"num_trials": 10, "num_completed": 4, "num_pruned": 5, "num_failed": 1}
    saved = {"saved_device_seconds": 3600 * share, "saved_fraction": 1 / 3}
    best: dict[str, Any] = {"best_macro_f1": 0.81, "best_trial_id": "00017"}
    return SearchArm(arm=arm, device_seconds=7200 * share, share=share, **counts, **saved, **best)


def make_tuning_curve(arm: str, scale: float) -> TuningCurve:
    """Return a curve that rises to `scale`, later for higher scales."""
    points = tuple(
        TuningPoint(device_seconds=60.0 * i, expected=value, low=value - 0.02, high=min(value + 0.01, scale))
        for i in range(1, 30)
        for value in [scale * (1 - (2 * scale - 1) / (i + 1))]
    )
    return TuningCurve(arm=arm, points=points, observed=((60.0, 0.3), (300.0, 0.7), (1500.0, scale)))


def make_rung_finding(arm: str, epoch: int) -> RungFinding:
    """Return a rung with a correlation; the rungs after epoch 3 have no interval."""
    early = epoch == 3
    return RungFinding(
        arm=arm,
        epoch=epoch,
        num_reached=13 if early else 9,
        num_stopped=4 if early else 1,
        num_completed=8,
        rank_correlation=0.8 if early else 1.0,
        interval=Interval(estimate=0.8, low=-0.35, high=0.99) if early else None,
    )


def make_importances(arms: list[str]) -> tuple[ParameterImportance, ...]:
    """Return importances of two hyperparameters; the last arm has only one of them."""
    shares = {"max_lr": 0.617, "cutmix_probability": 0.383}
    return tuple(
        ParameterImportance(arm=arm, parameter=name, importance=share)
        for arm in arms
        for name, share in shares.items()
        if not (arm == arms[-1] and name == "cutmix_probability")
    )


def make_panel(sample_id: int, reason: str) -> CamPanel:
    """Return a panel of two arms, of which the second predicts the wrong class and has chosen maps beside Grad-CAM."""
    right: dict[str, Any] = {"predicted_class": "cat", "predicted_probability": 0.91, "true_probability": 0.91}
    wrong: dict[str, Any] = {"predicted_class": "dog", "predicted_probability": 0.62, "true_probability": 0.31}
    is_empty = sample_id == 204
    chosen: dict[str, Any] = {"degenerate": False, "method": "HiResCAM"}
    views = (
        CamView(arm="resnet18", layer="layer3", map_size=(4, 4), degenerate=False, **right),
        CamView(arm="resnet50", layer="layer4", map_size=(7, 7), degenerate=is_empty, **wrong),
        CamView(arm="resnet50", layer="layer3", map_size=(14, 14), **wrong, **chosen),
    )
    figure = "panel_01.png" if sample_id == 17 else "panel_02.png"
    return CamPanel(sample_id=sample_id, true_class="cat", reason=reason, views=views, figure=figure)


def make_arm_cams(panel: CamPanel) -> tuple[ArmCam, ...]:
    """Return maps with one peak each; degenerate views have empty maps."""

    def peak(size: tuple[int, int], degenerate: bool) -> NDArray[np.float32]:
        rows, columns = np.mgrid[: size[0], : size[1]]
        away = (rows - size[0] / 2) ** 2 + (columns - size[1] / 3) ** 2
        return (0.0 if degenerate else 0.37) * np.exp(-away / 3).astype(np.float32)

    return tuple(
        ArmCam(view=view, predicted_cam=peak(view.map_size, view.degenerate), true_cam=peak(view.map_size, False)[::-1])
        for view in panel.views
    )


def make_choice(score: float = 0.7, **changes: Any) -> ArmChoice:
    """Return the choice of resnet50, which is better than resnet18 on the confirm split."""
    effect = Interval(estimate=0.052, low=0.011, high=0.093)
    scores = {"resnet18": score - 0.052, "resnet50": score}
    values = {
        "arm": "resnet50",
        "rule": ChoiceRule.DECIDED,
        "confirm_macro_f1": scores,
        "leader": "resnet50",
        "effect": effect,
    }
    return ArmChoice(**(values | changes))


def make_baselines(verdict: Verdict = Verdict.UNDECIDED, *, handed_over: str = LINEAR_PROBE) -> BaselineFindings:
    """Return two probes, that on resnet18 chosen, and resnet50 against it on the test split."""
    shared: dict[str, Any] = {"num_images": 335, "num_train": 335}
    scores = {"search_macro_f1": 0.66, "confirm_macro_f1": 0.671, "test_macro_f1": 0.659}
    fit: dict[str, Any] = {"strength": 0.01, "class_weights": "balanced", "seconds": 14.2}
    probe = Baseline(name=LINEAR_PROBE, backbone="resnet18", **fit, **scores, **shared)
    sampled = {"num_images": 5000, "num_train": 20_000, "class_weights": "none", "search_macro_f1": 0.61}
    scores = {"search_macro_f1": 0.07, "confirm_macro_f1": 0.072, "test_macro_f1": 0.0712}
    majority = Baseline(name=MAJORITY, backbone="", class_name="cat", seconds=0.0, **scores, **shared)
    row = dataclasses.replace(
        make_findings().rows[0],
        treatment="resnet50",
        control=LINEAR_PROBE,
        effect=Interval(estimate=-0.004, low=-0.031, high=0.023),
        confidence=0.95,
        verdict=verdict,
        settles="",
    )
    return BaselineFindings(
        majority=majority,
        probes=(probe, dataclasses.replace(probe, backbone="resnet50", seconds=31.0, **sampled)),
        chosen="resnet18",
        notes=("There is no probe of convnext: it has no pretrained weights.",),
        choice=make_choice(0.6 if handed_over == LINEAR_PROBE else 0.7),
        handed_over=handed_over,
        row=row,
    )

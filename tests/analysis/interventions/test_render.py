"""The section, the tables and the figure of interventions."""

import csv
import io
from dataclasses import replace

import pytest
from rich.console import Console

from analysis.comparison.tables import build_table_rows
from analysis.comparison.values import Verdict
from analysis.formats.figures import figure_to_png
from analysis.interventions.render import (
    STATED_CHANGED,
    build_intervention_csv,
    build_intervention_rich_table,
    build_stated_rich_table,
    format_effect,
    plot_interventions,
)
from analysis.interventions.values import (
    Collateral,
    InterventionEffect,
    InterventionFindings,
    NotTried,
    Outcome,
    Prediction,
    StatedIntervention,
    StatedInterventions,
    Target,
    TargetEffect,
    TargetKind,
)
from analysis.report.pages import build_html, build_report_markdown
from analysis.report.study_findings import Findings
from analysis.statistics.interval import Interval
from tests.analysis.findings_factory import make_findings


def make_interval(estimate: float, width: float = 0.03) -> Interval:
    return Interval(estimate=estimate, low=estimate - width, high=estimate + width)


def make_interventions(*, is_changed: bool = False) -> InterventionFindings:
    """Return a swap of backgrounds that held its prediction, and CutMix without a prediction, on a target that was seen."""
    stated = (
        StatedIntervention(
            arm="background_swap",
            title="rings of other classes in training",
            symptom="frog loses 21.0 pp of accuracy with rings of other classes",
            diagnosis="the models use the surroundings of the object",
            verdict="FAIL",
            changes={"ring_swap_probability": 0.5},
            target=Target(kind=TargetKind.RING_GAP, classes=("frog",)),
            spares="the F1 of the other classes",
            prediction=Prediction(effect=make_interval(-0.21), basis="the whole gap"),
            refuted_by="the ring gap rises",
            is_seen=False,
            num_target_images=120,
        ),
        StatedIntervention(
            arm="cutmix",
            title="CutMix",
            symptom="cat is predicted as dog in 20.0 % of its images",
            diagnosis="root cause mixed",
            verdict="MATERIAL",
            changes={"cutmix_probability": 0.5},
            target=Target(kind=TargetKind.CELLS, classes=("cat",), cells=(("cat", "dog"),)),
            spares="the F1 of the other classes",
            prediction=Prediction(effect=None, basis="nothing says how far this goes"),
            refuted_by="the rate of these cells does not fall",
            is_seen=True,
            num_target_images=90,
        ),
    )
    target = TargetEffect(
        effect=make_interval(-0.19),
        treatment=0.02,
        control=0.21,
        verdict=Verdict.BETTER,
        confidence=0.9875,
        num_seeds=5,
        num_images=120,
    )
    effects = (
        InterventionEffect(
            stated=stated[0],
            macro_f1=make_interval(0.012, 0.01),
            macro_f1_verdict=Verdict.BETTER,
            target=target,
            outcome=Outcome.HELD,
            collateral=Collateral(class_name="ship", effect=make_interval(-0.01), num_certain=0),
            ring_gap=make_interval(-0.08),
            cost_ratio=1.1,
            device_seconds=300.0,
            note="",
            p_noninferior=0.001,
            noninferior_level=0.0125,
        ),
        InterventionEffect(
            stated=stated[1],
            macro_f1=None,
            macro_f1_verdict=None,
            target=None,
            outcome=Outcome.NONE,
            collateral=None,
            ring_gap=None,
            cost_ratio=None,
            device_seconds=280.0,
            note="fewer than two seeds finished in both arms",
        ),
    )
    return InterventionFindings(
        stated=StatedInterventions(
            created="2026-01-20T12:00:00+00:00",
            parent="studies/cifar10-backbones",
            round=1,
            source_arm="resnet50",
            source_trial_id="00012",
            half_seed=0,
            num_choosing=740,
            num_judging=760,
            interventions=stated,
            earlier_test_reads=1,
            not_tried=(NotTried(name="other_interpolation", reason="no image is resized"),),
        ),
        is_changed=is_changed,
        control="control",
        alpha=0.025,
        effects=effects,
        recommended="background_swap",
        conclusion="Recommended: rings of other classes in training (background_swap), BETTER on macro-F1.",
        num_test_reads=2,
    )


def make_findings_with(found: InterventionFindings) -> Findings:
    findings = make_findings()
    return replace(findings, interventions=found, figures=findings.figures | {"interventions": "interventions.png"})


@pytest.mark.parametrize("is_changed", [False, True])
def test_both_reports_show_the_chain_and_whether_it_was_changed(is_changed: bool) -> None:
    findings = make_findings_with(make_interventions(is_changed=is_changed))
    rows = build_table_rows(findings.rows)
    reports = (
        build_html(findings, rows, dict.fromkeys(findings.figures, b"png")),
        build_report_markdown(findings, rows),
    )
    for report in reports:
        for text in (
            "frog loses 21.0 pp of accuracy",
            "FAIL",
            "-21.0 [-24.0, -18.0]",
            "-19.0 [-22.0, -16.0]",
            "held",
            "ship -1.0",
            "1.1x cost",
            "no prediction",
            "cat as dog, 90 images, seen",
            "fewer than two seeds finished",
            "The test split was read 2 times",
            "excluded at its level, 0.013 for background_swap and 0 for cutmix; a wrong recommendation",
            "Not tried: other_interpolation, since no image is resized.",
        ):
            assert text in report.replace("\\", ""), text
        assert (STATED_CHANGED in report) == is_changed


def test_a_study_without_interventions_has_no_such_section() -> None:
    findings = make_findings()
    rows = build_table_rows(findings.rows)
    assert "Interventions" not in build_report_markdown(findings, rows)
    shown = build_report_markdown(findings, rows, {"mine-intervene-1": make_interventions(is_changed=False)})
    assert "## Interventions that were tried" in shown
    assert "### mine-intervene-1" in shown


def test_terminal_lines_and_csv_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = make_interventions(is_changed=True)
    console = Console(width=200)
    console.print(build_intervention_rich_table(found))
    console.print(build_stated_rich_table(found.stated))
    shown = " ".join(capsys.readouterr().out.split())
    assert "prediction: held" in shown
    assert "refuted if the ring gap rises" in shown
    assert shown.count("Not tried: other_interpolation") == 2
    line = format_effect(found.effects[0], is_changed=True)
    assert line.endswith("1.1x cost, 5 min 00 s | STATEMENTS CHANGED")
    assert "ring gap of frog | predicted -21.0 [-24.0, -18.0] | measured -19.0 [-22.0, -16.0] BETTER" in line
    swap, cutmix = csv.DictReader(io.StringIO(build_intervention_csv(found)))
    assert float(swap["measured_pp"]) == pytest.approx(-19)
    assert (float(swap["p_noninferior"]), float(swap["noninferior_level"])) == (0.001, 0.0125)
    assert (swap["outcome"], swap["recommended"], swap["statements_changed"]) == ("held", "True", "True")
    assert (cutmix["measured_pp"], cutmix["seen"], cutmix["outcome"]) == ("", "True", "no prediction")


def test_the_figure_has_an_interval_for_each_prediction_and_each_measurement() -> None:
    figure = plot_interventions(make_interventions().effects)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["background_swap"]
    assert len(axes.containers) == 2
    assert figure_to_png(figure).startswith(b"\x89PNG")

"""The section, the tables and the figure of interventions."""

import csv
import io
from dataclasses import replace

import pytest
from rich.console import Console

from analysis.comparison.tables import build_table_rows
from analysis.comparison.values import Verdict
from analysis.formats.figures import figure_to_png
from analysis.interventions import render, values
from analysis.report.pages import build_html, build_report_markdown
from analysis.report.study_findings import Findings
from tests.analysis.findings_factory import make_findings
from tests.analysis.interventions.stated_values import effect_of, make_target_effect, stated_of
from tests.built_values import interval_around


def make_interventions(*, is_changed: bool = False) -> values.InterventionFindings:
    """Return a swap of backgrounds that held its prediction, and CutMix without a prediction, on a target that was seen."""
    swap = stated_of(
        "background_swap",
        title="rings of other classes in training",
        symptom="frog loses 21.0 pp of accuracy with rings of other classes",
        verdict="FAIL",
        target=values.Target(kind=values.TargetKind.RING_GAP, classes=("frog",)),
        prediction=values.Prediction(effect=interval_around(-0.21, 0.03), basis="the whole gap"),
        refuted_by="the ring gap rises",
    )
    cutmix = stated_of("cutmix", title="CutMix", is_seen=True, num_target_images=90)
    effects = (
        effect_of(
            swap,
            interval_around(0.012, 0.01),
            Verdict.BETTER,
            make_target_effect(-0.19, 0.03),
            outcome=values.Outcome.HELD,
            collateral=values.Collateral(class_name="ship", effect=interval_around(-0.01, 0.03), num_certain=0),
            ring_gap=interval_around(-0.08, 0.03),
            cost_ratio=1.1,
            device_seconds=300.0,
            p_noninferior=0.001,
            noninferior_level=0.0125,
        ),
        effect_of(cutmix, None, None, None, cost_ratio=None, note="fewer than two seeds finished in both arms"),
    )
    return values.InterventionFindings(
        stated=values.StatedInterventions(
            created="2026-01-20T12:00:00+00:00",
            parent="studies/cifar10-backbones",
            round=1,
            source_arm="resnet50",
            source_trial_id="00012",
            half_seed=0,
            num_choosing=740,
            num_judging=760,
            interventions=(swap, cutmix),
            earlier_test_reads=1,
            not_tried=(values.NotTried(name="other_interpolation", reason="no image is resized"),),
        ),
        is_changed=is_changed,
        control="control",
        alpha=0.025,
        effects=effects,
        recommended="background_swap",
        conclusion="Recommended: rings of other classes in training (background_swap), BETTER on macro-F1.",
        num_test_reads=2,
    )


def make_findings_with(found: values.InterventionFindings) -> Findings:
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
            "frog loses 21.0 pp of accuracy", "FAIL", "-21.0 [-24.0, -18.0]", "-19.0 [-22.0, -16.0]", "held",
            "ship -1.0", "1.1x cost", "no prediction", "cat as dog, 90 images, seen",
            "fewer than two seeds finished", "The test split was read 2 times",
            "excluded at its level, 0.013 for background_swap and 0 for cutmix; a wrong recommendation",
            "Not tried: other_interpolation, since no image is resized.",
        ):  # fmt: skip
            assert text in report.replace("\\", ""), text
        assert (render.STATED_CHANGED in report) == is_changed


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
    console.print(render.build_intervention_rich_table(found))
    console.print(render.build_stated_rich_table(found.stated))
    shown = " ".join(capsys.readouterr().out.split())
    assert "prediction: held" in shown
    assert "refuted if the ring gap rises" in shown
    assert shown.count("Not tried: other_interpolation") == 2
    line = render.format_effect(found.effects[0], is_changed=True)
    assert line.endswith("1.1x cost, 5 min 00 s | STATEMENTS CHANGED")
    assert "ring gap of frog | predicted -21.0 [-24.0, -18.0] | measured -19.0 [-22.0, -16.0] BETTER" in line
    swap, cutmix = csv.DictReader(io.StringIO(render.build_intervention_csv(found)))
    assert float(swap["measured_pp"]) == pytest.approx(-19)
    assert (float(swap["p_noninferior"]), float(swap["noninferior_level"])) == (0.001, 0.0125)
    assert (swap["outcome"], swap["recommended"], swap["statements_changed"]) == ("held", "True", "True")
    assert (cutmix["measured_pp"], cutmix["seen"], cutmix["outcome"]) == ("", "True", "no prediction")


def test_the_figure_has_an_interval_for_each_prediction_and_each_measurement() -> None:
    figure = render.plot_interventions(make_interventions().effects)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["background_swap"]
    assert len(axes.containers) == 2
    assert figure_to_png(figure).startswith(b"\x89PNG")

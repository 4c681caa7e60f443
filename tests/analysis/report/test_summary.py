"""The first lines of a report answer which, how sure, and where and what helps, whatever the study found."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.comparison.tables import build_table_rows
from analysis.comparison.values import Question, Verdict
from analysis.confusions.values import Materiality
from analysis.report.pages import build_html, build_report_markdown
from analysis.report.study_findings import Findings
from analysis.report.summary import CERTAINTY, FAILURES, WHICH, summarize
from analysis.search.render import format_correlation
from analysis.shortcuts.values import AuditVerdict
from analysis.statistics.interval import Interval
from tests.analysis.findings_factory import make_baselines, make_findings, make_rung_finding

FINDINGS = make_findings()
TRIED: Any = {"mine-intervene-1": SimpleNamespace(conclusion="Recommended: CutMix (cutmix), BETTER on macro-F1.")}


def answer(findings: Findings, rounds: Any = None) -> dict[str, str]:
    return dict(summarize(findings, build_table_rows(findings.rows), rounds or {}))


def with_rows(
    verdict: Verdict, *, treatment: str = "resnet50", question: Question = Question.RECIPE, sign: int = 1
) -> Findings:
    """Return findings with one row, in which the winner is the treatment or, with sign -1, the control."""
    effect = Interval(estimate=0.031, low=0.012, high=0.05)
    row = replace(
        FINDINGS.rows[0],
        treatment=treatment,
        control="resnet18" if treatment == "resnet50" else "resnet50",
        verdict=verdict,
        question=question,
        effect=effect if sign == 1 else effect.negated(),
        settles="about 9 seeds would settle it (now 5)" if verdict is Verdict.UNDECIDED else "",
    )
    return replace(FINDINGS, rows=(row,))


@pytest.mark.parametrize(
    ("verdict", "treatment", "sign", "text"),
    [
        (Verdict.BETTER, "resnet50", 1, "resnet50 is better than resnet18: +3.10 pp [+1.20, +5.00]."),
        (Verdict.WORSE, "resnet18", -1, "resnet50 is better than resnet18: +3.10 pp [+1.20, +5.00]."),
        (
            Verdict.EQUIVALENT,
            "resnet50",
            1,
            "resnet50 and resnet18 are equivalent within 0.5 pp (+3.10 pp [+1.20, +5.00]).",
        ),
        (
            Verdict.UNDECIDED,
            "resnet18",
            -1,
            "No difference between the arms is certain. resnet50 vs resnet18: +3.10 pp [+1.20, +5.00], not significant "
            "(UNDECIDED).",
        ),
    ],
)
def test_the_first_answer_names_the_arm_and_how_it_compares(
    verdict: Verdict, treatment: str, sign: int, text: str
) -> None:
    """With the better side first, whichever of them is the treatment."""
    found = answer(with_rows(verdict, treatment=treatment, sign=sign))[WHICH]
    assert found.startswith("resnet50 has the highest macro-F1 on the test split, ")
    assert text in found


def test_a_certain_difference_between_other_arms_is_not_denied() -> None:
    undecided = with_rows(Verdict.UNDECIDED).rows[0]
    certain = replace(with_rows(Verdict.WORSE).rows[0], treatment="convnext", control="resnet18")
    assert "No difference" not in answer(replace(FINDINGS, rows=(undecided, certain)))[WHICH]


PROBE = "a linear probe on frozen features of resnet18 (macro-F1 65.9 % after 14 s): -0.40 pp [-3.10, +2.30]"


@pytest.mark.parametrize(
    ("verdict", "handed_over", "text"),
    [
        (
            Verdict.UNDECIDED,
            "linear-probe",
            f"The probe is handed over. resnet50 is not shown to be better than {PROBE}. ",
        ),
        (Verdict.WORSE, "linear-probe", f"The probe is handed over. resnet50 is worse than {PROBE}. "),
        (Verdict.UNDECIDED, "resnet50", f"It is handed over. resnet50 is not shown to be better than {PROBE}. "),
        (Verdict.BETTER, "resnet50", f"It is handed over. resnet50 is better than {PROBE}. "),
    ],
)
def test_the_second_sentence_says_what_is_handed_over(verdict: Verdict, handed_over: str, text: str) -> None:
    baselines = make_baselines(verdict, handed_over=handed_over)
    found = answer(replace(with_rows(Verdict.BETTER), baselines=baselines))[WHICH]
    first, _, rest = found.partition(" %. ")
    assert first.startswith("resnet50 has the highest macro-F1 of the arms on the test split, ")
    assert rest.startswith(text)
    assert rest.endswith(" resnet50 is better than resnet18: +3.10 pp [+1.20, +5.00].")


def test_where_test_and_confirm_split_disagree_the_first_answer_says_so_with_the_export_of_both() -> None:
    baselines = replace(make_baselines(handed_over="resnet18"), probes=(), chosen="", row=None)
    found = answer(replace(with_rows(Verdict.BETTER), baselines=baselines, study="mine", argument=""))[WHICH]
    assert "resnet18 is handed over. But resnet50 is better than resnet18 on the test split" in found
    assert "`study export mine` writes both, as export/resnet18 and export/resnet50." in found


def test_without_a_probe_the_second_sentence_has_the_majority_class_and_the_reason() -> None:
    baselines = replace(make_baselines(handed_over="resnet50"), probes=(), chosen="", row=None)
    found = answer(replace(FINDINGS, baselines=baselines))[WHICH]
    wanted = (
        f"%. It is handed over. Always predicting the majority class gives a macro-F1 of 7.1 %. {baselines.notes[0]} "
    )
    assert wanted in found


def test_before_the_test_split_is_read_nothing_is_said_about_the_probe() -> None:
    unread = replace(make_baselines(), row=None)
    assert "probe on" not in answer(replace(FINDINGS, baselines=unread))[WHICH]


def test_a_factorial_design_answers_by_its_factors() -> None:
    factor = replace(FINDINGS.rows[0], treatment="optimizer=adamw", control="optimizer=sgd", verdict=Verdict.BETTER)
    other = replace(factor, treatment="augmentation=trivial", control="augmentation=none", verdict=Verdict.UNDECIDED)
    both = replace(factor, treatment="optimizer x augmentation", control="no interaction")
    found = answer(replace(FINDINGS, rows=(factor, other, both)))[WHICH]
    assert "optimizer=adamw is better than optimizer=sgd: +" in found
    assert "augmentation=trivial vs augmentation=none: +" in found
    assert "optimizer x augmentation" not in found


def test_the_second_answer_says_on_what_it_rests_and_what_is_open() -> None:
    found = answer(with_rows(Verdict.UNDECIDED))[CERTAINTY]
    assert "5 paired seeds and 1,500 test images; the verdict holds for new seeds and new test images." in found
    assert "resnet50 vs resnet18: about 9 seeds would settle it (now 5)." in found
    models = answer(with_rows(Verdict.BETTER, question=Question.MODELS))
    assert "holds for new test images alone" in models[CERTAINTY]
    assert "resnet50 is better than resnet18 for these models" in models[WHICH]


def test_an_arm_that_was_hardly_searched_is_said_first() -> None:
    search = (replace(FINDINGS.search[0], num_completed=1), *FINDINGS.search[1:])
    found = answer(replace(FINDINGS, search=search))[CERTAINTY]
    assert f"Hardly searched, by complete trials: {search[0].arm} 1." in found
    assert "Hardly searched" not in answer(replace(FINDINGS, search=search, allocation="given"))[CERTAINTY]


def test_the_third_answer_names_the_confusion_the_audit_and_what_was_tried() -> None:
    winner = max(FINDINGS.arms, key=lambda arm: arm.test_macro_f1.estimate)
    cell = replace(winner.directed[0], verdict=Materiality.MATERIAL)
    audit = winner.ring_audits[0]
    classes = (
        replace(audit.classes[0], verdict=AuditVerdict.FAIL),
        *(replace(found, verdict=AuditVerdict.PASS) for found in audit.classes[1:]),
    )
    arm = replace(winner, directed=(cell,), ring_audits=(replace(audit, classes=classes),))
    findings = replace(FINDINGS, arms=(arm,), rows=())
    found = answer(findings)
    assert f"{arm.arm}, the only arm, has a macro-F1 of " in found[WHICH]
    assert f"{cell.true_class} is predicted as {cell.predicted_class} in " in found[FAILURES]
    assert f"{classes[0].class_name} fails the Clever Hans audit" in found[FAILURES]
    assert found[FAILURES].endswith(f"has not been tried yet: `study intervene {FINDINGS.study}`.")
    assert answer(findings, TRIED)[FAILURES].endswith(
        "Tried in mine-intervene-1: Recommended: CutMix (cutmix), BETTER on macro-F1."
    )
    nothing = replace(arm, directed=(), ring_audits=())
    assert "confuses no class more often than by chance" in answer(replace(findings, arms=(nothing,)))[FAILURES]


def test_the_answers_open_both_reports() -> None:
    rows = build_table_rows(FINDINGS.rows)
    for report in (
        build_html(FINDINGS, rows, dict.fromkeys(FINDINGS.figures, b"")),
        build_report_markdown(FINDINGS, rows),
    ):
        places = [report.index(question) for question in (WHICH, CERTAINTY, FAILURES)]
        assert places == sorted(places)
        assert places[-1] < report.index("arm", places[-1])


def test_a_command_of_the_answers_is_set_as_code_and_names_are_escaped() -> None:
    findings = replace(FINDINGS, study="a<b>")
    html = build_html(findings, build_table_rows(findings.rows), dict.fromkeys(findings.figures, b""))
    assert "<code>study intervene a&lt;b&gt;</code>." in html
    assert "`study intervene" not in html
    placed = replace(FINDINGS, argument="'/data/my studies/mine'")
    assert "`study intervene '/data/my studies/mine'`" in build_report_markdown(placed, build_table_rows(placed.rows))
    assert f"`study intervene {FINDINGS.study}`" in build_report_markdown(FINDINGS, build_table_rows(FINDINGS.rows))


def test_a_correlation_of_few_trials_is_not_shown() -> None:
    rung = make_rung_finding("resnet18", 3)
    assert format_correlation(rung) == "0.80 [-0.35, 0.99]"
    assert format_correlation(replace(rung, num_completed=3)) == "needs 3 more complete trials"
    assert format_correlation(replace(rung, num_completed=5)) == "needs 1 more complete trial"

"""Baselines as text: nothing is lost before training or after it, and what is not better than the probe is not praised."""

import csv
import io
from dataclasses import replace

import pytest
from rich.console import Console

from analysis.baselines import render
from analysis.baselines.values import describe_baselines
from analysis.comparison.tables import PLAN_CHANGED
from analysis.comparison.values import ArmChoice, ArmDivergence, ChoiceRule, Question, Verdict
from analysis.statistics.interval import Interval
from tests.analysis.findings_factory import make_baselines, make_choice

FOUND = make_baselines()
UNTRAINED = replace(
    FOUND,
    majority=replace(FOUND.majority, test_macro_f1=None),
    probes=tuple(replace(probe, test_macro_f1=None) for probe in FOUND.probes),
    choice=None,
    handed_over="",
    row=None,
)
WITHOUT_PROBE = replace(FOUND, probes=(), chosen="", handed_over="resnet50", row=None)


def describe(found):
    return render.describe_handover(found, (), "mine")


def with_row(**changes):
    return replace(FOUND, row=replace(FOUND.row, **changes))


def test_the_lines_before_training_have_every_baseline_and_note() -> None:
    assert describe_baselines(UNTRAINED) == [
        "majority class (cat): macro-F1 0.07 on the search split",
        "linear probe on resnet18 (frozen features, C 0.01, class weights balanced): macro-F1 0.66 on the search split, "
        "335 training images, 14 s; chosen",
        "linear probe on resnet50 (frozen features, C 0.01, no class weights): macro-F1 0.61 on the search split, "
        "a stratified sample of 5,000 of 20,000 training images, 31 s",
        "There is no probe of convnext: it has no pretrained weights.",
    ]
    assert describe(UNTRAINED) == []


def test_a_single_probe_is_not_marked_as_chosen() -> None:
    single = replace(FOUND, probes=FOUND.probes[:1])
    assert "chosen" not in " ".join(describe_baselines(single)) + str(render.list_baseline_cells(single))
    assert "chosen" in str(render.list_baseline_cells(FOUND)[1])
    assert "chosen" not in str(render.list_baseline_cells(FOUND)[2])


@pytest.mark.parametrize(
    ("verdict", "verb", "end"),
    [
        (Verdict.BETTER, "is better than", ""),
        (Verdict.WORSE, "is worse than", ""),
        (Verdict.EQUIVALENT, "is not shown to be better than", ", but equivalent within 0.5 pp"),
        (Verdict.UNDECIDED, "is not shown to be better than", ""),
    ],
)
def test_the_verdict_names_the_score_and_the_seconds_of_the_probe(verdict: Verdict, verb: str, end: str) -> None:
    assert render.compare_with_probe(make_baselines(verdict), "The arm") == (
        f"The arm {verb} a linear probe on frozen features of resnet18 (macro-F1 65.9 % after 14 s){end}: "
        "-0.40 pp [-3.10, +2.30]"
    )


def test_the_handover_says_why_and_what_the_interval_covers() -> None:
    why, verdict, scope = describe(FOUND)
    assert why == (
        "The linear probe on resnet18 is handed over: its macro-F1 on the confirm split, 67.1 %, is higher than that of "
        "resnet50, 60.0 %."
    )
    assert verdict.startswith("resnet50 is not shown to be better than a linear probe")
    assert "(95 % confidence, 5 seeds, 1,500 test images) covers new seeds of resnet50 and new test images." in scope
    assert "The probe is one fixed model for these training images." in scope
    assert "has its own alpha, outside the family of arms" in scope


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (
            make_choice(),
            "resnet50 is handed over: on the confirm split it is better than every other arm "
            "(70.0 % against 64.8 %, +5.20 pp [+1.10, +9.30]).",
        ),
        (
            make_choice(rule=ChoiceRule.POOLED, pooled_macro_f1={"resnet18": 0.66, "resnet50": 0.68}),
            "resnet50 is handed over: resnet50, resnet18 are tied on the confirm split (70.0 % against 64.8 %, +5.20 pp "
            "[+1.10, +9.30]), and it has the highest macro-F1 on the search and confirm images together (resnet50 68.0 %, "
            "resnet18 66.0 %).",
        ),
        (
            make_choice(rule=ChoiceRule.CHEAPER, pooled_macro_f1={"resnet18": 0.66, "resnet50": 0.66}),
            "and it costs the least device time of those with the highest macro-F1 on the search and confirm images",
        ),
        (
            make_choice(rule=ChoiceRule.ONLY, effect=None),
            "resnet50, the only arm, is handed over; macro-F1 on the confirm split 70.0 %.",
        ),
    ],
)
def test_the_rule_by_which_an_arm_was_chosen_is_said(choice: ArmChoice, why: str) -> None:
    assert why in describe(replace(WITHOUT_PROBE, choice=choice))[0]


@pytest.mark.parametrize(
    ("sides", "verdict", "is_said"),
    [
        (("cutmix", "resnet50"), Verdict.BETTER, True),
        (("resnet50", "cutmix"), Verdict.WORSE, True),
        (("resnet50", "cutmix"), Verdict.BETTER, False),
        (("cutmix", "resnet50"), Verdict.UNDECIDED, False),
    ],
)
def test_a_verdict_for_another_arm_than_the_one_handed_over_is_said(
    sides: tuple[str, str], verdict: Verdict, is_said: bool
) -> None:
    assert FOUND.row is not None
    sign = {Verdict.WORSE: -1}.get(verdict, 1)
    effect = Interval(estimate=0.03 * sign, low=min(0.01 * sign, 0.05 * sign), high=max(0.01 * sign, 0.05 * sign))
    row = replace(FOUND.row, treatment=sides[0], control=sides[1], verdict=verdict, effect=effect)
    for make in (render.describe_handover, render.describe_below_table):
        said = [line for line in make(WITHOUT_PROBE, [row], "mine") if line.startswith("But ")]
        wanted = (
            "But cutmix is better than resnet50 on the test split, which judges and never chooses; `study export mine` writes "
            "both, as export/resnet50 and export/cutmix."
        )
        assert said == [wanted] * is_said


def test_an_interval_for_one_seed_covers_no_new_seeds() -> None:
    _, verdict, scope = describe(with_row(question=Question.MODELS, num_seeds=1))
    assert "for these models: -0.40 pp" in verdict
    assert "1 seed, 1,500 test images) covers new test images." in scope


def test_without_a_probe_the_winner_is_handed_over_and_no_verdict_is_given() -> None:
    (line,) = describe(WITHOUT_PROBE)
    assert line.startswith("resnet50 is handed over: ")
    assert render.describe_below_table(WITHOUT_PROBE, (), "mine") == [line]
    assert render.describe_below_table(FOUND, (), "mine")[-1] == FOUND.notes[0]


def test_what_would_decide_the_row_and_a_changed_plan_are_said() -> None:
    lines = describe(with_row(settles="about 9 seeds would settle it (now 5)", plan_changed=True))
    assert lines[-2:] == ["linear-probe vs resnet50: about 9 seeds would settle it (now 5).", PLAN_CHANGED]


def test_a_row_that_divergence_decides_shows_the_interval_over_all_runs() -> None:
    rate = Interval(estimate=0.6, low=0.15, high=0.95)
    lost = ArmDivergence(arm="resnet50", rate=rate, num_diverged=3, num_runs=5, epochs=(0, 0, 0))
    over_all = Interval(estimate=-0.4, low=-0.7, high=-0.1)
    found = with_row(verdict=Verdict.WORSE, divergence=(lost,), all_runs_effect=over_all)
    assert render.compare_with_probe(found, "It").endswith("over all runs: -40.00 pp [-70.00, -10.00]")
    assert any("resnet50: 3 of 5 runs diverged" in line for line in describe(found))


def test_the_table_has_a_line_per_baseline_and_fits_the_terminal() -> None:
    cells = render.list_baseline_cells(FOUND)
    assert cells[0] == ["majority class", "7.00 %", "7.20 %", "7.12 %", "335", "0 s"]
    assert cells[2] == ["linear probe on resnet50", "61.00 %", "67.10 %", "65.90 %", "5,000 of 20,000", "31 s"]
    assert all(len(row) == len(render.BASELINE_HEADER) for row in cells)
    assert render.list_baseline_cells(UNTRAINED)[1][3] == "—"
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render.build_baseline_rich_table(FOUND))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for cell in (*cells[0], "65.90 %", "67.10 %", "31 s"):
        assert cell in text, cell


def test_the_csv_has_the_row_on_the_line_of_the_chosen_probe_alone() -> None:
    majority, chosen, other = csv.DictReader(io.StringIO(render.build_baseline_csv(FOUND)))
    numbers = [float(chosen[key]) for key in ("effect_pp", "low_pp", "high_pp", "test_macro_f1", "strength")]
    assert numbers == pytest.approx([-0.4, -3.1, 2.3, 0.659, 0.01])
    assert (chosen["verdict"], chosen["treatment"], chosen["backbone"]) == ("UNDECIDED", "resnet50", "resnet18")
    assert {line[key] for line in (majority, other) for key in ("effect_pp", "low_pp", "high_pp", "verdict")} == {""}
    assert (majority["name"], majority["strength"], other["num_train"]) == ("majority class", "", "20000")
    assert all(line["verdict"] == "" for line in csv.DictReader(io.StringIO(render.build_baseline_csv(UNTRAINED))))

"""The A/B table and the table of arms: the same text in every format, numbers in full in csv."""

import dataclasses
import io

import pandas as pd
import pytest
from rich.console import Console

from analysis.arms.render import build_arm_csv, build_arm_rich_table, build_arm_table
from analysis.comparison.render import describe_evidence, describe_verdict
from analysis.comparison.tables import (
    BAR_WIDTH,
    HEADER,
    ONE_SEED,
    TWO_QUESTIONS,
    build_csv,
    build_latex,
    build_markdown,
    build_rich_table,
    build_table_rows,
    describe_divergence,
    format_bar,
    format_row,
)
from analysis.comparison.values import ArmDivergence, ComparisonRow, Question, Verdict
from analysis.confusions.render import build_pair_table
from analysis.formats.table_formats import FittedTable, to_latex, to_markdown
from analysis.statistics.interval import Interval, TwoIntervals
from search_spaces.designs import NO_INTERACTION
from tests.analysis.findings_factory import make_findings, make_pairs

ROW = ComparisonRow(
    treatment="ResNet50",
    control="ResNet18",
    effect=Interval(estimate=0.0042, low=0.0011, high=0.0073),
    standard_error=0.0014,
    degrees_of_freedom=9.0,
    seed_variance=1e-6,
    image_variance=1e-6,
    seed_image_variance=1e-7,
    confidence=0.95,
    margin=0.005,
    verdict=Verdict.BETTER,
    materiality="",
    settles="",
    num_seeds=10,
    num_images=10_000,
    minimum_detectable_effect=0.0040,
    p_value=0.0123,
    p_adjusted=0.0123,
    models_effect=Interval(estimate=0.0042, low=0.0020, high=0.0064),
    models_verdict=Verdict.BETTER,
    seed_differences=(0.004, 0.0044),
    cost_ratio=2.3,
)
UNDECIDED = dataclasses.replace(
    ROW,
    treatment="cut_mix & 50%",
    effect=Interval(estimate=-0.002, low=-0.009, high=0.005),
    verdict=Verdict.UNDECIDED,
    settles="about 24 seeds would settle it (now 10), if the difference stays",
    p_value=0.0004,
    p_adjusted=0.0004,
    models_effect=Interval(estimate=-0.002, low=-0.0058, high=0.0018),
    models_verdict=Verdict.UNDECIDED,
    cost_ratio=None,
)
ARM = dataclasses.replace(
    make_findings().arms[0],
    **{"arm": "ResNet18", "seeds": (1, 2), "search_macro_f1": 0.8, "confirm_macro_f1": 0.79, "minimum_cleared": True},
    test_macro_f1=TwoIntervals(
        models=Interval(estimate=0.78123, low=0.775, high=0.785), recipe=Interval(estimate=0.78123, low=0.77, high=0.79)
    ),
    **{"device_seconds": 1234.5, "train_images_per_second": 2345.6, "predict_images_per_second": 9000.4},
    **{"points_per_device_hour": 227.8, "peak_memory_bytes": 1, "device": "cpu"},
)


def test_format_of_one_row():
    assert (
        format_row(ROW) == "ResNet50 vs ResNet18 | +0.42 pp [+0.11, +0.73] | BETTER | 10 seeds | MDE 0.40 | 2.3x cost"
    )


def test_one_row_shows_what_decides_it_and_its_materiality():
    line = format_row(UNDECIDED)
    assert line.startswith("ResNet18 vs cut_mix & 50% | +0.20 pp [-0.50, +0.90] | UNDECIDED |"), (
        "the better side stands first"
    )
    assert line.endswith(f"| cost not measured | {UNDECIDED.settles}")
    assert "| BETTER (material) |" in format_row(dataclasses.replace(ROW, materiality="material"))


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.00002, 0.0073, "[+0.002, +0.730]"),
        (0.0011, 0.004999, "[+0.1100, +0.4999]"),
        (-0.0073, -0.00002, "[+0.002, +0.730]"),
        (0.0, 0.0073, "[+0.00, +0.73]"),
        (-0.0, 0.0, "[+0.00, +0.00]"),
        (1e-12, 0.0073, "[+0.00000, +0.73000]"),
    ],
)
def test_rounding_keeps_bounds_apart_from_zero_and_margin(low, high, shown):
    row = dataclasses.replace(ROW, effect=Interval(estimate=(low + high) / 2, low=low, high=high))
    assert build_table_rows([row])[0].interval == shown


def test_bars_share_one_axis_and_are_ordered():
    rows = build_table_rows([ROW, UNDECIDED])
    for row in rows:
        effect, margin = row.value.effect, row.value.margin
        assert 0 <= row.place(effect.low) <= row.place(effect.estimate) <= row.place(effect.high) <= 1
        assert 0 <= row.place(-margin) < row.place(0) < row.place(margin) <= 1
        assert row.place(0) == 0.5
    assert rows[0].place(-ROW.margin) == rows[1].place(-ROW.margin)
    assert rows[0].place(ROW.effect.low) > 0.5 > rows[1].place(-UNDECIDED.effect.high)


def test_text_bar_shows_interval_zero_and_estimate():
    text = format_bar(build_table_rows([ROW])[0])
    assert len(text) == BAR_WIDTH
    assert text[BAR_WIDTH // 2] == "│"
    assert text.count("●") == 1
    assert BAR_WIDTH // 2 < text.index("▓") < text.index("●") < text.rindex("━")
    assert text.index("░") < BAR_WIDTH // 2


def test_adjusted_p_is_that_of_the_row_and_absent_where_there_is_none():
    assert [row.p_adjusted for row in build_table_rows([ROW, UNDECIDED])] == ["0.012", "<0.001"]
    assert build_table_rows([dataclasses.replace(ROW, p_adjusted=None)])[0].p_adjusted == "n/a"


def test_both_questions_are_shown_and_one_seed_is_about_these_models():
    one = dataclasses.replace(ROW, question=Question.MODELS, num_seeds=1, effect=ROW.models_effect)
    assert "BETTER (these models) | 1 seed |" in format_row(one)
    assert ONE_SEED in build_markdown([one])
    assert TWO_QUESTIONS not in build_markdown([one])
    assert "[+0.20, +0.64] BETTER" in build_markdown([ROW])
    assert TWO_QUESTIONS in build_markdown([ROW])
    assert ONE_SEED not in build_markdown([ROW])
    assert describe_verdict(build_table_rows([one])[0]).endswith("with one seed, nothing is known about the recipe).")
    table = pd.read_csv(io.StringIO(build_csv([ROW, one])))
    assert table["question"].tolist() == ["recipe", "models"]
    assert table["models_low_pp"].tolist() == pytest.approx([0.20, 0.20])


def test_divergence_is_shown_with_its_interval_its_epochs_and_all_runs():
    arm = ArmDivergence(
        arm="ResNet50", rate=Interval(estimate=0.2, low=0.03, high=0.56), num_diverged=2, num_runs=10, epochs=(3, 0)
    )
    row = dataclasses.replace(ROW, divergence=(arm,), all_runs_effect=Interval(estimate=-0.1, low=-0.3, high=0.1))
    expected = (
        "ResNet50: 2 of 10 runs diverged (95 % interval 3 to 56 %), scored at epoch 3, chance; "
        "the interval is about the 10 seeds with which every run finished; "
        "difference over all runs -10.00 pp [-30.00, +10.00]"
    )
    assert describe_divergence(row) == expected
    assert expected in format_row(row)
    assert expected in build_markdown([row])
    assert expected in describe_evidence(build_table_rows([row])[0])
    assert pd.read_csv(io.StringIO(build_csv([row])))["num_diverged"].tolist() == [2]


def test_csv_has_full_precision():
    table = pd.read_csv(io.StringIO(build_csv([ROW, UNDECIDED])))
    assert len(table) == 2
    assert table["effect_pp"].tolist() == pytest.approx([0.42, -0.2])
    assert table["low_pp"].tolist() == pytest.approx([0.11, -0.9])
    assert table["verdict"].tolist() == ["BETTER", "UNDECIDED"]
    assert table["treatment"][1] == UNDECIDED.treatment
    assert table["cost_ratio"].isna().tolist() == [False, True]
    assert table["settles"][1] == UNDECIDED.settles


def test_every_format_contains_the_same_text():
    rows = [ROW, UNDECIDED]
    console = Console(width=250, file=io.StringIO(), record=True)
    console.print(build_rich_table(rows))
    terminal, markdown, latex = console.export_text(), build_markdown(rows), build_latex(rows)
    for row in build_table_rows(rows):
        for cell in row.cells:
            assert cell in markdown
        for name in row.comparison.split(" vs "):
            assert name in terminal
        for cell in (row.effect.removesuffix(" pp"), row.interval, row.verdict, row.seeds, row.mde):
            assert cell in terminal
        assert row.cost in terminal or row.value.cost_ratio is None
        assert f"p {row.p_adjusted}" in terminal
        assert row.models.rpartition(" ")[0] in terminal
        assert row.effect.lstrip("-") in latex
        assert row.verdict in latex
        assert format_bar(row) in terminal
    assert UNDECIDED.settles in markdown
    assert "Intervals at 95 %" in markdown


def test_terminal_tables_fit_into_80_columns():
    console = Console(width=80, file=io.StringIO(), record=True)
    row = dataclasses.replace(ROW, treatment="resnet50-cutmix", materiality="material")
    console.print(build_rich_table([row]))
    console.print(build_arm_rich_table([ARM]))
    console.print(build_pair_table(make_pairs(("caterpillar", "butterfly", "beetle"))))
    text = console.export_text()
    assert "…" not in text
    (table_row,) = build_table_rows([row])
    assert table_row.interval in text
    assert table_row.verdict in text


def test_markdown_has_as_many_cells_in_each_line_and_escapes_bars():
    lines = build_markdown([dataclasses.replace(ROW, treatment="a|b")]).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines[:3]} == {len(HEADER) + 1}
    assert "a\\|b vs ResNet18" in lines[2]


def test_latex_is_booktabs_and_escaped():
    latex = build_latex([ROW, UNDECIDED])
    assert [latex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"ResNet18 vs cut\_mix \& 50\%" in latex
    assert r"[$-$0.50, +0.90]" in latex
    assert "$<$0.001" in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {len(HEADER) - 1}


def test_rich_markup_in_names_is_not_interpreted():
    console = Console(width=250, file=io.StringIO(), record=True)
    console.print(build_rich_table([dataclasses.replace(ROW, treatment="[red]arm[/red]")]))
    console.print(build_arm_rich_table([dataclasses.replace(ARM, arm="[bold]x[/bold]")]))
    text = console.export_text()
    assert "[red]arm[/red]" in text
    assert "[bold]x[/bold]" in text


def test_tables_without_rows():
    assert build_table_rows([]) == ()
    assert build_markdown([]).count("\n") >= 2
    assert build_latex([]).count(r"\\") == 1
    assert show(build_rich_table([]), 80).count("\n") < 8


def test_arm_table_in_every_format():
    assert (
        "| ResNet18 | 0.7812 | [0.7750, 0.7850] | [0.7700, 0.7900] | 11.2 M | 3.63 | 1,234 | 2,346 | 9,000 | 228 |"
        in build_arm_table([ARM], to_markdown)
    )
    assert (
        r"ResNet18 & 0.7812 & [0.7750, 0.7850] & [0.7700, 0.7900] & 11.2 M & 3.63 & 1,234 & 2,346 & 9,000 & 228 \\"
        in build_arm_table([ARM], to_latex)
    )
    table = pd.read_csv(io.StringIO(build_arm_csv([ARM])))
    assert table["macro_f1"][0] == ARM.test_macro_f1.estimate
    assert (table["macro_f1_low"][0], table["macro_f1_models_low"][0]) == (0.77, 0.775)
    assert table["num_parameters"][0] == 11_181_642
    assert show(build_arm_rich_table([ARM, ARM]), 120).count(ARM.arm) == 2


def show(table: FittedTable, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("width", [20, 60, 80, 120, 1000])
def test_a_narrow_terminal_lacks_columns_and_cuts_no_name_and_no_header(width: int) -> None:
    rows = [dataclasses.replace(ROW, treatment="inverse_frequency", control="none"), UNDECIDED]
    text = show(build_rich_table(rows), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("comparison", "inverse_frequency", "vs none", "ResNet18"):
        assert word in text, word
    assert ("BETTER" in text) == (width >= 60)
    assert ("●" in text) == (width >= 80), "the bar goes first"
    assert "…" not in text
    arms = show(build_arm_rich_table([dataclasses.replace(ARM, arm="inverse_frequency")]), width)
    assert "inverse_frequency" in arms
    assert all(word in arms for word in (("arm",) if width < 60 else ("arm", "these models", "parameters")))


def test_a_row_is_shown_from_its_better_side_with_every_sign_turned():

    row = make_findings().rows[0]
    worse = dataclasses.replace(
        row,
        effect=Interval(estimate=-0.03, low=-0.05, high=-0.01),
        verdict=Verdict.WORSE,
        seed_differences=(-0.02, -0.04),
        cost_ratio=4.0,
        num_seeds=3,
        num_control_seeds=5,
    )
    shown = worse.winner_first()
    assert (shown.treatment, shown.control, shown.verdict) == (row.control, row.treatment, Verdict.BETTER)
    assert (shown.effect.low, shown.effect.high, shown.seed_differences) == (0.01, 0.05, (0.02, 0.04))
    assert (shown.cost_ratio, shown.num_seeds, shown.num_control_seeds) == (0.25, 5, 3)
    assert [one.effect.estimate for one in shown.class_differences] == [
        -c.effect.estimate for c in row.class_differences
    ]
    assert [(m.treatment, m.control) for m in shown.side_metrics] == [
        (m.control, m.treatment) for m in row.side_metrics
    ]
    assert shown.winner_first() == shown
    assert build_csv([worse]).splitlines()[1].startswith(f"{row.treatment},{row.control},-3"), "files keep the order"
    sides = dataclasses.replace(worse, control=NO_INTERACTION)
    assert sides.winner_first() == sides

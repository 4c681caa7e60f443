"""report.html is self-contained and complete, report.md has the same content, and names from outside are escaped in both."""

import base64
import dataclasses
import itertools
import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import analysis.report
from analysis.arms.values import ArmFinding
from analysis.baselines.render import BASELINE_HEADER, describe_below_table, list_baseline_cells, list_baseline_rows
from analysis.baselines.values import LINEAR_PROBE
from analysis.comparison.render import describe_verdict
from analysis.comparison.tables import build_table_rows
from analysis.comparison.values import Verdict
from analysis.confusions.render import describe_images_to_decide
from analysis.confusions.values import Materiality
from analysis.formats import numbers
from analysis.formats.numbers import format_interval, format_signed_pp
from analysis.report.pages import MAX_CONFUSIONS, build_html, build_model_card, build_report_markdown, build_search_page
from analysis.report.study_findings import Findings
from analysis.report.summary import describe_missing_gates, list_failing
from search_spaces.errors import UserInputError
from tests.analysis.findings_factory import make_baselines, make_choice, make_findings

VOID = {"meta", "img", "link", "br", "hr", "rect", "line", "circle"}
HOSTILE = '<script>alert("x")</script>|`*_[a](javascript:1)\n# b'


class Page(HTMLParser):
    """Collects the elements and the text of a page, and checks that elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_pngs(findings: Findings) -> dict[str, bytes]:
    return {key: b"\x89PNG\r\n\x1a\n" + key.encode() for key in findings.figures}


def render_html(findings: Findings) -> str:
    return build_html(findings, build_table_rows(findings.rows), make_pngs(findings))


def render_markdown(findings: Findings) -> str:
    return build_report_markdown(findings, build_table_rows(findings.rows))


def rename_everything(findings: Findings, name: str) -> Findings:
    """Replace every name and text that comes from outside by `name`."""
    arms = tuple(
        dataclasses.replace(
            arm,
            **dict.fromkeys(("arm", "device", "trial_id"), name),
            confirmation_ids=(name,),
            hyperparameters={name: name},
            class_scores=tuple(dataclasses.replace(s, class_name=name) for s in arm.class_scores),
        )
        for arm in findings.arms
    )
    panels = tuple(
        dataclasses.replace(
            panel,
            true_class=name,
            reason=name,
            views=tuple(dataclasses.replace(v, arm=name, predicted_class=name, layer=name) for v in panel.views),
        )
        for panel in findings.panels
    )
    return dataclasses.replace(
        findings,
        **dict.fromkeys(("study", "created", "factor", "warm_start", "cam_note"), name),
        **dict.fromkeys(("search_notes", "warnings"), (name,)),
        class_names=(name,) * len(findings.class_names),
        search=tuple(dataclasses.replace(a, arm=name, best_trial_id=name) for a in findings.search),
        rung_findings=tuple(dataclasses.replace(r, arm=name) for r in findings.rung_findings),
        importances=tuple(dataclasses.replace(i, arm=name, parameter=name) for i in findings.importances),
        arms=arms,
        rows=tuple(
            dataclasses.replace(
                r,
                **dict.fromkeys(("treatment", "control", "settles"), name),
                side_metrics=tuple(dataclasses.replace(m, group=name) for m in r.side_metrics),
            )
            for r in findings.rows
        ),
        panels=panels,
        passport={name: {name: [name]}},
    )


def test_html_is_well_formed_and_self_contained() -> None:
    findings = make_findings()
    html = render_html(findings)
    page = Page(html)
    assert page.open == []
    assert html.startswith("<!DOCTYPE html>")
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "base"}
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"@import|url\(", html)
    for tag, attributes in page.tags:
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,"), tag
        assert (attributes.get("href") or "#").startswith("#") or attributes["href"] == findings.search_page, tag


def test_links_point_to_sections_and_to_the_interactive_plots() -> None:
    findings = make_findings()
    page = Page(render_html(findings))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for attributes in page.all("a")}
    assert links <= {f"#{i}" for i in ids} | {findings.search_page}
    assert findings.search_page in links
    assert "interactive" not in Page(render_html(dataclasses.replace(findings, search_page=""))).text


def test_the_navigation_lists_every_section() -> None:
    findings = make_findings()
    figures = {**findings.figures, "energy_spectrum": "energy.png"}
    html = render_html(dataclasses.replace(findings, figures=figures))
    nav = Page(html[html.index("<nav") : html.index("</nav>") + len("</nav>")])
    anchors = [link["href"] for link in nav.all("a")]
    assert anchors == [f"#{section['id']}" for section in Page(html).all("section")]
    assert {"#causes", "#others"} <= set(anchors)


def test_every_figure_is_embedded_once_with_an_alternative_text() -> None:
    findings = make_findings()
    images = Page(render_html(findings)).all("img")
    inside = [base64.b64decode((image["src"] or "").split(",")[1]) for image in images]
    assert sorted(inside) == sorted(make_pngs(findings).values())
    texts = [image["alt"] or "" for image in images]
    assert all(len(text) > 20 for text in texts)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("build", [render_html, render_markdown])
def test_the_verdicts_the_gate_and_the_arms_come_first(build) -> None:
    findings = make_findings()
    text = build(findings)
    text = Page(text).text if build is render_html else text
    top = text[: text.index("Statistical evidence", text.index("passes the minimum"))].replace("\\", "")
    for row in build_table_rows(findings.rows):
        assert describe_verdict(row) in top
        assert f"{row.effect} {row.interval}" in top
    for arm in findings.arms:
        assert f"{arm.arm} passes the minimum" in top
        assert numbers.format_interval(arm.test_macro_f1, 2) in top
    assert "1 warning" in top


@pytest.mark.parametrize("build", [render_html, render_markdown])
def test_the_first_screen_has_the_table_of_baselines(build) -> None:
    baselines = make_baselines()
    text = build(dataclasses.replace(make_findings(), baselines=baselines)).replace("\\", "")
    first = text[: text.index("before you rely on these results")]
    between = "</td><td>" if build is render_html else " | "
    for cells in list_baseline_cells(baselines):
        assert between.join(cells) in first
    findings = make_findings()
    for sentence in describe_below_table(baselines, findings.rows, findings.argument or findings.study):
        assert sentence in first
    assert "is not shown to be better than a linear probe" in first
    assert all(name in first for name in BASELINE_HEADER)
    row = list_baseline_rows(baselines)[0]
    assert between.join([row.comparison, row.effect]) in text[len(first) :], "the last row of the A/B table"
    assert "majority class" not in build(make_findings())


def test_names_of_baselines_are_escaped() -> None:
    baselines = make_baselines()
    probe = dataclasses.replace(baselines.probes[0], backbone=HOSTILE)
    hostile = dataclasses.replace(baselines, probes=(probe,), chosen=HOSTILE, notes=(HOSTILE,))
    choice = make_choice(arm=HOSTILE, leader=HOSTILE, confirm_macro_f1={HOSTILE: 0.6, "resnet18": 0.5})
    hostile = dataclasses.replace(hostile, choice=choice)
    findings = dataclasses.replace(make_findings(), baselines=hostile)
    page = Page(render_html(findings))
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(HOSTILE.partition("`")[0]) >= 4
    markdown = render_markdown(findings)
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\]\(javascript", markdown)
    assert "\n# b" not in markdown


@pytest.mark.parametrize("build", [render_html, render_markdown])
def test_the_report_contains_all_findings(build) -> None:
    findings = make_findings()
    text = build(findings)
    text = (Page(text).text if build is render_html else text).replace("\\", "")
    for arm in findings.arms:
        for score in arm.class_scores:
            assert numbers.format_interval(score.f1) in text
        for value in (arm.num_parameters, arm.train_images_per_second):
            assert numbers.format_count(value) in text
        assert numbers.format_percent(arm.confirm_macro_f1, 2) in text
        assert ", ".join(map(str, arm.seeds)) in text
    for search in findings.search:
        assert numbers.format_percent(search.share) in text
        assert f"{numbers.format_seconds(search.saved_device_seconds)} (33 %)" in text
        assert search.best_trial_id in text
    for importance in findings.importances:
        assert importance.parameter in text
        assert numbers.format_percent(importance.importance) in text
    assert "0.80 [-0.35, 0.99]" in text
    assert findings.search_notes[0] in text
    assert f"initialized with the trials of {findings.warm_start}" in text
    for key, value in numbers.flatten_passport(findings.passport):
        assert key in text
        assert value in text
    for row in findings.rows:
        assert row.settles[1:] in text
    large = next(arm for arm in findings.arms if arm.cam_admission)
    assert (
        "The HiResCAM maps of resnet50 are not admitted as evidence. Failed tests: ROAD (4x4 cells from layer2, 640 images). "
        "Not applicable: rings." in text
    )
    assert "does not apply" in text
    for tried in ("+0.072", "0.015", "LayerCAM", "8x8", "0.78"):
        assert tried in text
    assert large.cam_admission is not None
    for test in large.cam_admission.tests:
        assert test.rule in text
    assert "+12.0 pp [+10.0, +14.0]; recipe [+8.0, +16.0]" in text
    assert "Frequency audit: FAIL; recipe UNDECIDED: airplane" in text
    assert "For these models FAIL: airplane, automobile; for the recipe FAIL: airplane" in text
    assert "FAIL; recipe UNDECIDED" in text
    assert "texture; recipe mixed" in text
    assert "automobile as airplane" in text
    assert "mixed: no cue leads significantly (22 images, 60 references; one model)" in text
    assert "machine-specific; recipe undecided" in text
    for arm in findings.arms:
        for cell in arm.directed[:15]:
            assert numbers.format_interval(cell.rate) in text
            assert describe_images_to_decide(cell) in text
    assert "0x5, 31x2" in text
    assert "location of the cue: bottom side" in text
    for cell in (
        "-0.0312 [-0.0406, -0.0218]",
        "-0.0312 [-0.0500, -0.0124]",
        "84.21 %",
        "+10.00 pp [+7.50, +12.50]",
        "rigid",
    ):
        assert text.count(cell) >= len(findings.rows), cell
    assert "these models: accuracy +1.20 pp, log loss -0.0312; recipe: log loss." in text
    for panel in findings.panels:
        assert f"Image {panel.sample_id}: {panel.true_class}, {panel.reason}" in text
    assert "layer3" in text
    assert "degenerate map" in text
    assert findings.cam_note in text
    assert all(warning in text for warning in findings.warnings)


def test_names_are_escaped_in_html() -> None:
    findings = rename_everything(make_findings(), HOSTILE)
    html = render_html(findings)
    page = Page(html)
    assert page.open == []
    assert "<script" not in html
    assert page.text.count('<script>alert("x")</script>') > 20
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in Page(render_html(make_findings())).tags}


def test_names_are_escaped_in_markdown() -> None:
    findings = rename_everything(make_findings(), HOSTILE)
    markdown = render_markdown(findings)
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\]\(javascript", markdown)
    assert "\n# b" not in markdown
    header = 0
    for line in markdown.splitlines():
        if not line.startswith("|"):
            header = 0
            continue
        bars = len(re.findall(r"(?<!\\)\|", line))
        assert bars == (header or bars), line
        header = bars


def test_markdown_tables_and_figure_links() -> None:
    findings = make_findings()
    markdown = render_markdown(findings)
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", markdown)
    assert sorted(links) == sorted(f"findings/figures/{name}" for name in findings.figures.values())
    assert markdown.endswith("\n")
    lines = markdown.splitlines()
    for before, line in itertools.pairwise(lines):
        if re.fullmatch(r"\|( -{3}:? \|)+", line):
            assert before.count("|") == line.count("|")
    spaced = dataclasses.replace(findings, figures={**findings.figures, "class_f1": "class f1 (1).png"})
    assert "(findings/figures/class%20f1%20%281%29.png)" in render_markdown(spaced)


def test_a_study_without_factor_gate_panels_and_figures_has_a_report() -> None:
    nothing = ("rows", "panels", "rungs", "rung_findings", "importances", "search_notes", "warnings")
    findings = dataclasses.replace(
        make_findings(),
        **dict.fromkeys(nothing, ()),
        **dict.fromkeys(("factor", "cam_note", "search_page", "warm_start"), ""),
        **{"minimum": None, "allocation": "pooled", "figures": {}},
        arms=tuple(dataclasses.replace(arm, minimum_cleared=None) for arm in make_findings().arms),
    )
    for text in (Page(render_html(findings)).text, render_markdown(findings)):
        assert "no arms were compared" in text
        assert "the minimum" not in text
        assert "No panels were drawn." in text
        assert "Early stopping was disabled." in text
        assert "allocation: pooled" in text
        assert "PED-ANOVA" not in text
        assert "rank correlation" not in text
        assert "None" in text[text.rindex("Warnings") :]


def test_rungs_and_importances_are_listed_per_arm() -> None:
    markdown = render_markdown(make_findings()).replace("\\", "")
    assert "| resnet18 | 3 | 13 | 4 | 8 | 0.80 [-0.35, 0.99] |" in markdown
    assert "| resnet18 | 9 | 9 | 1 | 8 | 1.00 |" in markdown
    assert "| max_lr | 61.7 % | 61.7 % | 61.7 % |" in markdown
    assert "| cutmix_probability | 38.3 % | 38.3 % | — |" in markdown
    assert "underestimated" in markdown


def test_search_page_contains_plots_and_escapes_names() -> None:
    section = {"title": HOSTILE, "caption": HOSTILE, "html": "<div id='plot-1'></div>"}
    html = build_search_page(HOSTILE, [section], [HOSTILE], "const plotly = 1 < 2 && true;")
    page = Page(html)
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "const plotly = 1 < 2 && true;" in html
    assert "<div id='plot-1'></div>" in html
    assert page.text.count('<script>alert("x")</script>') >= 4


def test_a_failed_gate_is_reported_and_highlighted() -> None:
    findings = make_findings()
    arms = (dataclasses.replace(findings.arms[0], minimum_cleared=False), *findings.arms[1:])
    html = render_html(dataclasses.replace(findings, arms=arms, minimum=0.85))
    assert "resnet18 does not pass the minimum" in html
    assert 'class="card failed"' in html
    assert 'class="card failed"' not in render_html(findings)
    (missing,) = describe_missing_gates(findings.arms[1:], findings.search)
    assert missing == "resnet18 does not pass the minimum: all of its runs diverged."
    assert describe_missing_gates(findings.arms, findings.search) == []


def test_missing_figures_are_rejected_and_unknown_ones_are_shown() -> None:
    findings = make_findings()
    rows = build_table_rows(findings.rows)
    pngs = make_pngs(findings)
    del pngs["class_f1"]
    with pytest.raises(UserInputError, match=r"\['class_f1'\]"):
        build_html(findings, rows, pngs)
    figures = {key: name for key, name in findings.figures.items() if key != "panel_02"}
    with pytest.raises(UserInputError, match=r"image 204 needs the figure 'panel_02\.png'"):
        build_report_markdown(dataclasses.replace(findings, figures=figures), rows)
    more = dataclasses.replace(findings, figures={**findings.figures, "energy_spectrum": "energy.png"})
    assert "energy spectrum" in Page(render_html(more)).text


@pytest.mark.parametrize(
    ("verdict", "materiality", "sentence"),
    [
        (Verdict.BETTER, "", "a is better than b."),
        (Verdict.BETTER, "material", "a is better than b, and by more than the margin of 0.5 pp."),
        (Verdict.WORSE, "negligible", "a is worse than b, but by less than the margin of 0.5 pp."),
        (Verdict.EQUIVALENT, "", "a and b are equivalent within the margin of 0.5 pp."),
        (Verdict.UNDECIDED, "", "Undecided: the data do not separate a from b."),
    ],
)
def test_sentences_of_verdicts(verdict: Verdict, materiality: str, sentence: str) -> None:
    row = dataclasses.replace(
        make_findings().rows[0], treatment="a", control="b", verdict=verdict, materiality=materiality
    )
    assert describe_verdict(build_table_rows([row])[0]) == sentence


def test_formats_of_numbers() -> None:
    assert [numbers.format_seconds(s) for s in (0, 7.44, 59, 59.96, 60, 200, 3599.6, 3600, 7500)] == [
        "0 s",
        "7.4 s",
        "59 s",
        "1 min 00 s",
        "1 min 00 s",
        "3 min 20 s",
        "1 h 00 min",
        "1 h 00 min",
        "2 h 05 min",
    ]
    assert [numbers.format_bytes(b) for b in (0, 512, 2048, 3 << 30, 5 << 40)] == [
        "—",
        "512 B",
        "2.0 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]
    assert [numbers.format_count(c) for c in (950, 1874.4, 11_181_642)] == ["950", "1,874", "11.2 M"]
    assert [numbers.format_value(v) for v in (True, 0.00316227, 3, "x", None, [], [1, 2.5])] == [
        "yes",
        "0.003162",
        "3",
        "x",
        "none",
        "none",
        "1, 2.5",
    ]
    assert numbers.format_percent(None) == "—"
    assert numbers.escape_markdown("a|b<c>\nd") == "a\\|b&lt;c&gt; d"


def test_the_same_findings_give_the_same_report() -> None:
    assert render_html(make_findings()) == render_html(make_findings())
    assert render_markdown(make_findings()) == render_markdown(make_findings())


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


TEMPLATES = Path(analysis.report.__file__).parent / "templates"
NUM_WORDS = 9
PROSE = re.compile(r"[\w'-]+(?:(?:[ ,;:]|\. )+[\w'-]+)+")


def find_runs(template: str) -> set[str]:
    """Return every run of `NUM_WORDS` words that a template contains outside tags and code."""
    runs = set()
    for text in PROSE.findall(re.sub(r"<style>.*?</style>", "", template, flags=re.DOTALL)):
        words = re.findall(r"[\w'-]+", text)
        runs |= {" ".join(words[i : i + NUM_WORDS]) for i in range(len(words) - NUM_WORDS + 1)}
    return runs


def test_no_long_text_stands_in_two_templates() -> None:
    sources = defaultdict(list)
    for path in sorted(TEMPLATES.rglob("*.j2")):
        for run in find_runs(path.read_text(encoding="utf-8")):
            sources[run].append(path.name)
    assert len(sources) > 100
    assert {run: names for run, names in sources.items() if len(names) > 1} == {}


def test_a_repeated_sentence_is_found() -> None:
    sentence = "A dash: the setting does not apply to that arm, or was not measured."
    html, markdown = find_runs(f'<p class="soft">{sentence}</p>'), find_runs(f"\n{sentence}\n")
    assert len(html & markdown) == len(sentence.split()) - NUM_WORDS + 1
    assert not find_runs("{{ arm.arm }} is better than {{ row.value.control }}.")

"""Pages built from computed values: report.html and report.md share their sections, which templates/sections/ holds.

The model card of exported weights says what the model is, how good it is, what it confuses and what it relies on.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from analysis.arms.values import ArmFinding, OutsideArm, OutsideFindings
from analysis.baselines.render import BASELINE_HEADER
from analysis.causes.values import MATERIAL_EFFECT
from analysis.comparison.tables import HEADER, TableRow, build_table_rows
from analysis.comparison.values import ComparisonRow
from analysis.confusions.render import plot_confusion
from analysis.confusions.values import CONFUSION_TOLERANCE, MAX_ISSUES, ClassScore
from analysis.formats.numbers import format_signed_pp, format_value, shorten
from analysis.heat_maps.values import CamPanel
from analysis.interventions.render import MEASURED_COLUMNS, STATED_COLUMNS
from analysis.interventions.values import InterventionFindings
from analysis.report.galleries import ThumbnailSheets, arrange_confusions
from analysis.report.rendering import ReportFigure, embed_figure, embed_picture, render
from analysis.report.study_findings import Findings
from analysis.report.summary import describe_figures
from search_spaces.errors import UserInputError
from trainables.records.confusion_figure import MOST_ANNOTATED_CLASSES

NO_ROUNDS: Mapping[str, InterventionFindings] = MappingProxyType({})
FIGURE_FOLDER = "findings/figures"
EXPLORER = "explore.html"
# Confusions that the model card lists.
MAX_CONFUSIONS = 15
# Anchor and title; the template of a section is sections/{anchor}.j2.
SECTIONS = {
    "verdict": "Verdict",
    "rounds": "Interventions that were tried",
    "interventions": "Interventions",
    "certainty": "Statistical evidence",
    "search": "Search",
    "arms": "Arms",
    "confusion": "Confusion matrices",
    "classes": "Results per class",
    "cleverhans": "Clever Hans audit",
    "causes": "Root causes of confusion",
    "cams": "Grad-CAM",
    "others": "Further figures",
    "provenance": "Provenance",
    "warnings": "Warnings",
}


def build_html(
    findings: Findings,
    table_rows: Sequence[TableRow],
    figures: Mapping[str, bytes],
    rounds: Mapping[str, InterventionFindings] = NO_ROUNDS,
    thumbnails: ThumbnailSheets | None = None,
    *,
    has_explorer: bool = False,
) -> str:
    """Return report.html: a single file that needs no network, no script and no other file.

    Args:
        findings: everything that the report shows.
        table_rows: `findings.rows` as text.
        figures: a PNG or an SVG for every key of `findings.figures`.
        rounds: what the interventions that these findings asked for did, by the name of their study.
        thumbnails: of test images, from which the galleries are cut; None where the study has none.
        has_explorer: whether explore.html is in the same folder.

    Raises:
        UserInputError: if a figure is missing.
    """
    missing = sorted(set(findings.figures) - set(figures))
    if missing:
        raise UserInputError(f"the report needs the figures {missing}, but they are missing: analyze the study again")
    sources = {key: embed_picture(figures[key]) for key in findings.figures}
    return _render_report(
        "report.html.j2",
        findings,
        table_rows,
        sources,
        rounds,
        confusion_views=arrange_confusions(findings, thumbnails),
        explorer=EXPLORER if has_explorer else "",
    )


def build_report_markdown(
    findings: Findings, table_rows: Sequence[TableRow], rounds: Mapping[str, InterventionFindings] = NO_ROUNDS
) -> str:
    """Return report.md, whose figures are links to findings/figures/ in the same folder.

    Args:
        findings: everything that the report shows.
        table_rows: `findings.rows` as text.
        rounds: see `build_html`.

    Raises:
        UserInputError: if the figure of a heat-map panel is not among `findings.figures`.
    """
    sources = {key: f"{FIGURE_FOLDER}/{quote(name)}" for key, name in findings.figures.items()}
    return _render_report("report.md.j2", findings, table_rows, sources, rounds, confusion_views={}, explorer="")


def build_comparison_page(title: str, table_rows: Sequence[TableRow]) -> str:
    """Return the A/B table of externally trained models as a single HTML file without scripts."""
    return render("comparison.html.j2", title=title, rows=table_rows, comparison_header=HEADER)


def build_search_page(study: str, sections: Sequence[Mapping[str, str]], notes: Sequence[str], plotly_js: str) -> str:
    """Return search.html: a single file with the interactive plots of a search, which needs no network.

    Args:
        study: name of the study.
        sections: the plots, in the order in which they are shown, each with a `title`, a `caption` on which trials it shows and
            how to read it, and its `html` as plotly writes it, without plotly.js.
        notes: sentences on plots that are left out.
        plotly_js: the source of plotly.js; it and the scripts of the sections are inserted unescaped.
    """
    return render("search.html.j2", study=study, sections=sections, notes=notes, plotly_js=plotly_js)


def build_model_card(description: Mapping[str, Any], findings: Findings | None, note: str, reproduce: str) -> str:
    """Return the card as markdown, with the front matter that Hugging Face reads.

    Args:
        description: of the exported weights: study, arm, architecture, class names, preprocessing, macro-F1, configuration,
            the ONNX file if there is one, and `handed_over`, whether the study hands over this model, if that is known.
        findings: of the study; None where `note` says why there are none.
        note: why the findings hold no audit of the exported model; "" where they do.
        reproduce: the command that trains the model again.
    """
    name, rows = description["arm"], [] if findings is None else _find_rows(findings, description["arm"])
    arm = None if findings is None or note else next(one for one in findings.arms if one.arm == name)
    values = {"model": description, "note": note, "reproduce": reproduce, "most": MAX_CONFUSIONS, "findings": findings}
    audit = None if arm is None else arm.exported
    return render("model_card.md.j2", **values, rows=build_table_rows(rows), arm=arm, audit=audit)


def _find_rows(findings: Findings, name: str) -> list[ComparisonRow]:
    """Return the rows with an arm, or the probe, on one side; in a factorial design, whose rows compare levels, all rows."""
    probe = findings.baselines.row if findings.baselines is not None else None
    rows = [*findings.rows, *([] if probe is None else [probe])]
    return [row for row in rows if name in (row.treatment, row.control)] or rows


def _render_report(
    template: str,
    findings: Findings,
    table_rows: Sequence[TableRow],
    sources: Mapping[str, str],
    rounds: Mapping[str, InterventionFindings],
    **more: Any,
) -> str:
    panels = _place_panels(findings)
    texts = describe_figures(findings, panels)
    figures = {key: ReportFigure(source=sources[key], alt=texts.get(key, key.replace("_", " "))) for key in sources}
    confusions = {arm.arm: f"confusion_{arm.arm}" for arm in findings.arms}
    others = [figure for key, figure in sorted(figures.items()) if key not in texts]
    is_shown = {
        "causes": any(arm.root_causes for arm in findings.arms),
        "others": bool(others),
        "interventions": findings.interventions is not None,
        "rounds": bool(rounds),
    }
    return render(
        template,
        findings=findings,
        rows=table_rows,
        comparison_header=HEADER,
        most_issues=MAX_ISSUES,
        rounds=rounds,
        figures=figures,
        sections=[(key, title) for key, title in SECTIONS.items() if is_shown.get(key, True)],
        panels=[(panel, figures[key]) for panel, key in panels],
        confusions=[(arm, figures[key]) for arm, key in confusions.items() if key in figures],
        other_figures=others,
        importances=_arrange_importances(findings),
        settings=_arrange_settings(findings.arms),
        color_arms=[arm.arm for arm in findings.arms if arm.color_losses],
        color_losses=_arrange_color_losses(findings),
        stated_header=tuple(STATED_COLUMNS),
        measured_header=tuple(MEASURED_COLUMNS),
        material_effect=MATERIAL_EFFECT,
        baseline_header=BASELINE_HEADER,
        **more,
    )


def _place_panels(findings: Findings) -> list[tuple[CamPanel, str]]:
    """Return each panel of heat maps with the key of its figure."""
    key_of_file = {name: key for key, name in findings.figures.items()}
    for panel in findings.panels:
        if panel.figure not in key_of_file:
            raise UserInputError(
                f"the panel of image {panel.sample_id} needs the figure {panel.figure!r}, but the findings have none "
                "of that name: analyze the study again"
            )
    return [(panel, key_of_file[panel.figure]) for panel in findings.panels]


def _arrange_settings(arms: Sequence[ArmFinding]) -> list[tuple[str, list[str]]]:
    """Return (hyperparameter, its value in each arm or a dash), by name."""
    shown = [{name: shorten(format_value(value)) for name, value in arm.hyperparameters.items()} for arm in arms]
    names = sorted({name for settings in shown for name in settings})
    return [(name, [settings.get(name, "—") for settings in shown]) for name in names]


def _arrange_color_losses(findings: Findings) -> list[tuple[str, list[str]]]:
    """Return (class, its accuracy loss on grayscale images in each arm where it was measured or a dash)."""
    measured = [
        {found.class_name: format_signed_pp(found.loss) for found in arm.color_losses}
        for arm in findings.arms
        if arm.color_losses
    ]
    return [(name, [losses.get(name, "—") for losses in measured]) for name in findings.class_names if measured]


def _arrange_importances(findings: Findings) -> list[tuple[str, list[float | None]]]:
    """Return (hyperparameter, its importance in each arm of the search or None), the highest first."""
    by_name: dict[str, dict[str, float]] = {}
    for entry in findings.importances:
        by_name.setdefault(entry.parameter, {})[entry.arm] = entry.importance
    rows = [(name, [values.get(arm.arm) for arm in findings.search]) for name, values in by_name.items()]
    return sorted(rows, key=lambda row: (-max(v for v in row[1] if v is not None), row[0]))


# Rows of a table that are visible at once; the others unfold.
MOST_ROWS = 15
# With more classes than the matrix has room for numbers, a second matrix shows the most confused ones.
MOST_CONFUSED = 15


def build_forensics_page(title: str, findings: OutsideFindings) -> str:
    """Return the forensics of models that were trained elsewhere as a single HTML file without scripts.

    Args:
        title: heading of the page.
        findings: everything that the page shows.
    """
    return render(
        "forensics.html.j2",
        title=title,
        findings=findings,
        most=MOST_ROWS,
        tolerance=CONFUSION_TOLERANCE,
        arms=[(arm, _rank_classes(arm), _draw_matrices(arm, findings.class_names)) for arm in findings.arms],
        most_issues=MAX_ISSUES,
    )


def _rank_classes(arm: OutsideArm) -> list[ClassScore]:
    """Return the scores of the classes, the lowest F1 first, and those without images last."""
    return sorted(arm.class_scores, key=lambda score: (score.num_images == 0, score.f1.estimate))


def _draw_matrices(arm: OutsideArm, class_names: Sequence[str]) -> list[tuple[ReportFigure, bool]]:
    """Return the figures of the confusion matrix, and whether each is shown at once: the others unfold."""
    figures = []
    is_large = len(class_names) > MOST_ANNOTATED_CLASSES
    chosen = _choose_confused(arm, class_names)
    if is_large and len(chosen) > 1:
        part = [[arm.confusion.rates[i][j] for j in chosen] for i in chosen]
        names = [class_names[c] for c in chosen]
        clusters = [cluster for cluster in arm.clusters if set(cluster.classes) <= set(names)]
        drawn = plot_confusion(part, names, f"{arm.arm}: the {len(names)} most confused classes", clusters)
        alt = f"Part of the confusion matrix of {arm.arm}: rates with intervals of the most confused classes."
        figures.append((embed_figure(drawn, alt), True))
    drawn = plot_confusion(arm.confusion.rates, class_names, f"{arm.arm}: confusion matrix", arm.clusters)
    alt = f"Confusion matrix of {arm.arm}: rates with intervals."
    return [*figures, (embed_figure(drawn, alt), not is_large)]


def _choose_confused(arm: OutsideArm, class_names: Sequence[str]) -> list[int]:
    """Return the classes of the most frequent confusions, those that are confused side by side."""
    index = {name: i for i, name in enumerate(class_names)}
    groups: list[list[int]] = []
    for cell in arm.directed:
        pair = [index[cell.true_class], index[cell.predicted_class]]
        touched = [group for group in groups if set(group) & set(pair)]
        added = [c for c in pair if not any(c in group for group in groups)]
        if sum(map(len, groups)) + len(added) > MOST_CONFUSED:
            continue
        merged = [c for group in touched for c in group] + added
        groups = [group for group in groups if group not in touched] + [merged]
    return [c for group in sorted(groups, key=len, reverse=True) for c in group]

"""report.html and report.md from `Findings`: every number was computed before, every word comes from `wording`."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.external.forensics import OutsideFindings
from analysis.findings.forensic_findings import CamPanel
from analysis.findings.study_findings import Findings
from analysis.report.number_formats import flatten_passport
from analysis.report.sentences import FILTERS, describe_figure, describe_search_plot, search_plot_keys
from analysis.report.tables import TableRow
from search_spaces.errors import UserInputError

FIGURE_FOLDER = "findings/figures"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSection:
    """One interactive plot of the search's page: its title, a caption, and plotly's HTML for it (without plotly.js)."""

    title: str
    caption: str
    html: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFigure:
    """A picture as the templates see it: where it comes from, and its alternative text."""

    source: str
    alt: str


def build_html(findings: Findings, table_rows: Sequence[TableRow], figures: Mapping[str, bytes]) -> str:
    """Return report.html: one file that needs no network, no script and no other file.

    Arguments: `table_rows` are the words of `findings.rows`; `figures` holds a PNG for every key of
    `findings.figures`. Raises UserInputError if one of them or a panel's figure is missing.
    """
    missing = sorted(set(findings.figures) - set(figures))
    if missing:
        raise UserInputError(f"the report needs the figures {missing}, but they are missing: analyze the study again")
    sources = {key: _embed(figures[key]) for key in findings.figures}
    return _render("report.html.j2", findings, table_rows, sources)


def build_markdown(findings: Findings, table_rows: Sequence[TableRow]) -> str:
    """Return report.md, whose figures are links to findings/figures/ beside it.

    Raises UserInputError if a panel's figure is not among `findings.figures`.
    """
    sources = {key: f"{FIGURE_FOLDER}/{quote(name)}" for key, name in findings.figures.items()}
    return _render("report.md.j2", findings, table_rows, sources)


def build_comparison_page(title: str, table_rows: Sequence[TableRow]) -> str:
    """Return the A/B table of predictions from outside as one file that needs no network, no script and no other file."""
    template = "comparison.html.j2"
    return _environment(template).get_template(template).render(title=title, rows=table_rows)


def build_forensics_page(title: str, findings: OutsideFindings, pictures: Mapping[str, bytes]) -> str:
    """Return the forensics of predictions from outside as one file; `pictures` holds the PNG of each arm's confusion matrix."""
    template = "forensics.html.j2"
    sources = [(arm, _embed(png)) for arm, png in pictures.items()]
    return _environment(template).get_template(template).render(title=title, findings=findings, pictures=sources)


def build_search_page(study: str, sections: Sequence[PageSection], notes: Sequence[str], plotly_js: str) -> str:
    """Return search.html: one file with the interactive plots of a search, which needs no network and no other file.

    Arguments: `sections` in the order in which they are shown; `notes` are sentences on what is left out; `plotly_js` is the
    text of plotly.js. Both scripts, it and those in the sections, stand in the page as they are.
    """
    return (
        _environment("search.html.j2")
        .get_template("search.html.j2")
        .render(study=study, sections=sections, notes=notes, plotly_js=plotly_js)
    )


def _render(template: str, findings: Findings, table_rows: Sequence[TableRow], sources: Mapping[str, str]) -> str:
    figures = {key: ReportFigure(source=source, alt=describe_figure(key, findings)) for key, source in sources.items()}
    return (
        _environment(template)
        .get_template(template)
        .render(findings=findings, rows=table_rows, figures=figures, **_arrange(findings, figures))
    )


def _embed(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _environment(template: str) -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _arrange(findings: Findings, figures: Mapping[str, ReportFigure]) -> dict[str, Any]:
    """Sort what the templates show into the order in which they show it."""
    key_of_file = {name: key for key, name in findings.figures.items()}
    panels: list[tuple[CamPanel, ReportFigure]] = []
    for panel in findings.panels:
        if panel.figure not in key_of_file:
            raise UserInputError(
                f"the panel of image {panel.sample_id} needs the figure {panel.figure!r}, but the findings have none "
                "of that name: analyze the study again"
            )
        panels.append((panel, figures[key_of_file[panel.figure]]))
    confusions = [(arm.arm, figures[key]) for arm in findings.arms if (key := f"confusion_{arm.arm}") in figures]
    placed = {
        "comparison",
        "arm_shares",
        "learning_curves",
        "tuning_curves",
        "clever_hans",
        "root_causes",
        "class_f1",
        "rungs",
    }
    placed |= {f"confusion_{arm.arm}" for arm in findings.arms}
    search_keys = [k for k in search_plot_keys([arm.arm for arm in findings.search]) if k in figures]
    placed |= set(search_keys)
    placed |= {key_of_file[panel.figure] for panel in findings.panels}
    return {
        "panels": panels,
        "confusions": confusions,
        "search_plots": [(figures[key], describe_search_plot(key)) for key in search_keys],
        "importances": _arrange_importances(findings),
        "other_figures": [figure for key, figure in sorted(figures.items()) if key not in placed],
        "settings": sorted({name for arm in findings.arms for name in arm.hyperparameters}),
        "passport": flatten_passport(findings.passport),
    }


def _arrange_importances(findings: Findings) -> list[tuple[str, list[float | None]]]:
    """Return (hyperparameter, its importance in each arm of the search or None), the highest first."""
    by_name: dict[str, dict[str, float]] = {}
    for entry in findings.importances:
        by_name.setdefault(entry.parameter, {})[entry.arm] = entry.importance
    rows = [(name, [values.get(arm.arm) for arm in findings.search]) for name, values in by_name.items()]
    return sorted(rows, key=lambda row: (-max(v for v in row[1] if v is not None), row[0]))

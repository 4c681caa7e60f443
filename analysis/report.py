"""report.html and report.md from `Findings`: every number was computed before, every word comes from `wording`."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.findings import CamPanel, Findings
from analysis.tables import TableRow
from analysis.wording import FILTERS, describe_figure, flatten_passport
from search_spaces.errors import UserInputError

FIGURE_FOLDER = "findings/figures"


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
    sources = {key: f"data:image/png;base64,{base64.b64encode(figures[key]).decode()}" for key in findings.figures}
    return _render("report.html.j2", findings, table_rows, sources)


def build_markdown(findings: Findings, table_rows: Sequence[TableRow]) -> str:
    """Return report.md, whose figures are links to findings/figures/ beside it.

    Raises UserInputError if a panel's figure is not among `findings.figures`.
    """
    sources = {key: f"{FIGURE_FOLDER}/{quote(name)}" for key, name in findings.figures.items()}
    return _render("report.md.j2", findings, table_rows, sources)


def _render(template: str, findings: Findings, table_rows: Sequence[TableRow], sources: Mapping[str, str]) -> str:
    figures = {key: ReportFigure(source=source, alt=describe_figure(key, findings)) for key, source in sources.items()}
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(template).render(
        findings=findings, rows=table_rows, figures=figures, **_arrange(findings, figures)
    )


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
    placed = {"comparison", "arm_shares", "learning_curves", "class_f1"}
    placed |= {f"confusion_{arm.arm}" for arm in findings.arms}
    placed |= {key_of_file[panel.figure] for panel in findings.panels}
    return {
        "panels": panels,
        "confusions": confusions,
        "other_figures": [figure for key, figure in sorted(figures.items()) if key not in placed],
        "settings": sorted({name for arm in findings.arms for name in arm.hyperparameters}),
        "passport": flatten_passport(findings.passport),
    }

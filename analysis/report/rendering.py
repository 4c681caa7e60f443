"""Templates filled with values, and pictures inside of pages."""

import base64
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from analysis.report import (
    arm_tables,
    cause_sentences,
    comparison_sentences,
    confusion_sentences,
    heat_map_sentences,
    number_formats,
    search_sentences,
    sentences,
    shortcut_sentences,
    side_metric_tables,
)
from analysis.report.figures import figure_to_png
from analysis.report.number_formats import escape_markdown

# First bytes of the kinds of picture; others are taken for PNG.
_KINDS = {b"<svg": "svg+xml", b"\xff\xd8": "jpeg", b"RIFF": "webp"}
# Whose filters the templates use.
_FILTERS = (
    *(arm_tables, cause_sentences, comparison_sentences, confusion_sentences, heat_map_sentences, number_formats),
    *(search_sentences, sentences, shortcut_sentences, side_metric_tables),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFigure:
    """A figure as the templates see it.

    Attributes:
        source: a data URI, or a path relative to the report.
        alt: alternative text.
    """

    source: str
    alt: str


def render(template: str, **values: Any) -> str:
    """Return a template filled with values; .html.j2 escapes them, .md.j2 leaves one blank line where there are several."""
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for module in _FILTERS:
        environment.filters.update(module.FILTERS)
    environment.filters.update(code=mark_code if template.endswith(".html.j2") else _keep_code)
    text = environment.get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n" if template.endswith(".md.j2") else text


def mark_code(text: str) -> Markup:
    """Return text for HTML in which what stands between backticks, such as a command, is set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _keep_code(text: str) -> str:
    """Return text for markdown that is shown literally, but for commands between backticks that contain no sign of markup."""
    parts = re.split(r"(`[\w ./:=,'-]+`)", text)
    return "".join(part if place % 2 else escape_markdown(part) for place, part in enumerate(parts))


def embed_picture(picture: bytes) -> str:
    """Return an SVG, PNG, JPEG or WebP file as a data URI."""
    kind = next((kind for start, kind in _KINDS.items() if picture.startswith(start)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def embed_figure(figure: Figure, alt: str) -> ReportFigure:
    """Return a figure as a PNG inside of a page, with its alternative text."""
    return ReportFigure(source=embed_picture(figure_to_png(figure)), alt=alt)

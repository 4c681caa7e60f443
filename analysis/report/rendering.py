"""Templates filled with values, and pictures and strips of images inside of pages."""

from __future__ import annotations

import base64
import functools
import inspect
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from analysis.arms import render as arm_tables
from analysis.baselines import render as baseline_tables
from analysis.causes import render as cause_sentences
from analysis.comparison import render as comparison_sentences
from analysis.comparison import tables
from analysis.confusions import render as confusion_sentences
from analysis.formats import numbers as number_formats
from analysis.formats.figures import figure_to_png
from analysis.formats.numbers import escape_markdown
from analysis.heat_maps import render as heat_map_sentences
from analysis.interventions import render as intervention_tables
from analysis.report import summary
from analysis.search import render as search_sentences
from analysis.shortcuts import render as shortcut_sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# First bytes of the kinds of picture; others are taken for PNG.
_KINDS = {b"<svg": "svg+xml", b"\xff\xd8": "jpeg", b"RIFF": "webp"}
# Whose public functions are filters of the templates, by their names.
_MODULES = (
    *(arm_tables, baseline_tables, cause_sentences, comparison_sentences, confusion_sentences, heat_map_sentences),
    *(intervention_tables, number_formats, search_sentences, shortcut_sentences, summary, tables),
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
    """Return a template filled with values; .html.j2 escapes them, .md.j2 leaves one blank line where there are several.

    Filters of templates have the names of the functions that they are.
    """
    text = _make_environment(is_html=template.endswith(".html.j2")).get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n" if template.endswith(".md.j2") else text


@functools.cache
def _make_environment(*, is_html: bool) -> Environment:
    """Return an environment that keeps the templates which it has compiled."""
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for module in _MODULES:
        functions = inspect.getmembers(module, inspect.isfunction)
        environment.filters.update((name, one) for name, one in functions if one.__module__ == module.__name__)
    environment.filters.update(code=mark_code if is_html else _keep_code)
    return environment


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


TILE_SIDE = 72
GAP = 4
# From this side on, photographs are much smaller as JPEG; smaller images are shown with their own pixels.
PHOTOGRAPH_SIDE = 73


def draw_strip(images: Sequence[NDArray[np.uint8]], alt: str, tile: int = TILE_SIDE) -> ReportFigure:
    """Return images side by side, each in a square of `tile` px.

    Args:
        images: each (H, W, 3) uint8.
        alt: alternative text.
        tile: side of a square.
    """
    width = len(images) * (tile + GAP) - GAP
    strip = Image.new("RGB", (width, tile), "white")
    is_photograph = False
    for place, pixels in enumerate(images):
        picture = Image.fromarray(pixels)
        is_photograph |= max(picture.size) >= PHOTOGRAPH_SIDE
        scale = tile / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        strip.paste(picture.resize(size, resampling), (place * (tile + GAP), (tile - size[1]) // 2))
    buffer = io.BytesIO()
    kind, options = ("jpeg", {"quality": 88}) if is_photograph else ("png", {"optimize": True})
    strip.save(buffer, format=kind, **options)
    return ReportFigure(source=embed_picture(buffer.getvalue()), alt=alt)

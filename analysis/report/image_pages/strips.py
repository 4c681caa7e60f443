"""Strips of small images as data URIs."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.report.rendering import ReportFigure, embed_picture

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

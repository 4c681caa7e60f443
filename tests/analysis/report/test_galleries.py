"""The confusion matrix of the report links to the images behind its cells."""

import base64
import dataclasses
import io
import json
import math
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from analysis.comparison.tables import build_table_rows
from analysis.formats.numbers import format_interval
from analysis.report import galleries as thumbnail_sheets
from analysis.report.galleries import (
    MAX_GALLERIES,
    MAX_TABLE_CLASSES,
    ThumbnailSheets,
    arrange_confusions,
    choose_thumbnails,
)
from analysis.report.pages import build_html
from search_spaces.errors import UserInputError
from tests.analysis.findings_factory import make_findings

FINDINGS = make_findings()


def make_thumbnails(num_images: int = 1500) -> ThumbnailSheets:
    images = np.random.default_rng(0).integers(0, 256, (num_images, 8, 8, 3), dtype=np.uint8)
    return ThumbnailSheets.draw(images, np.arange(num_images), num_images)


def test_every_linked_cell_has_a_gallery_of_its_confusion() -> None:
    html = build_html(
        FINDINGS, build_table_rows(FINDINGS.rows), dict.fromkeys(FINDINGS.figures, b"png"), thumbnails=make_thumbnails()
    )
    links = re.findall(r'title="([^"]*)"><a href="#(images-[0-9-]*)">', html)
    assert len(links) == len(set(links)) >= 30
    for title, anchor in links:
        names = title.split(":")[0]
        assert re.search(rf'<summary>{names}: [^<]*</summary>\s*<figure id="{anchor}" tabindex="0">', html), names


def test_cells_are_the_rates_and_galleries_are_limited() -> None:
    views = arrange_confusions(FINDINGS, make_thumbnails())
    html = build_html(FINDINGS, build_table_rows(FINDINGS.rows), dict.fromkeys(FINDINGS.figures, b"png"))
    cells = re.findall(r'<td class="(right|wrong)" style="--shade: (\d+)%" title="([^"]*)">([0-9.]+)</td>', html)
    names = [score.class_name for score in FINDINGS.arms[0].class_scores]
    assert cells == [
        (
            "right" if true == predicted else "wrong",
            str(round(40 * math.sqrt(rate.estimate))),
            f"{true} as {predicted}: {format_interval(rate)}",
            f"{100 * rate.estimate:.1f}",
        )
        for arm in FINDINGS.arms
        for true, rates in zip(names, arm.confusion.rates, strict=True)
        for predicted, rate in zip(names, rates, strict=True)
    ]
    for view in views.values():
        assert list(view.anchors.values()) == [gallery.anchor for gallery in view.galleries]
        assert 0 < len(view.galleries) <= MAX_GALLERIES // len(FINDINGS.arms)


def test_many_classes_have_galleries_without_a_table_and_old_findings_a_table_without_galleries() -> None:
    many = dataclasses.replace(FINDINGS, class_names=tuple(map(str, range(MAX_TABLE_CLASSES + 1))))
    assert all(not view.rates and view.galleries for view in arrange_confusions(many, make_thumbnails()).values())
    assert all(view.rates and not view.galleries for view in arrange_confusions(FINDINGS, None).values())


def make_images(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return images of one color each, all different."""
    colors = np.stack([np.arange(number) * 7 % 256, np.arange(number) * 3 % 256, np.full(number, 128)], axis=1)
    return np.broadcast_to(colors[:, None, None, :], (number, height, width, 3)).astype(np.uint8)


def read(source: str) -> NDArray[np.uint8]:
    prefix = "data:image/webp;base64,"
    assert source.startswith(prefix)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix(prefix)))).convert("RGB"))


def test_a_gallery_shows_its_images_from_any_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail_sheets, "SHEET_SIZE", 50)
    images = make_images(300, 8, 8)
    sheets = ThumbnailSheets.draw(images, np.arange(0, 300, 2), 300)
    assert len(sheets.sheets) == 3
    chosen = (298, 0, 102)
    strip = read(sheets.draw_gallery(chosen, "three").source)
    assert strip.shape == (8, 3 * 10 - 2, 3)
    for place, sample_id in enumerate(chosen):
        center = strip[3:5, 10 * place + 3 : 10 * place + 5].astype(int)
        assert np.abs(center - images[sample_id, 0, 0]).max() < 12


def test_large_images_are_made_smaller_in_their_proportion() -> None:
    sheets = ThumbnailSheets.draw(make_images(3, 96, 128), np.arange(3), 3)
    assert (sheets.width, sheets.height) == (64, 48)
    small = ThumbnailSheets.draw(make_images(3, 28, 20), np.arange(3), 3)
    assert (small.width, small.height) == (20, 28)
    described = json.loads(small.describe())
    assert described["num_sheets"] == 1
    assert described["sample_ids"] == [0, 1, 2]
    assert {field.name for field in dataclasses.fields(small)} - {"sheets"} == set(described) - {"num_sheets"}


def test_needed_images_have_a_thumbnail_when_there_are_too_many() -> None:
    ids = np.arange(1000, 3000)
    chosen = choose_thumbnails(ids, [2999, 1000, 2999], 100, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen.tolist())) == 100
    assert {1000, 2999} <= set(chosen.tolist()) <= set(ids.tolist())
    assert np.all(np.diff(chosen) > 0)
    assert choose_thumbnails(ids, [1000], 2000, np.random.default_rng(0)) is ids


def test_an_image_without_a_thumbnail_is_named() -> None:
    sheets = ThumbnailSheets.draw(make_images(9, 8, 8), np.array([0, 2, 8]), 9)
    with pytest.raises(UserInputError, match=r"images \[1, 3\] have no thumbnail: analyze the study again"):
        sheets.draw_gallery((3, 2, 1), "three")

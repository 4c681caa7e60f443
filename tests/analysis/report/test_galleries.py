"""The confusion matrix of the report links to the images behind its cells."""

import dataclasses
import math
import re

import numpy as np

from analysis.comparison.tables import build_table_rows
from analysis.formats.numbers import format_interval
from analysis.report.galleries import MAX_GALLERIES, MAX_TABLE_CLASSES, ThumbnailSheets, arrange_confusions
from analysis.report.pages import build_html
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

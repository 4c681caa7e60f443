"""Thumbnails of test images on few large pictures, and confusion matrices whose cells link to galleries of them."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from analysis.arms.values import ArmFinding
from analysis.confusions.values import ConfusionExamples
from analysis.report.rendering import ReportFigure, embed_picture
from analysis.report.study_findings import Findings
from analysis.statistics.interval import TwoIntervals
from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError, count_noun
from trainables.data.image_array import ImageArray, read_images

MAX_SIDE = 64
# Thumbnails of one sheet, and in one row of it.
SHEET_SIZE, COLUMNS = 1000, 40
QUALITY = 85
GAP = 2


@dataclass(frozen=True, kw_only=True)
class ThumbnailSheets:
    """Thumbnails in the order of their sample ids: row by row, sheet by sheet.

    Attributes:
        sample_ids: (n,) int64, increasing.
        width: of a thumbnail in pixels.
        height: of a thumbnail in pixels.
        sheets: WebP files of SHEET_SIZE thumbnails each, of which the last has fewer.
        num_test_images: of the test split, of which the sheets show n.
    """

    sample_ids: IntArray
    width: int
    height: int
    sheets: tuple[bytes, ...]
    num_test_images: int

    @classmethod
    def draw(cls, images: ImageArray, sample_ids: IntArray, num_test_images: int) -> "ThumbnailSheets":
        """Return the thumbnails of some images.

        Args:
            images: (N, H, W, 3) uint8, indexed by sample id; images larger than MAX_SIDE are made smaller.
            sample_ids: (n,) of the images to show.
            num_test_images: of the test split.
        """
        ids = np.sort(sample_ids)
        height, width = images.shape[1:3]
        scale = min(1.0, MAX_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        parts = (ids[start : start + SHEET_SIZE] for start in range(0, len(ids), SHEET_SIZE))
        sheets = tuple(_draw_sheet(images, part, size) for part in parts)
        return cls(sample_ids=ids, width=size[0], height=size[1], sheets=sheets, num_test_images=num_test_images)

    def describe(self) -> str:
        """Return everything but the sheets as JSON."""
        values = {"sample_ids": self.sample_ids.tolist(), "width": self.width, "height": self.height}
        return json.dumps(values | {"num_test_images": self.num_test_images, "num_sheets": len(self.sheets)})

    def draw_gallery(self, sample_ids: Sequence[int], alt: str) -> ReportFigure:
        """Return the thumbnails of some images side by side.

        Args:
            sample_ids: of the images, all of which have a thumbnail.
            alt: alternative text.

        Raises:
            UserInputError: if an image has no thumbnail.
        """
        missing = sorted(set(sample_ids) - set(self.sample_ids.tolist()))
        if missing:
            raise UserInputError(f"the images {missing} have no thumbnail: analyze the study again")
        strip = Image.new("RGB", (len(sample_ids) * (self.width + GAP) - GAP, self.height), "white")
        for place, sample_id in enumerate(sample_ids):
            number = int(np.searchsorted(self.sample_ids, sample_id))
            sheet = self._pictures[number // SHEET_SIZE]
            row, column = divmod(number % SHEET_SIZE, COLUMNS)
            left, top = column * self.width, row * self.height
            strip.paste(sheet.crop((left, top, left + self.width, top + self.height)), (place * (self.width + GAP), 0))
        return ReportFigure(source=embed_picture(_encode(strip)), alt=alt)

    @cached_property
    def _pictures(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(sheet)).convert("RGB") for sheet in self.sheets]


def choose_thumbnails(test_ids: IntArray, needed: Sequence[int], most: int, generator: np.random.Generator) -> IntArray:
    """Return the sample ids that get a thumbnail: all, or those that are needed and others drawn at random.

    Args:
        test_ids: (N,) of the test split.
        needed: those that galleries show.
        most: largest number of thumbnails.
        generator: draws the others.
    """
    if len(test_ids) <= most:
        return test_ids
    first = np.intersect1d(test_ids, np.array(needed, dtype=np.int64))[:most]
    others = generator.permutation(np.setdiff1d(test_ids, first))[: most - len(first)]
    return np.sort(np.concatenate([first, others]))


def _draw_sheet(images: ImageArray, sample_ids: IntArray, size: tuple[int, int]) -> bytes:
    width, height = size
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(sample_ids) // COLUMNS) * height))
    for place, image in enumerate(read_images(images, sample_ids)):
        picture = Image.fromarray(image)
        shown = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
        row, column = divmod(place, COLUMNS)
        sheet.paste(shown, (column * width, row * height))
    return _encode(sheet)


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", quality=QUALITY)
    return buffer.getvalue()


# With more classes, the table is wider than a page; the figure, which has colors alone, stands instead.
MAX_TABLE_CLASSES = 20
# Galleries of all arms together, about 10 kB each.
MAX_GALLERIES = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Images of a cell.

    Attributes:
        anchor: in the page.
        summary: the two classes, and how many images there are.
        figure: some of the images side by side.
        caption: how many seeds confuse each of them, and their files or sample ids.
    """

    anchor: str
    summary: str
    figure: ReportFigure
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionView:
    """An arm's confusion matrix with its galleries.

    Attributes:
        class_names: K names.
        rates: (K, K) as in `Confusion`; empty where there are too many classes for a table.
        anchors: of the galleries, by (true class, predicted class).
        galleries: the confusions with the most images first.
    """

    class_names: tuple[str, ...]
    rates: tuple[tuple[TwoIntervals, ...], ...]
    anchors: Mapping[tuple[str, str], str]
    galleries: tuple[Gallery, ...]


def arrange_confusions(findings: Findings, thumbnails: ThumbnailSheets | None) -> dict[str, ConfusionView]:
    """Return the confusion matrix of each arm.

    Args:
        findings: of the study.
        thumbnails: of its test images; None for matrices without galleries.
    """
    most, names = MAX_GALLERIES // max(1, len(findings.arms)), findings.class_names
    views = {}
    for number, arm in enumerate(findings.arms, start=1):
        examples = enumerate(() if thumbnails is None else arm.examples[:most], start=1)
        shown = {f"images-{number}-{place}": cell for place, cell in examples}
        galleries = [
            _draw(anchor, cell, arm, thumbnails, findings) for anchor, cell in shown.items() if thumbnails is not None
        ]
        anchors = {(cell.true_class, cell.predicted_class): anchor for anchor, cell in shown.items()}
        rates = arm.confusion.rates if len(names) <= MAX_TABLE_CLASSES else ()
        views[arm.arm] = ConfusionView(class_names=names, rates=rates, anchors=anchors, galleries=tuple(galleries))
    return views


def _draw(
    anchor: str, cell: ConfusionExamples, arm: ArmFinding, thumbnails: ThumbnailSheets, findings: Findings
) -> Gallery:
    names = f"{cell.true_class} as {cell.predicted_class}"
    shown = len(cell.sample_ids)
    count = count_noun(cell.num_images, "image")
    votes = ", ".join(map(str, cell.num_seeds))
    return Gallery(
        anchor=anchor,
        summary=f"{names}: {count}" + (f", of which {shown} are shown" if shown < cell.num_images else ""),
        figure=thumbnails.draw_gallery(cell.sample_ids, f"{shown} images of {names}, by {arm.arm}"),
        caption=(
            f"Seeds that predict {cell.predicted_class}, of {len(arm.seeds)}: {votes}. "
            f"{'Files' if findings.image_files else 'Sample ids'}: {', '.join(map(findings.name_image, cell.sample_ids))}."
        ),
    )

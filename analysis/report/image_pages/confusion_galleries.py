"""The confusion matrices of the report as tables, whose cells link to galleries of the images behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from analysis.findings.arm_findings import ArmFinding
from analysis.findings.class_findings import ConfusionExamples
from analysis.findings.study_findings import Findings
from analysis.report.image_pages.thumbnail_sheets import ThumbnailSheets
from analysis.report.number_formats import format_interval, format_percent
from analysis.report.rendering import ReportFigure

# With more classes, the table is wider than a page; the figure, which has colors alone, stands instead.
MAX_TABLE_CLASSES = 20
# Galleries of all arms together, about 10 kB each.
MAX_GALLERIES = 120
# Percent of the color in a cell with rate 1; more would hide the number.
STRONGEST_SHADE = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """A cell of a confusion matrix.

    Attributes:
        text: its rate in percent.
        title: the two classes, and the rate with its interval.
        shade: percent of the color in the background.
        is_right: whether it is on the diagonal.
        anchor: of the gallery; "" without one.
    """

    text: str
    title: str
    shade: int
    is_right: bool
    anchor: str


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
        columns: names of the classes.
        rows: (name of the true class, cells by predicted class); empty where there are too many classes.
        galleries: the confusions with the most images first.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[MatrixCell, ...]], ...]
    galleries: tuple[Gallery, ...]


def arrange_confusions(findings: Findings, thumbnails: ThumbnailSheets | None) -> dict[str, ConfusionView]:
    """Return the confusion matrix of each arm.

    Args:
        findings: of the study.
        thumbnails: of its test images; None for matrices without galleries.
    """
    most = MAX_GALLERIES // max(1, len(findings.arms))
    views = {}
    for number, arm in enumerate(findings.arms, start=1):
        shown = {} if thumbnails is None else _place_examples(arm, number, most)
        galleries = [
            _draw(anchor, cell, arm, thumbnails, findings) for anchor, cell in shown.items() if thumbnails is not None
        ]
        anchors = {(cell.true_class, cell.predicted_class): anchor for anchor, cell in shown.items()}
        rows = _arrange_rows(arm, findings.class_names, anchors)
        views[arm.arm] = ConfusionView(columns=findings.class_names, rows=rows, galleries=tuple(galleries))
    return views


def _place_examples(arm: ArmFinding, number: int, most: int) -> dict[str, ConfusionExamples]:
    return {f"images-{number}-{place}": cell for place, cell in enumerate(arm.examples[:most], start=1)}


def _arrange_rows(
    arm: ArmFinding, class_names: Sequence[str], anchors: Mapping[tuple[str, str], str]
) -> tuple[tuple[str, tuple[MatrixCell, ...]], ...]:
    if len(class_names) > MAX_TABLE_CLASSES:
        return ()
    rows = []
    for true_class, rates in zip(class_names, arm.confusion.rates, strict=True):
        cells = [
            MatrixCell(
                text=format_percent(rate.estimate).removesuffix(" %"),
                title=f"{true_class} as {predicted}: {format_interval(rate)}",
                shade=round(STRONGEST_SHADE * sqrt(rate.estimate)),
                is_right=predicted == true_class,
                anchor=anchors.get((true_class, predicted), ""),
            )
            for predicted, rate in zip(class_names, rates, strict=True)
        ]
        rows.append((true_class, tuple(cells)))
    return tuple(rows)


def _draw(
    anchor: str, cell: ConfusionExamples, arm: ArmFinding, thumbnails: ThumbnailSheets, findings: Findings
) -> Gallery:
    names = f"{cell.true_class} as {cell.predicted_class}"
    shown = len(cell.sample_ids)
    count = f"{cell.num_images} image{'s' if cell.num_images > 1 else ''}"
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

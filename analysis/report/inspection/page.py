"""The page of an inspection: one offline file with tables, examples and figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.findings.image_findings import Inspection
from analysis.report.figures import figure_to_png
from analysis.report.image_pages.strips import draw_strip
from analysis.report.inspection.contents import describe_inspection
from analysis.report.inspection.data import describe_oddity
from analysis.report.inspection.figures import plot_interpolations, plot_ladder, plot_probe_confusion, plot_spectra
from analysis.report.inspection.sections import InspectionSection
from analysis.report.rendering import ReportFigure, embed_png, render

# Rows of a long list on the page, those of them that are visible at once, and images of a list of thumbnails.
MOST_ROWS, MOST_VISIBLE_ROWS = 50, 20
MOST_THUMBNAILS = 12
# Pairs of classes that each side of the ladder names.
NUM_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure or a strip of images with its caption.

    Attributes:
        figure: source and alternative text.
        caption: below it.
    """

    figure: ReportFigure
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swatch:
    """A mean color: its class and its CSS value."""

    name: str
    color: str


def build_inspection_page(found: Inspection, extra: Sequence[InspectionSection], problems: Sequence[str]) -> str:
    """Return the inspection as a single HTML file that needs no network, no script and no other file.

    Args:
        found: everything that is known of the images.
        extra: further sections, such as resources and time.
        problems: what keeps the study from being launched.
    """
    sections = list(describe_inspection(found, most=MOST_ROWS, num_named=NUM_NAMED))
    examples = InspectionSection(
        anchor="examples", title="Examples before and after augmentation", lines=_describe_examples(found)
    )
    sections = [sections[0], examples, *sections[1:], *extra]
    pictures = {
        "examples": _draw_examples(found),
        "duplicates": _draw_pairs(found),
        "odd": _draw_oddities(found),
        "labels": _draw_label_issues(found),
        "gap": _draw_gap(found),
        "ladder": _draw_ladder(found),
        "interpolation": _draw_interpolation(found),
    }
    return render(
        "inspection.html.j2",
        title=f"{found.name}: inspection",
        found=found,
        sections=sections,
        pictures=pictures,
        swatches=_list_swatches(found),
        problems=problems,
        most=MOST_VISIBLE_ROWS,
    )


def _describe_examples(found: Inspection) -> tuple[str, ...]:
    examples = found.examples
    shown, number = len(examples.classes), found.image_set.num_classes
    line = "training images of each class as they are stored, then augmented, as the model sees them in training"
    share = f"CutMix pastes a box of another image into {100 * examples.cutmix_probability:.0f} % of them"
    if examples.mixup_fraction:
        share += f", and MixUp blends {100 * examples.mixup_fraction:.0f} % of them with another image"
    return (line, share, *((f"the first {shown} of {number} classes are shown",) if shown < number else ()))


def _draw_examples(found: Inspection) -> list[Picture]:
    pictures = []
    for label, before, after in zip(found.examples.classes, found.examples.before, found.examples.after, strict=True):
        name = found.image_set.class_names[label]
        pictures.append(Picture(figure=draw_strip(list(before), f"images of {name}"), caption=name))
        pictures.append(
            Picture(figure=draw_strip(list(after), f"augmented images of {name}"), caption=f"{name}, augmented")
        )
    return pictures


def _draw_pairs(found: Inspection) -> list[Picture]:
    pairs = sorted((*found.images.exact, *found.images.near), key=lambda p: (not p.is_across, not p.is_conflict))
    pictures = []
    for pair in pairs[:MOST_THUMBNAILS]:
        names = [found.name_image(i) for i in (pair.first, pair.second)]
        labels = " / ".join(dict.fromkeys(found.image_set.class_names[k] for k in pair.labels))
        caption = f"{names[0]} ({pair.splits[0]}) and {names[1]} ({pair.splits[1]}): {labels}"
        images = [found.image_set.images[i] for i in (pair.first, pair.second)]
        pictures.append(Picture(figure=draw_strip(images, f"{names[0]} and {names[1]}"), caption=caption))
    return pictures


def _draw_oddities(found: Inspection) -> list[Picture]:
    return [
        Picture(
            figure=draw_strip([found.image_set.images[i] for i in odd.sample_ids[:4]], f"{odd.kind} images"),
            caption=describe_oddity(odd),
        )
        for odd in found.images.oddities
        if odd.sample_ids
    ]


def _draw_label_issues(found: Inspection) -> list[Picture]:
    issues = () if found.network is None else found.network.label_issues[:MOST_THUMBNAILS]
    return [
        Picture(
            figure=draw_strip([found.image_set.images[int(i.sample_id)]], found.name_image(int(i.sample_id)), 96),
            caption=f"{i.label} or {i.suggested}?",
        )
        for i in issues
    ]


def _draw_gap(found: Inspection) -> list[Picture]:
    if found.network is None:
        return []
    figure = plot_probe_confusion(found.network, [found.image_set.class_names[k] for k in found.network.classes])
    return [_picture(figure_to_png(figure), "Confusion matrix of the probe.", "confusion matrix of the linear probe")]


def _draw_ladder(found: Inspection) -> list[Picture]:
    if found.network is None or len(found.network.rungs) < 2:
        return []
    figure = plot_ladder(found.network.rungs, found.image_set.class_names)
    caption = "Bars: intervals at 95 %. Pairs: the three least separable at the native side."
    return [_picture(figure_to_png(figure), caption, "macro-F1 and separability against the side of the images")]


def _draw_interpolation(found: Inspection) -> list[Picture]:
    if found.images.spectra is None:
        return []
    examples = figure_to_png(plot_interpolations(found.images.resized))
    spectra = figure_to_png(plot_spectra(found.images.spectra))
    return [
        _picture(
            examples, "Training images as stored and at the model's input size.", "both interpolations side by side"
        ),
        _picture(
            spectra, "Radially averaged power spectra of training images.", "power spectra of both interpolations"
        ),
    ]


def _picture(png: bytes, caption: str, alt: str) -> Picture:
    return Picture(figure=ReportFigure(source=embed_png(png), alt=alt), caption=caption)


def _list_swatches(found: Inspection) -> list[Swatch]:
    colors = found.images.class_colors[:MOST_ROWS]
    return [
        Swatch(name=found.image_set.class_names[k], color="rgb({:.0f}, {:.0f}, {:.0f})".format(*color))
        for k, color in enumerate(colors)
        if not np.isnan(color).any()
    ]

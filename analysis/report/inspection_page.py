"""The page of an inspection: one offline file with tables, examples and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.formats.figures import ARM_COLORS, INK, error_lengths, new_figure
from analysis.formats.text_sections import InspectionSection, make_section
from analysis.images import render as data
from analysis.images.values import Inspection, NetworkFindings, Rung, Spectra
from analysis.report.rendering import ReportFigure, draw_strip, embed_figure, render
from trainables.records.confusion_figure import literal_text, plot_rate_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
# By how much the difference of the two interpolations is enlarged.
DIFFERENCE_GAIN = 4


def plot_ladder(rungs: Sequence[Rung], class_names: Sequence[str]) -> Figure:
    """Draw macro-F1, and the separability of the pairs that are least separable at the native side, against the side.

    A pair that is not among the ten weakest of a rung has no point there.
    """
    figure = new_figure((6.4, 3.8))
    axes = figure.add_subplot()
    sides = [rung.side for rung in rungs]
    scores = [100 * rung.macro_f1.estimate for rung in rungs]
    errors = 100 * error_lengths([rung.macro_f1 for rung in rungs])
    axes.errorbar(sides, scores, yerr=errors, color=INK, marker="o", capsize=3, linewidth=2, label="macro-F1")
    for index, pair in enumerate(rungs[0].weakest[:3]):
        found = [
            (rung.side, 100 * other.area.estimate)
            for rung in rungs
            for other in rung.weakest
            if (other.first, other.second) == (pair.first, pair.second)
        ]
        name = literal_text(f"separability of {class_names[pair.first]}-{class_names[pair.second]}")
        line, marker = LINES[index + 1], MARKERS[index + 1]
        axes.plot(*zip(*found, strict=True), color=ARM_COLORS[index], linestyle=line, marker=marker, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.minorticks_off()
    axes.set_xlabel("side of the images (px)")
    axes.set_ylabel("%")
    axes.set_ylim(top=100)
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    return figure


def plot_probe_confusion(network: NetworkFindings, class_names: Sequence[str]) -> Figure:
    """Draw the confusion matrix of the probe, as shares of the true class in percent.

    Args:
        network: findings of P classes.
        class_names: P names.
    """
    sizes = network.confusion.sum(axis=1, keepdims=True)
    rates = network.confusion / sizes
    texts = [[f"{100 * rate:.0f}" for rate in row] for row in rates]
    return plot_rate_matrix(rates, texts, class_names, title="Out-of-fold linear probe, rate in %")


def plot_spectra(spectra: Spectra) -> Figure:
    """Draw the power of both interpolations over the frequency, and their ratio."""
    figure = new_figure((6.4, 4.6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for index, (name, power) in enumerate(spectra.power.items()):
        style = {"color": ARM_COLORS[index], "linestyle": LINES[index]}
        above.semilogy(spectra.frequencies, np.maximum(power, 1e-9), label=name, **style)
    above.set_ylabel("power (gray levels²)")
    above.legend(frameon=False)
    below.plot(spectra.frequencies, spectra.gain(), color=INK)
    below.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    below.set_ylabel("bicubic / bilinear")
    below.set_xlabel("frequency (cycles per pixel of the model's input)")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def plot_interpolations(resized: Mapping[str, NDArray[Any]]) -> Figure:
    """Draw images as they are stored, under both interpolations, and the difference, enlarged around mid-gray.

    Args:
        resized: the images, as in `ImageFindings`.
    """
    difference = resized["bicubic"] - resized["bilinear"]
    return plot_columns({**resized, f"difference x {DIFFERENCE_GAIN}": 128 + DIFFERENCE_GAIN * difference})


def plot_columns(columns: Mapping[Any, NDArray[Any]]) -> Figure:
    """Draw a grid of images; a column has a title and (n, H, W, 3) images with values in [0, 255]."""
    number = len(next(iter(columns.values())))
    figure = new_figure((1.8 * len(columns), 1.9 * number + 0.3))
    grid = figure.subplots(number, len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        grid[0][column].set_title(title, size=10)
        for row, picture in enumerate(pictures):
            axes = grid[row][column]
            axes.imshow(np.rint(picture).clip(0, 255).astype(np.uint8), interpolation="nearest")
            axes.set_axis_off()
    return figure


# Rows of a long list on the page, those of them that are visible at once, and images of a list of thumbnails.
MOST_ROWS, MOST_VISIBLE_ROWS = 50, 20
MOST_THUMBNAILS = 12
# Images that show the same, side by side.
MOST_IN_STRIP = 8
# Pairs of classes that each side of the ladder names.
NUM_NAMED = 3


Picture = tuple[ReportFigure, str]


def describe_inspection(found: Inspection, *, most: int, num_named: int) -> tuple[InspectionSection, ...]:
    """Return the sections on images, in the order in which they are shown.

    Args:
        found: everything that is known.
        most: rows of a list that may be long.
        num_named: pairs of classes that each side of the ladder names; with 1, only the pair that loses most.
    """
    return (
        data.describe_stages(found),
        data.describe_class_counts(found.image_set.class_names, found.audit.class_counts, most),
        data.describe_duplicates(found, most),
        data.describe_oddities(found),
        data.describe_label_issues(found, most),
        data.describe_gap(found, most),
        data.describe_ladder(found, num_named),
        data.describe_interpolation(found),
        data.describe_colors(found, most),
    )


def build_inspection_page(found: Inspection, extra: Sequence[InspectionSection], problems: Sequence[str]) -> str:
    """Return the inspection as a single HTML file that needs no network, no script and no other file.

    Args:
        found: everything that is known of the images.
        extra: further sections, such as resources and time.
        problems: what keeps the study from being launched.
    """
    sections = list(describe_inspection(found, most=MOST_ROWS, num_named=NUM_NAMED))
    examples = make_section("examples", "Examples before and after augmentation", _describe_examples(found))
    sections = [sections[0], examples, *sections[1:], *extra]
    pictures = {
        "stages": _draw_aspects(found),
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
        swatches=[
            (name, "rgb({:.0f}, {:.0f}, {:.0f})".format(*color))
            for name, color in zip(found.image_set.class_names, found.images.class_colors[:MOST_ROWS], strict=False)
            if not np.isnan(color).any()
        ],
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


def _draw_aspects(found: Inspection) -> list[Picture]:
    if not found.images.squared:
        return []
    figure = embed_figure(plot_columns(found.images.squared), "images as squares in three ways")
    return [(figure, "Training images whose sides differ, as squares under each data.aspect.")]


def _draw_examples(found: Inspection) -> list[Picture]:
    pictures = []
    for label, before, after in zip(found.examples.classes, found.examples.before, found.examples.after, strict=True):
        name = found.image_set.class_names[label]
        pictures.append((draw_strip(list(before), f"images of {name}"), name))
        pictures.append((draw_strip(list(after), f"augmented images of {name}"), f"{name}, augmented"))
    return pictures


def _draw_pairs(found: Inspection) -> list[Picture]:
    """Return a strip for each image of which others are copies, with them."""
    pairs = sorted((*found.images.exact, *found.images.near), key=lambda p: (not p.is_across, not p.is_conflict))
    shown: dict[int, dict[int, tuple[str, int]]] = {}
    for pair in pairs:
        strip = shown.setdefault(pair.first, {pair.first: (pair.splits[0], pair.labels[0])})
        strip[pair.second] = (pair.splits[1], pair.labels[1])
    pictures = []
    for strip in list(shown.values())[:MOST_THUMBNAILS]:
        ids = list(strip)[:MOST_IN_STRIP]
        more = f" and {len(strip) - len(ids)} more" if len(strip) > len(ids) else ""
        labels = " / ".join(dict.fromkeys(found.image_set.class_names[label] for _, label in strip.values()))
        names = ", ".join(f"{found.name_image(i)} ({strip[i][0]})" for i in ids)
        alt = f"{found.name_image(ids[0])} and its copies"
        pictures.append((draw_strip([found.image_set.images[i] for i in ids], alt), f"{names}{more}: {labels}"))
    return pictures


def _draw_oddities(found: Inspection) -> list[Picture]:
    return [
        (
            draw_strip([found.image_set.images[i] for i in odd.sample_ids[:4]], f"{odd.kind} images"),
            data.describe_oddity(odd),
        )
        for odd in found.images.oddities
        if odd.sample_ids
    ]


def _draw_label_issues(found: Inspection) -> list[Picture]:
    issues = () if found.network is None else found.network.label_issues[:MOST_THUMBNAILS]
    return [
        (
            draw_strip([found.image_set.images[int(i.sample_id)]], found.name_image(int(i.sample_id)), 96),
            f"{i.label} or {i.suggested}?",
        )
        for i in issues
    ]


def _draw_gap(found: Inspection) -> list[Picture]:
    if found.network is None:
        return []
    figure = plot_probe_confusion(found.network, [found.image_set.class_names[k] for k in found.network.classes])
    return [(embed_figure(figure, "confusion matrix of the linear probe"), "Confusion matrix of the probe.")]


def _draw_ladder(found: Inspection) -> list[Picture]:
    if found.network is None or len(found.network.rungs) < 2:
        return []
    figure = plot_ladder(found.network.rungs, found.image_set.class_names)
    caption = "Bars: intervals at 95 %. Pairs: the three least separable at the native side."
    return [(embed_figure(figure, "macro-F1 and separability against the side of the images"), caption)]


def _draw_interpolation(found: Inspection) -> list[Picture]:
    if found.images.spectra is None:
        return []
    examples, spectra = plot_interpolations(found.images.resized), plot_spectra(found.images.spectra)
    return [
        (
            embed_figure(examples, "both interpolations side by side"),
            "Training images as stored and at the model's input size.",
        ),
        (
            embed_figure(spectra, "power spectra of both interpolations"),
            "Radially averaged power spectra of training images.",
        ),
    ]

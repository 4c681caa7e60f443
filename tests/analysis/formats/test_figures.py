"""Figures: they are drawn, labeled and not blank, and show the values that they are given."""

import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from analysis.arms.render import plot_class_f1
from analysis.comparison.render import plot_interval_bars
from analysis.confusions.render import plot_confusion
from analysis.formats.figures import figure_to_png, figure_to_svg
from analysis.heat_maps.render import plot_cam_panel
from analysis.search.render import plot_arm_shares, plot_learning_curves
from search_spaces.errors import UserInputError
from tests.analysis.findings_factory import make_arm_cams, make_findings, make_panel
from trainables.records.confusion_figure import plot_confusion_matrix
from trainables.seeds import numpy_generator

CURVES = {
    "resnet18": [
        ([1, 2, 3, 4], [0.3, 0.5, 0.6, 0.65], "COMPLETE"),
        ([1, 2], [0.2, 0.3], "PRUNED"),
        ([1, 2], [0.2, None], "FAILED"),
    ],
    "resnet50": [([1, 2, 3, 4], [0.4, 0.5, 0.7, 0.75], "COMPLETE"), ([], [], "RUNNING")],
}

DRAWINGS: dict[str, Callable[[int], Figure]] = {
    "confusion": lambda k: plot_confusion(
        make_findings(k).arms[0].confusion.rates, make_findings(k).class_names, "resnet18: confusion"
    ),
    "counts": lambda k: plot_confusion_matrix(np.eye(k) * 90 + 10, make_findings(k).class_names),
    "class_f1": lambda k: plot_class_f1(make_findings(k).arms),
    "interval_bars": lambda k: plot_interval_bars(make_findings(k).rows),
    "arm_shares": lambda k: plot_arm_shares(make_findings(k).search),
    "learning_curves": lambda k: plot_learning_curves(CURVES, rungs=(k,)),
    "cam_panel": lambda k: plot_cam_panel(
        make_image(k), make_panel(17, "both correct"), make_arm_cams(make_panel(17, ""))
    ),
}


def make_image(seed: int) -> np.ndarray:
    return numpy_generator(seed, "image").integers(0, 256, (32, 32, 3)).astype(np.uint8)


def read_png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_reproducible_pngs_and_not_blank(name: str, num_classes: int) -> None:
    figure = DRAWINGS[name](num_classes)
    data = figure_to_png(figure, dots_per_inch=60)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = read_png(data)
    width, height = figure.get_size_inches() * 60
    assert abs(pixels.shape[0] - height) <= 1
    assert abs(pixels.shape[1] - width) <= 1
    assert (pixels == 255).all(axis=2).mean() < 0.97
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert data == figure_to_png(DRAWINGS[name](num_classes), dots_per_inch=60)


@pytest.mark.parametrize("name", sorted(set(DRAWINGS) - {"cam_panel"}))
def test_axes_have_titles_and_labels(name: str) -> None:
    figure = DRAWINGS[name](2)
    main = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert figure.get_suptitle() or all(axes.get_title() for axes in main)
    assert all(axes.get_xlabel() for axes in main)


def test_a_confusion_cell_carries_rate_and_half_width() -> None:
    findings = make_findings(10)
    confusion = findings.arms[0].confusion
    texts = [t.get_text() for t in plot_confusion(confusion.rates, findings.class_names, "x").axes[0].texts]
    assert len(texts) == 100
    for text, cell in zip(texts, (cell for row in confusion.rates for cell in row), strict=True):
        if cell.estimate == 0:
            assert text == "0"
        else:
            rate, half = text.split("\n±")
            assert float(rate) == pytest.approx(100 * cell.estimate, abs=0.051)
            assert float(half) == pytest.approx(50 * (cell.models.high - cell.models.low), abs=0.051)


def test_counts_are_colored_by_the_fraction_of_their_row() -> None:
    figure = plot_confusion_matrix([[8, 2], [0, 0]], ["a", "b"])
    rates = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(rates, [[0.8, 0.2], [0, 0]])
    assert [t.get_text() for t in figure.axes[0].texts] == ["8", "2", "0", "0"]
    with pytest.raises(UserInputError, match="3 class names need a matrix of 3x3"):
        plot_confusion_matrix([[8, 2], [0, 0]], ["a", "b", "c"])


def test_many_classes_have_names_but_no_numbers() -> None:
    names = [f"class {i}" for i in range(60)]
    figure = plot_confusion_matrix(np.eye(60), names)
    assert not figure.axes[0].texts
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == names
    assert max(figure.get_size_inches()) < 18


def test_dollars_and_angle_brackets_are_drawn_literally() -> None:
    findings = make_findings(2)
    names = ("a$b$c", "<$>_\\frac")
    scores = tuple(
        dataclasses.replace(s, class_name=n) for s, n in zip(findings.arms[0].class_scores, names, strict=True)
    )
    arm = dataclasses.replace(findings.arms[0], arm="$x$ \\bad{", class_scores=scores)
    panel = dataclasses.replace(make_panel(17, "only $x$ correct"), true_class="a$b$c")
    figures = [
        plot_class_f1([arm]),
        plot_confusion(arm.confusion.rates, names, "$x$"),
        plot_learning_curves({"$\\bad{$": []}),
        plot_cam_panel(make_image(1), panel, make_arm_cams(panel)),
    ]
    for figure in figures:
        assert figure_to_png(figure, dots_per_inch=40)


def test_class_f1_shows_estimates_intervals_and_macro_f1() -> None:
    arms = make_findings(10).arms
    axes = plot_class_f1(arms).axes[0]
    bars: Any = axes.patches
    widths = [bar.get_width() for bar in bars]
    expected = [100 * score.f1.estimate for arm in arms for score in arm.class_scores]
    np.testing.assert_allclose(widths, expected)
    means = [
        line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    ]
    assert {round(100 * arm.test_macro_f1.estimate, 6) for arm in arms} <= {round(float(m), 6) for m in means}
    assert len(axes.containers) == 2 * len(arms)


def test_interval_bars_show_margin_interval_and_seeds() -> None:
    rows = make_findings(10).rows
    axes = plot_interval_bars(rows).axes[0]
    bands: Any = axes.patches
    for row, band in zip(rows, bands, strict=True):
        assert band.get_x() == pytest.approx(-100 * row.margin)
        assert band.get_width() == pytest.approx(200 * row.margin)
    texts = [t.get_text() for t in axes.texts]
    assert texts == [str(row.verdict) for row in rows]
    drawn = np.concatenate([np.atleast_1d(line.get_xdata()) for line in axes.lines])
    for row in rows:
        for difference in row.seed_differences:
            assert np.isclose(drawn, 100 * difference).any()


def test_no_text_of_the_interval_bars_is_cut_off_however_long_the_names() -> None:
    row = dataclasses.replace(
        make_findings(10).rows[0], treatment="abstudy_example.loops:PixelRegression", control="network"
    )
    figure = plot_interval_bars([row])
    FigureCanvasAgg(figure).draw()
    inside = figure.bbox
    ticks = [*figure.axes[0].get_xticklabels()]
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in ticks]
    assert any("Differences with" in text.get_text() for text in texts)
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= inside.x0 - 1, text
        assert box.x1 <= inside.x1 + 1, text


def test_line_styles_show_the_states_of_trials() -> None:
    figure = plot_learning_curves(CURVES, rungs=(2,))
    first, second = figure.axes
    lines = {(line.get_linestyle(), len(line.get_xdata())) for line in first.lines}
    assert {("-", 4), ("--", 2), (":", 2)} <= lines
    assert "1 complete, 1 pruned, 1 failed" in first.get_title()
    assert "pruned" not in second.get_title()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["complete", "pruned", "failed", "running", "rung"]


def test_a_correct_arm_has_one_map_and_an_incorrect_arm_two_by_each_method() -> None:
    panel = make_panel(17, "only resnet18 correct")
    figure = plot_cam_panel(make_image(0), panel, make_arm_cams(panel))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert "true class: cat" in titles[0]
    assert sorted(titles[1:]) == [
        "resnet18, Grad-CAM\nlayer3, for predicted: cat (91 %)",
        "resnet50, Grad-CAM\nlayer4, for predicted: dog (62 %)",
        "resnet50, Grad-CAM\nlayer4, for true: cat (31 %)",
        "resnet50, HiResCAM\nlayer3, for predicted: dog (62 %)",
        "resnet50, HiResCAM\nlayer3, for true: cat (31 %)",
    ]


def test_degenerate_maps_are_labeled_and_others_scaled_to_their_maximum() -> None:
    panel = make_panel(204, "both wrong")
    cams = make_arm_cams(panel)
    figure = plot_cam_panel(make_image(0), panel, cams)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert "degenerate map" in labels
    assert f"maximum {cams[0].predicted_cam.max():.3g}" in labels
    heat = figure.axes[1].images[0]
    np.testing.assert_allclose(heat.get_array(), cams[0].predicted_cam / cams[0].predicted_cam.max())
    assert heat.get_clim() == (0, 1)


def test_figures_without_data_can_be_drawn() -> None:
    for figure in (plot_class_f1([]), plot_interval_bars([]), plot_learning_curves({}), plot_arm_shares([])):
        assert figure_to_png(figure, dots_per_inch=40).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["interval_bars", "arm_shares", "learning_curves"])
def test_drawings_are_reproducible_and_contain_their_text(name: str) -> None:
    svg = figure_to_svg(DRAWINGS[name](10))
    assert svg == figure_to_svg(DRAWINGS[name](10))
    root = ElementTree.fromstring(svg)
    texts = "".join(text for element in root.iter() if element.tag.endswith("text") for text in element.itertext())
    assert "resnet18" in texts
    assert "<script" not in svg.decode()
    assert not re.search(r'(?:href|src)="(?!#)', svg.decode())


def test_black_and_white_turn_on_a_dark_page() -> None:
    svg = figure_to_svg(DRAWINGS["interval_bars"](10)).decode()
    style, drawing = re.findall(r"<style>(.*?)</style>(.*)", svg, re.DOTALL)[0]
    turned = set(re.findall(r'\[style\*="(fill|stroke): (#\w+)"\]', style))
    used = set(re.findall(r"(fill|stroke): (#\w+)", drawing))
    grays = {(kind, color) for kind, color in used if color[1:3] == color[3:5] == color[5:7]}
    assert grays
    assert grays <= turned, "a gray that stays as it is"

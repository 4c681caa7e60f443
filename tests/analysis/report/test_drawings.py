"""Figures as SVG: reproducible, with their text, and colors that turn with a dark page."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from analysis.formats.figures import figure_to_svg
from tests.analysis.formats.test_figures import DRAWINGS


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

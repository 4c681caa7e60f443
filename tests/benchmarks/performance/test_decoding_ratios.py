"""P13 and P14 on a few photographs: both sides are measured, and the second start decodes nothing."""

from pathlib import Path

import pytest
from PIL import Image

from benchmarks import ratios
from benchmarks.performance import decoding_ratios
from trainables.data.decoding import decode_set
from trainables.data.decoding import decoded_images as decoding
from trainables.data.decoding.image_decoder import decode_image


def test_both_sides_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    monkeypatch.setattr(decode_set, "decode_image", lambda *arguments: decoded.append(1) or decode_image(*arguments))
    monkeypatch.setattr(decoding, "MIN_KEPT_SECONDS", 0)
    monkeypatch.setattr(decoding_ratios, "cpu_count", lambda: 1)
    monkeypatch.setattr(ratios, "REPEATS", 1)
    (row,) = decoding_ratios.measure_decoding(tmp_path, num_images=20, num_bare=5)
    assert len(decoded) == 2 * 20, "the turn that does not count, and one repeat"
    assert 0.2 < row.median < 5
    decoding_ratios.measure_second_start(tmp_path, num_images=20)
    assert len(decoded) == 5 * 20, "the first start of each of two turns, and one before them"
    photographs = sorted(tmp_path.rglob("*.jpg"))
    assert len(photographs) == 20
    with Image.open(photographs[0]) as image:
        assert image.size == (500, 375)
    assert 50_000 < photographs[0].stat().st_size < 100_000

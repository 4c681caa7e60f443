"""P21 in small: a second probe's trial reads the features of the first, and is faster than a full trial."""

from benchmarks.performance.probe_ratio import measure_probe_trial


def test_a_second_probe_is_faster_than_a_full_trial() -> None:
    (ratio,) = measure_probe_trial(400)
    assert ratio.median < 0.5
    assert "once" in ratio.note

"""The halves of the test images."""

import numpy as np

from analysis.interventions.halves import find_choosing


def test_the_half_depends_on_seed_and_sample_id_alone() -> None:
    ids = np.arange(4000)
    choosing = find_choosing(ids, None, 5)
    assert abs(choosing.mean() - 0.5) < 0.03
    assert np.array_equal(find_choosing(ids[::-1], None, 5), choosing[::-1])
    assert np.array_equal(find_choosing(ids[100:200], None, 5), choosing[100:200])
    other = find_choosing(ids, None, 6)
    assert abs((other == choosing).mean() - 0.5) < 0.03


def test_images_of_one_group_are_in_one_half() -> None:
    ids = np.arange(1200)
    choosing = find_choosing(ids, ids // 4, 5).reshape(-1, 4)
    assert (choosing == choosing[:, :1]).all()
    assert abs(choosing.mean() - 0.5) < 0.1

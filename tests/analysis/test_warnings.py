"""Warnings of the report."""

import pytest

from analysis.evidence.study_warnings import compute_warnings
from tests.analysis.findings_factory import make_search_arm


@pytest.mark.parametrize(("shares_matter", "number"), [(True, 1), (False, 0)])
def test_unequal_device_time_is_a_warning_only_if_shares_matter(shares_matter: bool, number: int) -> None:
    arms = [make_search_arm("resnet18", 0.28), make_search_arm("resnet50", 0.72)]
    found = compute_warnings(arms, [], ["as planned"], shares_matter=shares_matter)
    assert found[0] == "as planned"
    assert len(found) == 1 + number
    assert all("resnet18 got 28%" in warning for warning in found[1:])

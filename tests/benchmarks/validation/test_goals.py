"""Goals of validations are judged by exact intervals."""

import pytest

from benchmarks.validation.goals import (
    Goal,
    at_least,
    at_most,
    at_most_so_many,
    format_share,
    list_problems,
    make_plain,
    tabulate_goals,
)


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        (at_least("g", 20, 20, 0.7), "met"),
        (at_least("g", 18, 20, 0.7), "open"),
        (at_least("g", 8, 20, 0.7), "missed"),
        (at_least("g", 0, 0, 0.7), "open"),
        (at_most("g", 0, 100, 0.05), "met"),
        (at_most("g", 0, 20, 0.05), "open"),
        (at_most("g", 20, 100, 0.05), "missed"),
        (at_most_so_many("g", 1, 60, 1, 60), "met"),
        (at_most_so_many("g", 1, 59, 1, 60), "open"),
        (at_most_so_many("g", 2, 10, 1, 60), "missed"),
        (make_plain("g", "yes", "no", is_met=False), "missed"),
    ],
)
def test_judgement(goal: Goal, expected: str) -> None:
    assert goal.judgement == expected
    assert tabulate_goals([goal]).rows[0][3] == expected
    assert len(list_problems([goal])) == (expected == "missed")


def test_shares_come_with_their_exact_interval() -> None:
    assert format_share(28, 30) == "28 of 30 = 0.93 [0.78, 0.99]"
    assert format_share(0, 0) == "0 of 0"

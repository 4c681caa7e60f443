"""Goals of validations are judged by exact intervals."""

import pytest

from benchmarks.validation.cluster_tables import ARMS_PER_BLOCK, find_planted, tabulate_clusters
from benchmarks.validation.goals import (
    Goal,
    at_least,
    at_most,
    count_open,
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
        (at_most("g", 0, 10, 0.05), "open"),
        (at_most("g", 0, 71, 0.05), "open"),
        (at_most("g", 0, 72, 0.05), "met"),
        (at_least("g", 10, 10, 0.7), "open"),
        (make_plain("g", "yes", "no", is_met=False), "missed"),
    ],
)
def test_judgement(goal: Goal, expected: str) -> None:
    assert goal.judgement == expected
    assert tabulate_goals([goal]).rows[0][3] == expected
    assert len(list_problems([goal])) == (expected == "missed")
    assert count_open([goal]) == f"{int(expected == 'open')} of 1"


def test_shares_come_with_their_exact_interval() -> None:
    assert format_share(28, 30) == "28 of 30 = 0.93 [0.78, 0.99]"
    assert format_share(0, 0) == "0 of 0"


class StoredBlocks:
    """Stands in for a cache: the cluster test finds a pair in every tenth null arm of 1,000 images, and all planted ones."""

    def compute(self, function, calls):  # type: ignore[no-untyped-def]
        if function is find_planted:
            return [((1.0, 0.0, 1.0),) * ARMS_PER_BLOCK for _ in calls]
        return [tuple(i % 10 == 0 and arm.num_images == 1000 for i in range(ARMS_PER_BLOCK)) for arm, _ in calls]


def test_each_row_of_the_cluster_test_is_judged_by_its_own_interval() -> None:
    (level, _), goals = tabulate_clusters(StoredBlocks())  # type: ignore[arg-type]
    assert [row[2] for row in level.rows] == ["0.000"] * 3 + ["0.100"] * 3
    assert [goal.judgement for goal in goals] == ["met"] * 3 + ["missed"] * 3
    assert goals[3].name == "family-wise error of the cluster test, 1000 images, S = 1"
    assert goals[3].measured.endswith("6 cells")

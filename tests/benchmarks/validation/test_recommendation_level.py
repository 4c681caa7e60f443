"""Rounds whose effects are known: wrong recommendations stay at their level, and what helps is found more often than before."""

from dataclasses import replace

import pytest

from benchmarks.validation import validate_interventions
from benchmarks.validation.goals import Goals
from benchmarks.validation.recommendation_level import ALPHA, RecommendedRound, run_recommended_round
from benchmarks.validation.validate_interventions import MISLEADING, RULES, tabulate_recommendations

NUM_ROUNDS = 200


def count(world: RecommendedRound) -> tuple[int, int]:
    """Return how many rounds recommend what is wrong, and what is right."""
    found = [run_recommended_round(world, number) for number in range(NUM_ROUNDS)]
    return sum(one.is_wrong for one in found), sum(one.is_right for one in found)


@pytest.mark.parametrize("name", MISLEADING)
def test_a_recommendation_is_wrong_in_few_rounds(name: str) -> None:
    world = RecommendedRound(num_arms=7, num_seeds=4, lead=0, **MISLEADING[name])
    wrong, _ = count(world)
    # 99.9 % quantile of a binomial of the level.
    assert wrong <= ALPHA * NUM_ROUNDS + 3.1 * (ALPHA * NUM_ROUNDS) ** 0.5 + 1


def test_what_helps_is_recommended_more_often_than_by_the_bound_of_its_row() -> None:
    world = RecommendedRound(num_arms=7, num_seeds=5, num_reaching=1, reduction=8.0)
    right = {name: count(replace(world, **changes))[1] for name, changes in RULES.items()}
    earlier, equal, leading, other = right.values()
    assert equal > 1.2 * earlier
    assert leading > 1.2 * equal
    assert other >= earlier


def test_the_tables_have_a_row_per_round_and_a_goal_per_wrong_recommendation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        validate_interventions, "repeat", lambda function, world, count: [function(world, i) for i in range(count)]
    )
    goals = Goals()
    wrong, right = tabulate_recommendations(2, goals)
    assert len(wrong.rows) == len(goals.judged) == 8 * len(MISLEADING)
    assert {goal.rule for goal in goals.judged} == {f"at most {ALPHA}"}
    assert all(len(row) == len(right.columns) for row in right.rows)

"""The level of rounds of interventions, on a few tables."""

import numpy as np
import pytest

from benchmarks.validation import intervention_level, validate_interventions
from benchmarks.validation.goals import Goals, Judgement
from benchmarks.validation.intervention_level import RoundWorld, measure_claims

POOL = "middle (0.05)"


def test_a_table_is_the_same_again_and_claims_nothing_in_most_cases() -> None:
    world = RoundWorld(pool=POOL, num_arms=2, looks=(3, 5))
    found = [measure_claims(world, number) for number in range(12)]
    assert found[:2] == [measure_claims(world, number) for number in range(2)]
    assert found[0] != found[1]
    assert sum(one.macro_f1 or one.target for one in found) <= 2


def test_old_runs_as_the_control_make_an_arm_that_changes_nothing_look_better() -> None:
    changes = {
        has_old: np.mean(
            [
                measure_claims(
                    RoundWorld(pool=POOL, num_arms=1, looks=(3,), has_old_control=has_old), number
                ).target_change
                for number in range(40)
            ]
        )
        for has_old in (False, True)
    }
    assert changes[True] < -0.005
    assert abs(changes[False]) < 0.006


def test_an_arm_that_differs_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(600, dtype=np.int64) % 10
    generator = np.random.default_rng(0)
    wrong = generator.random((60, 600)) < np.where(np.arange(60) % 2, 0.5, 0.05)[:, None]
    pool = np.where(wrong, (labels + 1) % 10, labels)
    monkeypatch.setattr(intervention_level, "make_pool", lambda _: (labels, pool))
    monkeypatch.setattr(
        intervention_level,
        "numpy_generator",
        lambda *names: _Ordered(names[0]),  # draws the runs in order of their kind
    )
    found = measure_claims(RoundWorld(pool="test", num_arms=1, looks=(10,), num_parent_seeds=5), 0)
    assert found.macro_f1
    assert found.target


class _Ordered:
    """A generator whose permutation puts the bad runs first, and then the good ones."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def permutation(self, number: int) -> np.ndarray:
        return np.argsort(np.arange(number) % 2 == 0, kind="stable")[15:]

    def choice(self, values: np.ndarray, size: int) -> np.ndarray:
        return self._generator.choice(values, size=size)


def test_the_page_has_a_row_per_pool_and_design(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_interventions, "POOLS", (POOL,))
    monkeypatch.setattr(
        validate_interventions, "repeat", lambda function, world, count: [function(world, i) for i in range(count)]
    )
    goals = Goals()
    table = validate_interventions.tabulate_level(3, goals)
    assert len(table.rows) == len(validate_interventions.DESIGNS)
    assert {goal.rule for goal in goals.judged} == {"at most 0.025", "at most 0.05"}
    assert len(goals.judged) == 3 * len(table.rows)
    # Three tables decide nothing.
    assert {goal.judgement for goal in goals.judged} == {Judgement.OPEN}
    assert len(validate_interventions.tabulate_old_control(3).rows) == 1

"""Projects of the gate's validation: candidates without an effect are as good, and those with one are better by as much."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.validation import gate_projects, validate_gate
from benchmarks.validation.gate_projects import Errors, GateProject, gate_project
from benchmarks.validation.goals import Goals
from benchmarks.validation.prediction_pools import Pool, load_pool
from benchmarks.validation.validate_gate import EFFECT, EFFECTS, GatedProjects
from trainables.seeds import numpy_generator

K, NUM_MODELS, PER_CLASS = 4, 30, 60


@pytest.fixture
def project(tmp_path: Path) -> GateProject:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(K), PER_CLASS)
    ease = generator.standard_normal(len(labels))
    right = ease + 0.5 * generator.standard_normal((2, NUM_MODELS, len(labels)))
    predicted = np.where(right > np.quantile(right, 0.3), labels, (labels + 1) % K).astype(np.int16)
    Pool(labels=labels, predicted=predicted).save(tmp_path / "pool.npz")
    return GateProject(pool=tmp_path / "pool.npz", num_images=130, errors=Errors.SAME, num_candidates=3)


def test_images_have_the_shares_of_the_pool(project: GateProject) -> None:
    pool = load_pool(project.pool)
    images = gate_projects._draw_images(pool, 130, np.random.default_rng(0))
    assert sorted(np.bincount(pool.labels[images]).tolist()) == [32, 32, 33, 33]


def test_exchanged_errors_leave_the_truth_and_repairs_raise_it_by_the_effect(project: GateProject) -> None:
    pool, generator = load_pool(project.pool), numpy_generator(0, "recipe")
    size, everyone = len(pool.labels), np.arange(NUM_MODELS)
    plain = gate_projects._Recipe(np.arange(size), np.zeros(size, dtype=bool))
    assert gate_projects._change(pool, plain, project, generator) is plain
    other = gate_projects._change(pool, plain, replace(project, errors=Errors.OTHER), generator)
    better = gate_projects._improve(pool, other, 0.05, generator)
    scores = [
        gate_projects._score(pool, recipe.predict(pool, everyone, slice(None)), slice(None))
        for recipe in (plain, other, better)
    ]
    assert np.allclose(scores[0], scores[1])
    assert 0.1 < (other.sources != plain.sources).mean() < 0.4
    assert np.array_equal(pool.labels[other.sources], pool.labels)
    assert scores[2].mean() - scores[0].mean() == pytest.approx(0.05, abs=0.015)


def test_candidates_with_an_effect_are_where_they_belong_and_are_found(project: GateProject) -> None:
    null = gate_project(project, 0)
    assert len(gate_project(replace(project, keeps_best=False), 0)) == 3
    assert [candidate.is_real for candidate in null] == [False] * 3
    assert null == gate_project(project, 0)
    several = gate_project(replace(project, num_candidates=5, effect=9.0, first=1, every=2), 1)
    assert [candidate.is_real for candidate in several] == [True, False, True, False, True]
    assert several[0].is_yes
    assert several[0].is_logged_yes
    assert 3 <= several[0].num_pairs <= 10
    last = gate_project(replace(project, effect=9.0, first=3), 2)
    assert [candidate.is_real for candidate in last] == [False, False, True]


def test_tables_judge_false_yes_and_power(project: GateProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_gate, "POOLS", {"pool": (130, 170)})
    monkeypatch.setattr(validate_gate, "NUM_CANDIDATES", 2)
    monkeypatch.setattr(validate_gate, "NUM_MIXED", 2)
    kinds = validate_gate.list_kinds({"pool": project.pool})
    assert [kind.effect for _, kind in kinds].count(EFFECT) == 9
    found = [GatedProjects(project=kind, pool=pool, found=[gate_project(kind, 0)]) for pool, kind in kinds]
    goals = Goals()
    errors = validate_gate.tabulate_errors([one for one in found if not one.project.effect or one.project.every], goals)
    power = validate_gate.tabulate_power([one for one in found if one.project.effect and not one.project.every], goals)
    assert (len(errors.rows), len(power.rows)) == (5, 2 * 2 * 2 * len(EFFECTS))
    for table in (errors, power):
        assert all(len(row) == len(table.columns) for row in table.rows)
    rules = [goal.rule for goal in goals.judged]
    assert rules == ["at most 0.05"] * 5 + ["at most 0.1"] + ["at least 0.8"] * 4

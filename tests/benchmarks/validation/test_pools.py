"""Pools of predictions: what is drawn from them, and the truths that verdicts and intervals are judged by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer

from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.values import ComparisonRow, Verdict
from analysis.statistics.metrics import compute_macro_f1
from benchmarks.validation import pool_rounds, prediction_pools, validate_pools, worlds
from benchmarks.validation.goals import Goals
from benchmarks.validation.pool_rounds import (
    DECIDED,
    FLAGGED,
    WITHHELD,
    WRONG_CLAIM,
    WRONG_EQUIVALENT,
    Arms,
    Kind,
    PoolCell,
    Round,
    draw_round,
    find_truths,
    measure_block,
    score_pool,
    stack_arm,
)
from benchmarks.validation.prediction_pools import (
    DIGITS,
    Pool,
    Recipe,
    draw_fitted,
    keep_easy,
    make_unequal,
    train_pool,
)
from benchmarks.validation.validate_pools import Measured

K, NUM_MODELS, PER_CLASS = 4, 12, 50


def make_pool(*, seed: int = 0, accuracies: tuple[float, float] = (0.7, 0.9), size: int = 1) -> Pool:
    """Return a pool of two arms whose models are right on images that are easy enough for them."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(K), PER_CLASS)
    ease = np.repeat(generator.standard_normal(len(labels) // size), size)
    right = np.sqrt(0.5) * (ease + generator.standard_normal((2, NUM_MODELS, len(labels))))
    limits = np.quantile(right, [1 - accuracy for accuracy in accuracies])
    other = (labels + 1 + generator.integers(K - 1, size=right.shape)) % K
    predicted = np.where(right > limits[:, None, None], labels, other)
    logits = 2 * np.eye(K)[predicted] + generator.standard_normal((*predicted.shape, K)) / 4
    groups = None if size == 1 else np.arange(len(labels)) // size
    half = logits.astype(np.float16)
    return Pool(labels=labels, predicted=half.argmax(axis=3).astype(np.int16), logits=half, groups=groups)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_pool().save(tmp_path / "pool.npz")
    return tmp_path / "pool.npz"


def make_cell(file: Path, kind: Kind = Kind.ROW, arms: Arms = Arms.APART, **sizes: int) -> PoolCell:
    return PoolCell(kind=kind, pool=file, arms=arms, **{"num_images": 80, "num_seeds": 3, "num_rounds": 6, **sizes})


@pytest.mark.parametrize("arms", Arms)
def test_a_round_has_the_shares_of_the_pool_and_seeds_that_pair_unless_it_is_one_recipe(file: Path, arms: Arms) -> None:
    pool, cell = make_pool(), make_cell(file, arms=arms)
    draw = draw_round(pool, cell, np.random.default_rng(1))
    treatment, control = stack_arm(pool, draw, 0), stack_arm(pool, draw, 1)
    assert np.bincount(draw.labels).tolist() == [20] * K
    assert len(set(draw.images.tolist())) < 80, "images are drawn with replacement"
    assert np.array_equal(treatment.predicted[2], pool.predicted[draw.sides[0][0], draw.sides[0][1][2]][draw.images])
    (own_arm, own), (other_arm, other) = draw.sides
    assert len(set(own.tolist())) == 3, "models are drawn without replacement"
    assert (own_arm == other_arm) == (arms is not Arms.APART)
    assert bool(set(own.tolist()) & set(other.tolist())) == (arms is not Arms.SAME)
    assert np.array_equal(treatment.predicted, control.predicted) == (arms is Arms.IDENTICAL)


def test_groups_are_drawn_as_a_whole_and_twice_as_two_groups(file: Path) -> None:
    pool = make_pool(size=5)
    draw = draw_round(pool, make_cell(file), np.random.default_rng(0))
    assert draw.groups is not None
    assert np.bincount(draw.groups).tolist() == [5] * 16
    assert np.array_equal(draw.images.reshape(16, 5) // 5, draw.images.reshape(16, 5)[:, :1] // 5 + np.zeros((16, 5)))
    with pytest.raises(AssertionError, match="no whole share"):
        draw_round(pool, make_cell(file, num_images=70), np.random.default_rng(0))


def test_truths_are_those_of_the_whole_pool(file: Path) -> None:
    pool, cell = make_pool(), make_cell(file)
    draw = draw_round(pool, cell, np.random.default_rng(2))
    scores = compute_macro_f1(pool.labels, pool.predicted.astype(np.int64), K)
    models, recipe = find_truths(score_pool(file)[..., 2].mean(axis=2), draw)
    assert recipe == pytest.approx(scores[1].mean() - scores[0].mean())
    drawn = draw.sides[0][1]
    assert models == pytest.approx(scores[1, drawn].mean() - scores[0, drawn].mean())


def measure(monkeypatch: pytest.MonkeyPatch, cell: PoolCell, **changed: object) -> Round:
    """Return a round whose row has been changed."""

    def compare(*sides: object, **settings: object) -> ComparisonRow:
        return replace(plain(*sides, **settings), **changed)  # type: ignore[arg-type]

    plain = compare_arms
    with monkeypatch.context() as patched:
        patched.setattr(pool_rounds, "compare_arms", compare)
        return measure_block(cell, 0)[0]


def test_verdicts_are_wrong_where_the_pool_says_otherwise(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart, same = make_cell(file), make_cell(file, arms=Arms.SAME)
    better = measure(monkeypatch, apart, verdict=Verdict.BETTER)
    assert (better.flags[WRONG_CLAIM], better.flags[WRONG_EQUIVALENT], better.flags[DECIDED]) == (False, False, True)
    assert measure(monkeypatch, same, verdict=Verdict.BETTER).flags[WRONG_CLAIM]
    assert measure(monkeypatch, apart, verdict=Verdict.EQUIVALENT).flags[WRONG_EQUIVALENT], (
        "the margin is the difference"
    )
    assert WRONG_EQUIVALENT not in measure(monkeypatch, same, verdict=Verdict.EQUIVALENT).flags
    withheld = [measure(monkeypatch, replace(apart, num_images=n), verdict=Verdict.UNDECIDED).flags for n in (8, 200)]
    assert WITHHELD not in withheld[0], "fewer than 30 images are discordant"
    assert withheld[1][WITHHELD], "the interval alone decides a difference of 20 points on 200 images"


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_every_kind_of_cell_is_mostly_covered(file: Path, kind: Kind, num_seeds: int) -> None:
    cell = make_cell(file, kind, Arms.SAME, num_seeds=num_seeds, num_images=200)
    rounds = measure_block(cell, 0)
    assert rounds == measure_block(cell, 0)
    assert rounds != measure_block(cell, 1)
    names = {name for one in rounds for name in one.found}
    assert any(name.endswith(", recipe") for name in names) == (num_seeds > 1)
    for name in names:
        assert sum(one.found[name].covered for one in rounds) >= 4, name
        assert all(one.found[name].width > 0 for one in rounds)
    assert (FLAGGED in rounds[0].flags) == (kind is Kind.CLASSES and num_seeds > 1)


def test_identical_predictions_are_never_decided(file: Path) -> None:
    for one in measure_block(make_cell(file, arms=Arms.IDENTICAL), 0):
        assert one.flags == {WRONG_CLAIM: False, DECIDED: False}


def test_tables_hold_a_cell_for_each_column_and_judge_all_rates_together(file: Path) -> None:
    cells = [make_cell(file, kind, Arms.SAME, num_rounds=3) for kind in Kind]
    goals = Goals()
    measured = [Measured(cell=cell, pool="pool", rounds=measure_block(cell, 0)) for cell in cells]
    tables = [validate_pools.tabulate_pools({"pool": file}), *validate_pools.tabulate_cells(measured, goals)]
    assert len(tables) == 1 + len(Kind)
    for table in tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows), table.title
    assert {goal.measured.rpartition("], ")[2].partition(";")[0] for goal in goals.judged} == {
        f"{len(goals.judged)} cells"
    }
    (row,) = tables[1].rows
    assert row[:8] == ["pool", Arms.SAME, "80", "3", "3", row[5], "+0.00", "1.00"]


def test_the_cells_of_the_page_can_be_drawn_from_their_pools() -> None:
    cells = validate_pools.list_cells({name: Path(name) for name in prediction_pools.POOLS})
    assert {pool for pool, _ in cells} == set(prediction_pools.POOLS)
    assert {40, 100, 200, 500, 2_000, 20_000} == {cell.num_images for _, cell in cells}
    assert {1, 2, 3, 5, 10} == {cell.num_seeds for _, cell in cells}
    assert len({(pool, cell) for pool, cell in cells}) == len(cells)


def test_models_of_an_arm_differ_in_their_seeds_and_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_pools, "NUM_MODELS", 2 * prediction_pools.AT_ONCE)
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    inputs = (2 * np.eye(3)[labels] + generator.standard_normal((120, 3))).astype(np.float32)
    recipes = [Recipe(hidden=hidden, per_class=20, steps=60, rate=0.1) for hidden in (0, 4)]
    pool = train_pool((inputs, labels, inputs, labels, None), (recipes[0], recipes[1]), keeps_logits=True)
    assert pool.predicted.shape == (2, 50, 120)
    assert len(np.unique(pool.predicted[1], axis=0)) > 10
    assert (pool.predicted == pool.labels).mean() > 0.8
    alone = train_pool((inputs, labels, inputs, labels, None), (recipes[0], recipes[1]), keeps_logits=False)
    assert alone.logits is None
    assert np.array_equal(alone.predicted, pool.predicted)


def test_easy_and_unequal_pools_are_parts_of_a_pool() -> None:
    pool = make_pool(accuracies=(0.8, 0.9))
    easy = keep_easy(pool, 0.97)
    assert 0.97 <= (easy.predicted == easy.labels).mean() < 0.99
    assert len(set(np.bincount(easy.labels).tolist())) == 1
    digits = Pool(labels=np.repeat(np.arange(10), 110), predicted=np.zeros((2, 3, 1100), dtype=np.int16))
    assert np.bincount(make_unequal(digits).labels).tolist() == [4, 4, 8, 16, 24, 36, 52, 68, 80, 108]


def test_the_fitted_pool_is_as_accurate_and_as_alike_as_its_source() -> None:
    source = make_pool(accuracies=(0.75, 0.85))
    fitted = draw_fitted(source, num_classes=60, per_class=20)
    assert fitted.predicted.shape == (2, NUM_MODELS, 1200)
    for measured in (
        lambda pool: (pool.predicted == pool.labels).mean(axis=(1, 2)),
        lambda pool: (pool.predicted[0] == pool.labels)[0] @ (pool.predicted[1] == pool.labels)[0] / len(pool.labels),
        lambda pool: (pool.predicted[1, 0] == pool.predicted[1, 1]).mean(),
    ):
        assert measured(fitted) == pytest.approx(measured(source), abs=0.06)


def test_the_page_has_the_cells_that_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "run_parallel", lambda function, calls: [function(*call) for call in calls])
    monkeypatch.setattr(worlds, "compute_digest", lambda _module: "source")
    monkeypatch.setattr(validate_pools, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(validate_pools, "POOL_MAKERS", {DIGITS: write_pool})
    monkeypatch.setattr(validate_pools, "CELLS", ((Kind.ROW, Arms.SAME, {DIGITS: ((40, 3), (80, 3))}),))
    monkeypatch.setattr(validate_pools, "NUM_ROUNDS", {Kind.ROW: 2})

    def write(*, stored: bool) -> str:
        with pytest.raises(typer.Exit):
            validate_pools.main(sample=True, stored=stored, folder=tmp_path)
        return (tmp_path / "page.md").read_text()

    assert "Cells: 2 of 2." in write(stored=False)
    blocks = sorted((tmp_path / "measure_block").glob("*.json"))
    assert len(blocks) == 2 * validate_pools.BLOCKS[True]
    for block in blocks:
        if '\\"num_images\\": 40' in block.read_text():
            block.unlink()
    page = write(stored=True)
    assert "Cells: 1 of 2." in page
    assert f"| {DIGITS} | {Arms.SAME} | 80 | 3 | 4 |" in page
    assert f"| {DIGITS} | {Arms.SAME} | 40 |" not in page


def write_pool(_name: str, file: Path) -> None:
    make_pool().save(file)

"""Planted causes: what the scenes show, and how named cues are counted, by world."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.validation.cause_tables import NULL_STUDIES, tabulate_causes, tabulate_null_studies
from benchmarks.validation.goals import list_problems
from benchmarks.validation.planted_causes import CAUSES, NULLS, CauseOutcome, CauseWorld, Kind, NullOutcome, fit_reader

PAIR = (1, 6)


def measure_hues(world: CauseWorld) -> dict[int, float]:
    """Return the mean red minus blue of the objects in the audited scenes, by class."""
    audited = world.draw_audited(PAIR, 3)
    assert audited.masks is not None
    difference = audited.images[..., 0].astype(float) - audited.images[..., 2]
    return {c: float(difference[audited.labels == c][audited.masks[audited.labels == c]].mean()) for c in range(10)}


def test_a_planted_cue_shows_the_other_class_of_the_pair_only() -> None:
    plain, planted, shared = (
        measure_hues(CauseWorld(kind=kind, cue=cue))
        for kind, cue in ((Kind.SHRINKAGE, ""), (Kind.PLANTED, "color"), (Kind.SHARED, "color"))
    )
    for label, other in (PAIR, PAIR[::-1]):
        # The hue is that of the other class, and stronger than in scenes where half of the hues are random.
        assert planted[label] * plain[other] > 0
        assert abs(planted[label]) > abs(plain[label])
    assert planted[2] == pytest.approx(plain[2], abs=12)
    assert shared[2] * plain[7] > 0


def test_null_worlds_exchange_labels_or_cues_of_the_pair() -> None:
    exchanged = CauseWorld(kind=Kind.NOISE).draw_training(PAIR, 3)
    usual = np.arange(len(exchanged.labels)) % 10
    changed = exchanged.labels != usual
    assert set(usual[changed].tolist()) == set(PAIR)
    assert changed[np.isin(usual, PAIR)].mean() == pytest.approx(0.35, abs=0.12)
    hues = measure_hues(CauseWorld(kind=Kind.SIMILAR))
    assert hues[1] == pytest.approx(hues[6], abs=12)


def test_a_part_of_one_class_has_the_background_of_the_other() -> None:
    """Class 0 has a dark background, class 5 one that is lighter at the edge; colors do not tell the two apart."""
    audited = CauseWorld(kind=Kind.BACKGROUND, cue="background").draw_audited((0, 5), 3)
    edge = audited.images[:, :2].mean(axis=(1, 2, 3)) > 128
    assert edge[audited.labels == 5].mean() > 0.8
    assert 0.25 < edge[audited.labels == 0].mean() < 0.6
    assert set(CauseWorld(kind=Kind.BACKGROUND, cue="background").find_own_cues((0, 5))) == {1, 6, 2, 7, 3, 8}


def make_outcome(cause: str | None, *, note: str = "") -> CauseOutcome:
    return CauseOutcome(
        cause=cause,
        recipe_cause=cause,
        first=None if note else "shape",
        note=note,
        num_images=40,
        num_references=90,
        imbalance=0.1,
        accuracy=0.7,
        effects={} if note else dict.fromkeys(CAUSES.values(), (0.5, 0.2)),
    )


class FakeCache:
    """Returns outcomes without training."""

    def __init__(self, explain) -> None:
        self.explain = explain

    def compute(self, _function, calls):
        return [self.explain(world, seed) for world, seed in calls]

    def make_files(self, makers, _suffix):
        return {name: Path(name) for name in makers}


def test_right_causes_meet_the_goal_of_power_and_leave_goals_of_fewer_than_72_worlds_open() -> None:
    cache = FakeCache(lambda world, _: make_outcome("mixed" if world.kind in NULLS else CAUSES[world.cue]))
    tables, goals = tabulate_causes(cache, whole=True)
    assert [goal.judgement for goal in goals] == ["open", "met", "open"]
    assert goals[1].measured.startswith("32 of 32")
    assert {row[6] for row in tables[0].rows} == {"0"}
    _, sampled = tabulate_causes(cache, whole=False)
    assert sampled[0].judgement == "open"


def test_wrong_causes_miss_the_goals() -> None:
    cache = FakeCache(lambda _, seed: make_outcome("texture") if seed else make_outcome("mixed", note="no comparable"))
    tables, goals = tabulate_causes(cache, whole=True)
    missed = "; ".join(list_problems(goals))
    assert "null worlds in which a cue is named: 57 of 60" in missed
    assert "planted worlds in which the cue is named: 7 of 32" in missed
    assert "another is named: 34 of 52" in missed
    assert tables[0].rows[0][6] == "7 texture"
    assert tables[1].rows[0][4] == "1"


class FakeStudies:
    """Returns studies of which every fourth names cues of two pairs, one of them for the recipe alone."""

    def repeat(self, _function, study, count):
        assert study.kind in NULLS
        return [
            NullOutcome(num_measured=4, num_named=2 * (seed % 4 == 0), num_recipe_named=seed == 0, accuracy=0.6)
            for seed in range(count)
        ]


def test_a_study_that_names_cues_of_several_pairs_counts_once() -> None:
    (table,), goals = tabulate_null_studies(FakeStudies(), whole=True)
    assert len(table.rows) == len(NULLS)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert [goal.judgement for goal in goals] == ["missed", "open"] * len(NULLS)
    assert goals[0].measured.startswith(f"{NULL_STUDIES[True] // 4} of {NULL_STUDIES[True]} = 0.25")


def test_models_in_closed_form_read_the_scenes_and_differ() -> None:
    world = CauseWorld(kind=Kind.SHRINKAGE)
    audited = world.draw_audited(PAIR, 3)
    logits = [fit_reader(world.draw_training(PAIR, 2), 0, number)(audited.images) for number in range(2)]
    predicted = [one.argmax(axis=1) for one in logits]
    assert all((one == audited.labels).mean() > 0.3 for one in predicted)
    assert 0.02 < (predicted[0] != predicted[1]).mean() < 0.7

"""A sample of the planted audits: one world with a shortcut is caught, and the tables list power and missed goals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.shortcuts.ring_audit import RingMeasurement
from analysis.shortcuts.ring_regions import RegionGaps
from analysis.shortcuts.swaps import SwapEffects
from benchmarks.validation import audit_tables, planted_audits
from benchmarks.validation.audit_tables import RHOS, RING_SHORTCUTS, list_worlds, tabulate_audits
from benchmarks.validation.goals import Goal, Judgement, list_problems
from benchmarks.validation.planted_audits import AuditedWorld, AuditOutcome, RingOutcome, audit_world, conclude_ring
from trainables.data.sources.planted_drawing import SHAPES, cue_chroma
from trainables.data.sources.planted_scenes import make_planted_scenes

QUIET = RingOutcome(
    gap=0.0, highest_gap=0.1, fails=False, is_confirmed=False, recipe_confirmed=False, first_confirmed=False, region=""
)
CLEAN = AuditOutcome(
    accuracy=0.6, rings=(QUIET, QUIET), frequency_gap=0.0, frequency_fails=False, frequency_recipe_fails=False
)


@pytest.mark.parametrize("only_class", ["", "bar"])
def test_models_that_read_a_corner_patch_are_caught_and_placed(
    monkeypatch: pytest.MonkeyPatch, only_class: str
) -> None:
    """Stand-ins for trained models: they recognize the color of the patch in the corner, for all classes or for one."""
    trained = []
    monkeypatch.setattr(planted_audits, "NUM_TRAINING", 20)
    monkeypatch.setattr(planted_audits, "NUM_AUDITED", 320)
    monkeypatch.setattr(planted_audits, "train_runs", lambda scenes, number, _: trained.append(scenes) or number)
    hues = np.stack(cue_chroma(np.arange(10)), axis=-1).reshape(10, 2)

    def read_corner(images: np.ndarray) -> np.ndarray:
        corner = images[:, :4, :4].astype(float).mean(axis=(1, 2))
        luma = corner @ [0.299, 0.587, 0.114]
        chroma = np.stack([(corner[:, 2] - luma) / 1.772, (corner[:, 0] - luma) / 1.402], axis=1)
        distances = np.linalg.norm(chroma[:, None] - hues, axis=2)
        if only_class:
            distances[distances.argmin(axis=1) != SHAPES.index(only_class)] = 1.0
        return -distances

    monkeypatch.setattr(planted_audits, "make_predict", lambda number: lambda im: np.stack([read_corner(im)] * number))
    world = AuditedWorld(shortcut="corner_patch", rho=1.0, only_class=only_class, has_masks=False)
    found = audit_world(world, 0)
    assert len(trained) == 1
    for ring in found.rings:
        assert ring.gap > 0.9
        assert (ring.fails, ring.is_confirmed, ring.recipe_confirmed, ring.first_confirmed) == (True,) * 4
        assert ring.region == "top left corner"
    assert (found.frequency_gap, found.frequency_fails) == (pytest.approx(0.0, abs=0.2), False)


def test_a_ring_outcome_is_about_the_planted_class() -> None:
    """One class of four fails; the first model alone does not."""
    labels = np.repeat(np.arange(4), 100)
    nothing = SwapEffects(values=np.zeros((3, 400)), labels=labels, class_names=("a", "b", "c", "d"))
    values = np.zeros((3, 400))
    values[1:, labels == 2] = 1.0
    gaps = replace(nothing, values=values)
    parts = {"top side": gaps, "left side": replace(nothing, values=values / 2)}
    measured = RingMeasurement(
        ring_pixels=4,
        gaps=gaps,
        free_gaps=gaps,
        free_by="masks",
        ring_only=nothing,
        regions=RegionGaps(whole=gaps, parts=parts, rests={"top side": nothing}),
    )
    planted = conclude_ring(measured, ("c",))
    assert (planted.gap, planted.highest_gap, planted.region) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        "top side",
    )
    assert (planted.fails, planted.is_confirmed, planted.first_confirmed) == (True, True, False)
    other = conclude_ring(measured, ("a",))
    assert (other.gap, other.fails, other.is_confirmed) == (0.0, False, False)


def test_worlds_take_turns_in_setting_and_class_and_the_shortcut_indicates_that_class_alone() -> None:
    worlds = list(list_worlds(AuditedWorld(shortcut="frame", rho=1.0), 8, 3, only_one=True))
    assert len({(w.reaches_ring, w.has_masks) for w in worlds[:4]}) == 4
    assert sum(w.has_masks for w in worlds) == sum(w.reaches_ring for w in worlds) == 4
    assert len({w.only_class for w in worlds}) == 8
    scenes = make_planted_scenes(seed=0, num_images=100, **worlds[0].describe())
    is_class = scenes.image_set.labels == scenes.image_set.class_names.index(worlds[0].only_class)
    assert ((scenes.cue_values["frame"] == scenes.image_set.labels) & is_class).sum() == is_class.sum() == 10
    assert not (scenes.cue_values["frame"][~is_class] == scenes.image_set.labels[is_class][0]).any()


class StoredOutcomes:
    """Stands in for a cache of outcomes that `choose` gives."""

    def __init__(self, choose) -> None:  # type: ignore[no-untyped-def]
        self.choose = choose

    def make_files(self, makers, suffix):  # type: ignore[no-untyped-def]
        return {name: Path(name + suffix) for name in makers}

    def compute(self, function, calls):  # type: ignore[no-untyped-def]
        assert function is audit_world
        return [self.choose(world) for world, _ in calls]


def give_perfect(world: AuditedWorld) -> AuditOutcome:
    """Return the outcome of a perfect audit of a world."""
    if world.shortcut == "control":
        return CLEAN
    if world.shortcut == "sinusoid":
        is_caught = world.rho > 0
        return replace(
            CLEAN, frequency_gap=0.3 * world.rho, frequency_fails=is_caught, frequency_recipe_fails=is_caught
        )
    region = "top left corner" if world.shortcut == "corner_patch" else "all around"
    gap = 0.4 * world.rho
    caught = RingOutcome(
        gap=gap,
        highest_gap=gap,
        fails=True,
        is_confirmed=True,
        recipe_confirmed=True,
        first_confirmed=world.rho == 1,
        region=region,
    )
    return replace(CLEAN, rings=(caught, caught))


def list_judgements(goals: list[Goal]) -> dict[str, Judgement]:
    return {goal.name: goal.judgement for goal in goals}


def test_tables_of_a_perfect_audit_miss_no_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_tables, "WHOLE_WORLDS", (72, 40))
    tables, goals = tabulate_audits(StoredOutcomes(give_perfect), whole=True)  # type: ignore[arg-type]
    assert {goal.judgement for goal in goals} == {Judgement.MET}
    alarms, rings, power, separation, waves = tables
    assert [row[0] for row in alarms.rows] == ["yes / no", "yes / yes", "no / no", "no / yes", "all"]
    assert alarms.rows[0][1].startswith("0 of 18")
    assert alarms.rows[4][1] == "0 of 72 = 0.00 [0.00, 0.05]"
    assert len(rings.rows) == len(RING_SHORTCUTS) * len(RHOS) * 2
    assert [row[:2] for row in power.rows] == [
        [e, r] for e in ("all classes", "one class") for r in ("0.5", "0.8", "1.0")
    ]
    assert [row[5][:10] for row in power.rows] == 2 * ["0 of 120 =", "0 of 120 =", "120 of 120"]
    assert separation.rows[-2] == ["all", "all classes", "1.000", "", ""]
    assert [row[4][:8] for row in waves.rows if row[0] == "sinusoid"] == 6 * ["40 of 40"] + ["0 of 40 "]


def test_a_sample_leaves_goals_open_and_missed_ones_are_listed() -> None:
    _, goals = tabulate_audits(StoredOutcomes(give_perfect), whole=False)  # type: ignore[arg-type]
    assert list_problems(goals) == []
    assert list_judgements(goals)["false alarms of the ring audit"] is Judgement.OPEN
    alarmed = replace(QUIET, fails=True, is_confirmed=True, region="left side")
    bad = replace(CLEAN, rings=(alarmed, QUIET), frequency_fails=True)
    _, goals = tabulate_audits(StoredOutcomes(lambda _: bad), whole=True)  # type: ignore[arg-type]
    missed = "; ".join(list_problems(goals))
    for text in (
        "false alarms of the ring audit: 32 of 32",
        "false alarms of the frequency test: 32 of 32",
        "grows with rho: no",
        "AUC of the narrow ring's gap: 0.500",
        "region right where the ring audit fails: 0 of 36",
    ):
        assert text in missed

"""A sample of the planted truth: one world with a shortcut is caught, and the tables list the missed goals."""

from dataclasses import replace

import numpy as np

from benchmarks.validation import planted_tables
from benchmarks.validation.planted_tables import tabulate_audits, tabulate_causes
from benchmarks.validation.planted_truth import (
    CAUSES,
    AuditedWorld,
    AuditOutcome,
    CauseOutcome,
    ConfusedWorld,
    audit_world,
    find_partner,
)


def test_a_corner_patch_is_caught_and_placed() -> None:
    found = audit_world(AuditedWorld(shortcut="corner_patch", rho=1.0, num_models=2), 0)
    assert found.gaps[0] > 0.3
    assert found.frequency_gap < 0.1
    assert found.region in ("", "top left corner")


def test_audited_scenes_show_the_partner_in_the_planted_cue() -> None:
    audited = ConfusedWorld(cue="colour").draw_audited(3)
    partners = find_partner(audited.labels)
    assert np.array_equal(find_partner(partners), audited.labels)
    # The color of an object is that of its partner's objects in the training scenes.
    assert audited.masks is not None
    red = np.array([image[mask, 0].mean() for image, mask in zip(audited.images, audited.masks, strict=True)])
    training = ConfusedWorld(cue="colour").draw_training(3)
    assert training.masks is not None
    own = np.array([image[mask, 0].mean() for image, mask in zip(training.images, training.masks, strict=True)])
    means = [own[training.labels == c].mean() for c in range(10)]
    shown = [red[audited.labels == c].mean() for c in range(10)]
    assert np.corrcoef([means[find_partner(np.array(c))] for c in range(10)], shown)[0, 1] > 0.9


WEIGHTS = {"sinusoid": "waves.pt", "texture": "texture.pt", "shape": "shape.pt"}
CLEAN = AuditOutcome(
    accuracy=0.6,
    gaps=(0.0, 0.0),
    fails=(False, False),
    confirmed=(False, False),
    region="",
    frequency_gap=0.0,
    frequency_fails=False,
)


def make_outcomes(_: object, world: object, count: int) -> list[AuditOutcome]:
    """Return the outcomes of a perfect audit of a world."""
    assert isinstance(world, AuditedWorld)
    if world.shortcut == "control":
        return [CLEAN] * count
    if world.shortcut == "sinusoid":
        return [replace(CLEAN, frequency_gap=0.3 * world.rho, frequency_fails=world.rho > 0)] * count
    region = "top left corner" if world.shortcut == "corner_patch" else "all around"
    caught = replace(CLEAN, gaps=(0.4 * world.rho, 0.4), fails=(True, True), confirmed=(True, True), region=region)
    return [caught] * count


def test_tables_of_a_perfect_audit_miss_no_goal(monkeypatch) -> None:
    monkeypatch.setattr(planted_tables, "repeat", make_outcomes)
    problems: list[str] = []
    rings, separation, waves = tabulate_audits(3, WEIGHTS, problems)
    assert problems == []
    assert "0 of 30 = 0.00 [0.00, 0.12] of the controls" in rings[0]
    assert separation[2][-1] == ["all", "1.000", "", "27 of 27"]
    assert waves[2][3][3].startswith("3 of 3")


def test_tables_list_the_missed_goals(monkeypatch) -> None:
    alarmed = replace(CLEAN, fails=(True, True), confirmed=(True, False), region="left side", frequency_fails=True)
    monkeypatch.setattr(planted_tables, "repeat", lambda _function, _world, count: [alarmed] * count)
    problems: list[str] = []
    tabulate_audits(3, WEIGHTS, problems)
    missed = "; ".join(problems)
    for goal in (
        "false alarms 30 of 30",
        "does not grow with rho",
        "AUC of the audit 0.500",
        "region right in 0 of 27",
    ):
        assert goal in missed
    assert "frequency test, false alarms 33 of 33" in missed


def test_causes_are_counted_by_planted_cue(monkeypatch) -> None:
    def explain(_: object, world: object, count: int) -> list[tuple[CauseOutcome, ...]]:
        assert isinstance(world, ConfusedWorld)
        right = CauseOutcome(first=CAUSES[world.cue], named=CAUSES[world.cue], num_images=40)
        wrong = CauseOutcome(first="shape", named="mixed" if world.cue == "shape" else "shape", num_images=40)
        return [(right, wrong)] * count

    monkeypatch.setattr(planted_tables, "repeat", explain)
    problems: list[str] = []
    table = tabulate_causes(2, WEIGHTS, problems)
    assert [row[0] for row in table[2]] == ["texture", "shape", "colour", "context", "all"]
    assert table[2][0][3].startswith("2 of 4")
    assert table[2][1][3].startswith("4 of 4")
    assert table[2][1][5] == "0"
    assert table[2][2][5] == "2"
    assert "10 of 16" in problems[0]

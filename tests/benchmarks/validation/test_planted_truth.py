"""A sample of the planted truth: one world with a shortcut is caught, and the tables list the missed goals."""

from dataclasses import replace
from pathlib import Path

from benchmarks.validation.goals import list_problems
from benchmarks.validation.planted_tables import tabulate_audits
from benchmarks.validation.planted_truth import AuditedWorld, AuditOutcome, audit_world


def test_a_corner_patch_is_caught_and_placed() -> None:
    found = audit_world(AuditedWorld(shortcut="corner_patch", rho=1.0, num_models=2), 0)
    assert found.gaps[0] > 0.3
    assert found.frequency_gap < 0.1
    assert found.region in ("", "top left corner")


CLEAN = AuditOutcome(
    accuracy=0.6,
    gaps=(0.0, 0.0),
    fails=(False, False),
    confirmed=(False, False),
    region="",
    frequency_gap=0.0,
    frequency_fails=False,
)


def make_outcome(world: AuditedWorld) -> AuditOutcome:
    """Return the outcome of a perfect audit of a world."""
    if world.shortcut == "control":
        return CLEAN
    if world.shortcut == "sinusoid":
        return replace(CLEAN, frequency_gap=0.3 * world.rho, frequency_fails=world.rho > 0)
    region = "top left corner" if world.shortcut == "corner_patch" else "all around"
    return replace(CLEAN, gaps=(0.4 * world.rho, 0.4), fails=(True, True), confirmed=(True, True), region=region)


class FakeCache:
    """Returns outcomes without training."""

    def __init__(self, make) -> None:
        self.make = make

    def repeat(self, _function, world, count):
        return [self.make(world)] * count

    def make_files(self, _function, names, _suffix):
        return {name: Path(name) for name in names}


def test_tables_of_a_perfect_audit_miss_no_goal() -> None:
    (rings, separation, waves), goals = tabulate_audits(FakeCache(make_outcome), whole=True)
    assert list_problems(goals) == []
    assert "0 of 30 = 0.00 [0.00, 0.12] of the controls" in rings[0]
    assert separation[2][-1] == ["all", "1.000", "", "54 of 54"]
    assert waves[2][3][3].startswith("6 of 6")


def test_tables_list_the_missed_goals() -> None:
    alarmed = replace(CLEAN, fails=(True, True), confirmed=(True, False), region="left side", frequency_fails=True)
    _, goals = tabulate_audits(FakeCache(lambda _world: alarmed), whole=False)
    missed = "; ".join(list_problems(goals))
    for goal in (
        "false alarms of the ring audit: 30 of 30",
        "the gap of frame grows with rho: no",
        "AUC of the narrow ring's gap: 0.500",
        "region right where the ring audit fails: 0 of 18",
        "false alarms of the frequency test: 32 of 32",
    ):
        assert goal in missed

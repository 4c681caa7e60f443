"""The cache of worlds: finished worlds are not computed again, others are, and a stopped validation resumes."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.validation import worlds
from benchmarks.validation.worlds import WorldCache, compute_digest, describe


@dataclass(frozen=True, kw_only=True)
class World:
    log: Path
    size: int = 2
    is_broken: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    numbers: tuple[int, ...]
    name: str | None


def simulate(world: World, seed: int) -> tuple[Outcome, ...]:
    with world.log.open("a") as log:
        log.write(f"{seed} ")
    if world.is_broken and seed == 2:
        raise KeyboardInterrupt
    return (Outcome(numbers=(seed,) * world.size, name=None),)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorldCache:
    monkeypatch.setattr(worlds, "run_parallel", lambda function, calls: [function(*call) for call in calls])
    monkeypatch.setattr(worlds, "compute_digest", lambda _module: "source")
    return WorldCache(folder=tmp_path / "worlds")


def test_finished_worlds_are_read_and_others_computed(
    cache: WorldCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(log=tmp_path / "log")
    first = cache.repeat(simulate, world, 2)
    assert first == [(Outcome(numbers=(seed, seed), name=None),) for seed in (0, 1)]
    assert cache.recall(simulate, [(world, 0), (world, 2)]) == [first[0], None], "nothing is computed"
    assert cache.repeat(simulate, world, 3)[:2] == first
    assert world.log.read_text() == "0 1 2 "
    cache.compute(simulate, [(World(log=tmp_path / "log", size=3), 0)])
    assert world.log.read_text() == "0 1 2 0 "
    monkeypatch.setattr(worlds, "compute_digest", lambda _module: "other source")
    cache.repeat(simulate, world, 1)
    assert world.log.read_text() == "0 1 2 0 0 "


def test_a_stopped_validation_resumes_and_leaves_no_half_outcome(cache: WorldCache, tmp_path: Path) -> None:
    world = World(log=tmp_path / "log", is_broken=True)
    with pytest.raises(KeyboardInterrupt):
        cache.repeat(simulate, world, 4)
    with pytest.raises(KeyboardInterrupt):
        cache.repeat(simulate, world, 4)
    assert world.log.read_text() == "0 1 2 2 "
    assert len(list((tmp_path / "worlds" / "simulate").iterdir())) == 2


def test_files_are_made_once_and_identify_a_world_without_their_folder(cache: WorldCache) -> None:
    made = []

    def write(name: str, file: Path) -> None:
        made.append(name)
        file.write_text(name)

    files = [cache.make_files({"one": write, "two": write}, ".txt") for _ in range(2)]
    assert files[0] == files[1]
    assert files[0]["two"].read_text() == "two"
    assert made == ["one", "two"]
    assert (
        describe(World(log=Path("/a/file"))) == describe(World(log=Path("/b/file"))) != describe(World(log=Path("c")))
    )


def test_the_digest_covers_what_a_module_imports_and_nothing_else() -> None:
    upstream = worlds._build_graph().find_upstream_modules("benchmarks.validation.planted_causes")
    assert {"analysis.causes.root_cause", "trainables.training.loop", "search_spaces.config"} <= upstream
    assert not [name for name in upstream if name.startswith(("analysis.report", "study"))]
    assert compute_digest("benchmarks.validation.planted_causes") != compute_digest(
        "benchmarks.validation.planted_models"
    )

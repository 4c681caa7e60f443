"""Outcomes of simulated worlds, which are stored as they finish: a simulation that was stopped resumes where it was.

A world is a frozen dataclass of texts, numbers and paths. A function turns a world and a seed into an outcome, also a dataclass
(or a tuple of them), which is stored as JSON under the names of both, the world, the seed and a digest of the source code that
the function depends on.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import grimp
from pydantic import TypeAdapter

from benchmarks.parallel import run_parallel

PACKAGES = ("analysis", "benchmarks", "search_spaces", "study", "trainables")
DEFAULT_FOLDER = Path(".venv/cache/worlds")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldCache:
    """A folder of outcomes.

    Attributes:
        folder: of the outcomes and of the files that worlds start from.
    """

    folder: Path = DEFAULT_FOLDER

    def compute(self, function: Callable[[Any, int], Any], calls: Iterable[tuple[Any, int]]) -> list[Any]:
        """Return the outcome of `function` for each world and seed, in order; those not stored are computed on all cores.

        Each process computes one world at a time with one thread and stores its outcome when it is finished.

        Args:
            function: of a module, from a world and a seed to the outcome; its return annotation is the type that is read back.
            calls: worlds and their seeds, those that take longest first.
        """
        calls, digest = list(calls), compute_digest(function.__module__)
        found = [(self._place(function, world, seed, digest), world, seed) for world, seed in calls]
        missing = {file: (function, world, seed, file) for file, world, seed in found if not file.exists()}
        run_parallel(_compute_and_store, missing.values())
        return self.recall(function, calls)

    def recall(self, function: Callable[[Any, int], Any], calls: Iterable[tuple[Any, int]]) -> list[Any]:
        """Return the stored outcomes of `function` for worlds and seeds, in order; None where there is none."""
        digest, adapter = compute_digest(function.__module__), TypeAdapter(get_type_hints(function)["return"])
        files = [self._place(function, world, seed, digest) for world, seed in calls]
        return [
            adapter.validate_python(json.loads(file.read_text())["outcome"]) if file.exists() else None
            for file in files
        ]

    def repeat(self, function: Callable[[Any, int], Any], world: Any, count: int) -> list[Any]:
        """Return the outcomes of `function` for `world` and the seeds from 0 to `count` - 1."""
        return self.compute(function, ((world, seed) for seed in range(count)))

    def make_files(self, makers: Mapping[str, Callable[[Any, Path], None]], suffix: str) -> dict[str, Path]:
        """Return one file per name, made by its function from the name and the path to write to unless it is there.

        The file's name contains the digest of the source code, and the name alone, without folders, identifies it in a world
        that starts from it.

        Args:
            makers: functions of modules by name, those that take longest first.
            suffix: of the files, such as ".pt".
        """
        files = {
            name: self.folder.resolve() / f"{maker.__name__}-{name}-{compute_digest(maker.__module__)}{suffix}"
            for name, maker in makers.items()
        }
        run_parallel(_make_file, ((makers[name], name, file) for name, file in files.items() if not file.exists()))
        return files

    def count_minutes(self) -> float:
        """Return the core-minutes of all outcomes in the folder."""
        files = self.folder.glob("*/*.json")
        return sum(float(json.loads(file.read_text())["seconds"]) for file in files) / 60

    def _place(self, function: Callable[..., Any], world: Any, seed: int, digest: str) -> Path:
        key = hashlib.sha256(f"{describe(world)} {seed} {digest}".encode()).hexdigest()[:24]
        return self.folder.resolve() / function.__name__ / f"{key}.json"


def describe(world: Any) -> str:
    """Return a world as JSON, with the name of its type; paths are reduced to their names, so that folders may move."""
    values = json.dumps(asdict(world), sort_keys=True, default=lambda path: path.name)
    return f"{type(world).__qualname__} {values}"


@cache
def compute_digest(module: str) -> str:
    """Return a digest of the source code of a module and of all modules of this repository that it imports, directly or not."""
    names = sorted({module, *_build_graph().find_upstream_modules(module)})
    digest = hashlib.sha256()
    for name in names:
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        digest.update(name.encode() + Path(found.origin).read_bytes())
    return digest.hexdigest()[:16]


@cache
def _build_graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _compute_and_store(function: Callable[[Any, int], Any], world: Any, seed: int, file: Path) -> None:
    started = time.perf_counter()
    outcome = function(world, seed)
    adapter = TypeAdapter(get_type_hints(function)["return"])
    entry = {
        "world": describe(world),
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "outcome": adapter.dump_python(outcome, mode="json"),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(entry))
    aside.replace(file)


def _make_file(function: Callable[[Any, Path], None], name: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}")
    function(name, aside)
    aside.replace(file)

"""Nothing a test does may touch the user's own folders or draw threads from the other tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from search_spaces.extensions import trusting_code
from tests import made_once

# With several workers of pytest-xdist, each has a core of its own.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder named by STUDY_DATA; the test is skipped where there is none. Decoded images go to a folder of the tests."""
    folder = os.environ.get("STUDY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("STUDY_DATA does not name a folder with data/cifar10 and weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All workers share what is made once per run."""
    base = tmp_path_factory.getbasetemp()
    made_once.places[:] = [(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"]
    made_once.places[0].mkdir(exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def _no_flushing() -> Iterator[None]:
    """Of this process no file is flushed to the disk: no test's machine loses its power, and each flush waits 5 to 10 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def trusted() -> Iterator[None]:
    """Code of the working folder, such as tests/, may be named as package.module:object."""
    with trusting_code(True):
        yield


# Files that take longest, about in their order: the one that begins last must not leave the other worker without work.
LONGEST = (
    "journeys/test_whole_study.py",
    "journeys/test_two_nodes.py",
    "docs/test_tutorial.py",
    "study/spec/test_configuration_files.py",
    "journeys/test_own_images.py",
    "journeys/test_stop_and_resume.py",
    "journeys/test_own_loop_study.py",
    "study/cluster/test_tune_run.py",
    "faults/test_faults.py",
    "study/stages/test_intervening.py",
    "journeys/test_local_run.py",
    "trainables/training/test_distributed_run.py",
    "browser/test_pages.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, and skip `gpu` tests where torch finds no CUDA device."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    assert all(path.exists() for path in ranks), "a file of LONGEST was moved"
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="torch finds no CUDA device here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)

"""Nothing a test does may touch the user's own folders or draw threads from the other tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where torch finds no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="torch finds no CUDA device here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)

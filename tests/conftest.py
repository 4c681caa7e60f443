"""Nothing a test does may touch the user's own folders or draw threads from the other tests."""

import os
from pathlib import Path

import pytest
import torch

# With several workers of pytest-xdist, each has a core of its own.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder named by STUDY_DATA; the test is skipped where there is none."""
    folder = os.environ.get("STUDY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("STUDY_DATA does not name a folder with data/cifar10 and weights")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests where torch finds no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="torch finds no CUDA device here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)

"""The local copies of event files that TensorBoard reads for a study on an object store."""

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from study.views.event_mirror import mirror_events, mirrored_events
from trainables.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "study" / "search" / "00001").mkdir(parents=True)
    (tmp_path / "study" / "search" / "00001" / "record.json").write_text("{}")
    return Store(tmp_path / "study")


def read_steps(folder: Path) -> list[int]:
    if not folder.exists():
        return []
    events = EventAccumulator(str(folder)).Reload()
    return [e.step for e in events.Scalars("macro_f1")] if "macro_f1" in events.Tags()["scalars"] else []


def test_the_copy_grows_with_the_study_and_is_never_replaced(store: Store, tmp_path: Path) -> None:
    trial, copy = store.local_path / "search" / "00001", tmp_path / "copy"
    with SummaryWriter(str(trial)) as writer:  # type: ignore[no-untyped-call]
        for step in range(3):
            writer.add_scalar("macro_f1", 0.1 * step, step)  # type: ignore[no-untyped-call]
            writer.flush()  # type: ignore[no-untyped-call]
            assert mirror_events(store, copy) == 1
            assert mirror_events(store, copy) == 0
            inode = {path.stat().st_ino for path in copy.rglob("*tfevents*")}
            assert len(inode) == 1
            assert read_steps(copy / "search" / "00001") == list(range(step + 1))
    assert not list(copy.rglob("record.json")), "event files alone"


def test_the_folder_follows_until_it_is_left(store: Store) -> None:
    with mirrored_events(store, seconds=0.05) as folder:
        assert not list(folder.iterdir())
        with SummaryWriter(str(store.local_path / "search" / "00001")) as writer:  # type: ignore[no-untyped-call]
            writer.add_scalar("macro_f1", 0.5, 1)  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and read_steps(folder / "search" / "00001") != [1]:
            time.sleep(0.05)
        assert read_steps(folder / "search" / "00001") == [1]
    assert not folder.exists()

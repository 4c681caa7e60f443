"""Durable writes, through the page cache and around it."""

import errno
import os
from pathlib import Path

import pytest

from trainables.storage.durable import DIRECT_FROM_BYTES, write_durably
from trainables.storage.store import Store

PAGE = 4096


@pytest.mark.parametrize(
    "size", [0, 1, DIRECT_FROM_BYTES - 1, DIRECT_FROM_BYTES, DIRECT_FROM_BYTES + 1, 3 * DIRECT_FROM_BYTES + PAGE + 7]
)
def test_a_file_has_exactly_the_bytes_that_were_written(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(b"x" * (size + 3 * PAGE))
    write_durably(path, data)
    assert path.read_bytes() == data


@pytest.fixture
def direct(tmp_path: Path) -> Path:
    """A folder on a file system that supports O_DIRECT."""
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except (AttributeError, OSError) as error:
        pytest.skip(f"{tmp_path} does not support O_DIRECT: {error}")
    return tmp_path


def refuse(number: int, times: int, calls: list[int]):  # type: ignore[no-untyped-def]
    """Return an os.write that writes `times` times, at most one page each, and then fails."""
    write = os.write

    def fail(handle: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) > times:
            raise OSError(number, os.strerror(number))
        return write(handle, data[:PAGE])

    return fail


@pytest.mark.parametrize("times", [0, 5, 10**6])
def test_a_partial_write_continues_where_it_ended_and_the_page_cache_is_used_where_it_must(
    direct: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The file system refuses direct writes after so many; the last number is more than a file needs."""
    data, calls = os.urandom(DIRECT_FROM_BYTES + 5), list[int]()
    monkeypatch.setattr(os, "write", refuse(errno.EINVAL, times, calls))
    write_durably(direct / "file", data)
    assert len(calls) == min(times, DIRECT_FROM_BYTES // PAGE) + 1
    assert (direct / "file").read_bytes() == data


def test_a_full_disk_is_an_error(direct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", refuse(errno.ENOSPC, 1, []))
    with pytest.raises(OSError, match="No space left"):
        write_durably(direct / "file", os.urandom(DIRECT_FROM_BYTES))


@pytest.mark.parametrize("is_new", [False, True])
def test_the_entries_of_new_folders_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool) -> None:
    flushed, fsync = [], os.fsync

    def note(handle: int) -> None:
        flushed.append(os.path.realpath(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write = Store(tmp_path / "study").create_bytes if is_new else Store(tmp_path / "study").write_bytes
    write("trials/00000/record.json", b"x")
    folders = [str(tmp_path / name) for name in ("", "study", "study/trials", "study/trials/00000")]
    assert [place for place in flushed if Path(place).is_dir()][-4:] == [place.rstrip("/") for place in folders]
    flushed.clear()
    write("trials/00000/copy.json", b"x")
    assert [place for place in flushed if Path(place).is_dir()] == folders[-1:]


def test_a_folder_that_a_killed_process_has_left_is_flushed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.path.realpath(f"/proc/self/fd/{handle}")))
    (tmp_path / "study/trials").mkdir(parents=True)
    Store(tmp_path / "study").write_bytes("trials/one", b"x")
    assert {str(tmp_path), str(tmp_path / "study")} <= {*flushed}
    flushed.clear()
    Store(tmp_path / "study").write_bytes("trials/two", b"x")
    assert str(tmp_path / "study") not in flushed

"""Errors of tasks on Ray: what a user can act on has its message alone, anything else its traceback."""

from pathlib import Path

import pytest
import ray
from ray.exceptions import OutOfMemoryError, RayError, RaySystemError, RayTaskError, WorkerCrashedError

from search_spaces.errors import UserInputError
from study.cluster import ray_workers
from study.state.record_book import StudyInterrupted
from trainables.damaged_files import DamagedFileError
from trainables.storage.store import StorageError


@pytest.mark.parametrize("cause", [UserInputError("the budget is too small"), DamagedFileError("it is damaged")])
def test_the_message_of_a_task_comes_without_its_traceback(
    cause: UserInputError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, cause)
    with pytest.raises(UserInputError) as raised:
        ray_workers._get(tmp_path)
    assert str(raised.value) == str(cause)
    assert not isinstance(raised.value, RayTaskError)


@pytest.mark.parametrize("cause", [UserInputError("this node has no images"), StorageError("the store refuses")])
def test_the_message_of_data_that_a_node_cannot_open_comes_alone(
    cause: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, RaySystemError(cause, "Traceback: line 7"))
    with pytest.raises(type(cause)) as raised:
        ray_workers._get(tmp_path)
    assert str(raised.value) == str(cause)


@pytest.mark.parametrize("lost", [WorkerCrashedError(), OutOfMemoryError("Task was killed\nMemory 7 of 8 GB")])
def test_a_task_that_was_lost_too_often_says_how_to_go_on(
    lost: RayError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(_: object) -> None:
        raise lost

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(StudyInterrupted, match="run the command again"):
        ray_workers._get(tmp_path)


def test_any_other_error_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError, match="line 7, in compute"):
        ray_workers._get(tmp_path)


def fail(monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    """Let each task end with an error as Ray raises it."""
    error = RayTaskError("compute", "Traceback: line 7, in compute", cause).as_instanceof_cause()
    assert str(cause) not in str(error).splitlines()[0]

    def get(_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "get", get)

"""Errors of tasks on Ray: what a user can act on has its message alone, anything else its traceback."""

from pathlib import Path

import pytest
import ray
from ray.exceptions import RayTaskError

from search_spaces.errors import UserInputError
from study.cluster import ray_workers
from trainables.damaged_files import DamagedFileError


@pytest.mark.parametrize("cause", [UserInputError("the budget is too small"), DamagedFileError("it is damaged")])
def test_the_message_of_a_task_comes_without_its_traceback(
    cause: UserInputError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, cause)
    with pytest.raises(UserInputError) as raised:
        ray_workers._get(tmp_path)
    assert str(raised.value) == str(cause)
    assert not isinstance(raised.value, RayTaskError)


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

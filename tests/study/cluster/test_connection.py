"""What a user reads where Ray cannot be reached."""

import pytest
import ray

from search_spaces.errors import UserInputError
from study.cluster.connection import connect_cluster


def test_an_error_of_ray_without_words_is_explained_by_the_one_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        try:
            raise RuntimeError("InvalidAuthToken: Authentication token is missing or incorrect\nTraceback")
        except RuntimeError:
            raise ConnectionError from None

    monkeypatch.setattr(ray, "init", init)
    message = (
        "^Ray could not be reached at 10.0.0.1:6379: InvalidAuthToken: Authentication token is missing or incorrect$"
    )
    with pytest.raises(UserInputError, match=message), connect_cluster("10.0.0.1:6379"):
        pass

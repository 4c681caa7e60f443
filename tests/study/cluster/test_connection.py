"""What a user reads where Ray cannot be reached."""

from pathlib import Path

import pytest
import ray
import torch

from search_spaces.errors import UserInputError
from study.cluster.connection import THIS_PROCESS, Cluster, connect_cluster, describe_idle_gpus
from study.inputs.provenance import describe_platform
from tests.study.cluster.test_tune_run import make_spec


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


def test_a_node_that_starts_too_slowly_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    message = "^Ray could not be started on this machine: The current node timed out during startup.$"
    with pytest.raises(UserInputError, match=message), connect_cluster(None):
        pass


@pytest.mark.parametrize(
    ("cpu", "gpu", "expected"),
    [(1, 1, 5), (2, 1, 5), (1, 0.5, 10), (1, 0.6, 5), (1, 0.3, 11), (0, 0.25, 20), (1, 2, 2), (3, 0, 3)],
)
def test_part_of_a_gpu_is_part_of_one_gpu(cpu: float, gpu: float, expected: int) -> None:
    cluster = Cluster(address="10.0.0.1:6379", node_cpus=(8.0, 3.0), node_gpus=(4.0, 1.0), scratch="")
    assert cluster.capacity(cpu, gpu) == expected


@pytest.mark.parametrize(
    ("resources", "gpus", "is_said"),
    [
        ({"gpu": 0.0}, 8.0, True),
        ({"gpu": 0.0}, 0.0, False),
        ({"gpu": 0.0, "device": "cpu"}, 8.0, False),
        ({"gpu": {"resnet18": 0.5, "resnet50": 0.0}}, 8.0, False),
    ],
)
def test_gpus_that_no_trial_will_use_are_said(resources: dict[str, object], gpus: float, is_said: bool) -> None:
    cluster = Cluster(address="10.0.0.1:6379", node_cpus=(8.0,), node_gpus=(gpus,), scratch="")
    sentence = describe_idle_gpus(make_spec(resources), cluster)
    assert sentence.startswith("trials will not use the 8 GPU(s) of 10.0.0.1:6379") == is_said
    assert bool(sentence) == is_said
    assert ("set resources.gpu = 1" in sentence) == is_said


def test_a_driver_that_is_too_old_for_torch_counts_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert describe_platform()["cuda_devices"] == []
    with connect_cluster(THIS_PROCESS) as cluster:
        assert cluster.node_gpus == (0.0,)


def test_other_users_cannot_reach_ray_s_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives every user all rights in its own."""
    folders = []

    def init(*, _temp_dir: str, **_: object) -> None:
        Path(_temp_dir).mkdir()
        Path(_temp_dir).chmod(0o777)
        folders.append(Path(_temp_dir))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "nodes", list)
    with connect_cluster(None) as cluster:
        assert folders[0].parent == Path(cluster.scratch)
        assert folders[0].parent.stat().st_mode & 0o777 == 0o700
    assert not folders[0].parent.exists()

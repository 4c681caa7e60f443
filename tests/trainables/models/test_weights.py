"""Loading pretrained backbones: all accepted forms and all refusals."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from search_spaces.errors import UserInputError
from trainables.models.catalog import RESNETS, find_torchvision_url
from trainables.models.weights import copy_weights, find_weights_file, load_weights_file

PUBLISHED_URLS = {name: find_torchvision_url(name) for name in RESNETS}


def make_model(seed: int = 0, backbone: str = "resnet18") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return getattr(torchvision.models, backbone)(weights=None)  # type: ignore[no-any-return]


def load_backbone_weights(model: nn.Module, backbone: str, weights: str) -> None:
    path = find_weights_file(backbone, weights)
    if path is not None:
        copy_weights(model, load_weights_file(path), "fc", backbone, path)


@pytest.fixture(scope="module")
def source() -> dict[str, Tensor]:
    return make_model(1).state_dict()


@pytest.fixture
def model() -> nn.Module:
    return make_model(2)


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def assert_holds(model: nn.Module, source: dict[str, Tensor]) -> None:
    state = model.state_dict()
    for name, value in without_head(source).items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize(
    "form", ["file.pt", "file.pth", "file.safetensors", "folder .pt", "folder .safetensors", "url"]
)
def test_every_form_loads_all_but_the_head(
    form: str, tmp_path: Path, model: nn.Module, source: dict[str, Tensor]
) -> None:
    name = form.replace("folder ", "resnet18").replace("url", "my weights.pt")
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(source, path)
    else:
        torch.save(source, path)
    weights = path.as_uri() if form == "url" else str(tmp_path if form.startswith("folder") else path)
    head = [p.clone() for p in (model.fc.weight, model.fc.bias)]  # type: ignore[union-attr, operator]
    load_backbone_weights(model, "resnet18", weights)
    assert_holds(model, source)
    assert torch.equal(model.fc.weight, head[0])  # type: ignore[arg-type, union-attr]
    assert torch.equal(model.fc.bias, head[1])  # type: ignore[arg-type, union-attr]


def test_float16_is_cast_to_the_models_float32(tmp_path: Path, model: nn.Module, source: dict[str, Tensor]) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in without_head(source).items()}
    torch.save(half, tmp_path / "half.pt")
    load_backbone_weights(model, "resnet18", str(tmp_path / "half.pt"))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(model.state_dict()["conv1.weight"], half["conv1.weight"].float(), rtol=0, atol=0)


def test_files_from_before_num_batches_tracked_load(
    tmp_path: Path, model: nn.Module, source: dict[str, Tensor]
) -> None:
    torch.save({k: v for k, v in source.items() if "num_batches" not in k}, tmp_path / "old.pth")
    model.state_dict()["bn1.num_batches_tracked"].fill_(7)
    load_backbone_weights(model, "resnet18", str(tmp_path / "old.pth"))
    assert int(model.state_dict()["bn1.num_batches_tracked"]) == 0
    assert torch.equal(model.state_dict()["conv1.weight"], source["conv1.weight"])


def test_none_does_not_change_the_model(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_backbone_weights(model, "resnet18", "none")
    assert_holds(model, before)


class Payload:
    """Unpickling this creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["torch.save", "bare pickle", "hidden among tensors"])
def test_a_pickle_payload_is_refused_and_not_executed(
    how: str, tmp_path: Path, model: nn.Module, source: dict[str, Tensor]
) -> None:
    marker, path = tmp_path / "executed", tmp_path / "resnet18.pt"
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    else:
        torch.save({**source, "extra": Payload(marker)} if "hidden" in how else Payload(marker), path)
    with pytest.raises(UserInputError, match="was not opened"):
        load_backbone_weights(model, "resnet18", str(path))
    assert not marker.exists()
    pickle.loads(path.read_bytes()) if how == "bare pickle" else torch.load(path, weights_only=False)
    assert marker.exists(), "the payload would have run"


def test_another_architecture_is_refused_by_file_backbone_and_key(tmp_path: Path, model: nn.Module) -> None:
    path = tmp_path / "weights.pt"
    torch.save(make_model(0, "resnet50").state_dict(), path)
    with pytest.raises(UserInputError, match=r"weights\.pt.*resnet18.*'layer1\.0\.conv1\.weight' has shape"):
        load_backbone_weights(model, "resnet18", str(path))


def test_missing_unexpected_and_non_finite_entries_are_refused(
    tmp_path: Path, model: nn.Module, source: dict[str, Tensor]
) -> None:
    path = tmp_path / "weights.safetensors"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    broken = {
        r"'bn1\.weight' is missing": {k: v for k, v in source.items() if k != "bn1.weight"},
        r"also holds 'extra'": {**source, "extra": torch.zeros(1)},
        r"'conv1\.weight' is not finite": {
            **source,
            "conv1.weight": torch.full_like(source["conv1.weight"], torch.nan),
        },
    }
    for message, state in broken.items():
        save_file(state, path)
        with pytest.raises(UserInputError, match=message):
            load_backbone_weights(model, "resnet18", str(path))
    assert_holds(model, before)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", bytes(range(256)) * 40])
def test_garbage_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserInputError, match="weights"):
        load_weights_file(path)


def test_a_truncated_file_is_refused(tmp_path: Path, source: dict[str, Tensor]) -> None:
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"weights{suffix}"
        torch.save(source, path) if suffix == ".pt" else save_file(source, path)
        path.write_bytes(path.read_bytes()[:1_000_000])
        with pytest.raises(UserInputError, match="cannot be read"):
            load_weights_file(path)


def test_weights_that_unpack_to_more_than_their_file_are_refused(tmp_path: Path) -> None:
    """torch.save compresses nothing."""
    torch.save({"fc.weight": torch.zeros(1000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "small.pt", "w") as small:
        for member in plain.infolist():
            small.writestr(member.filename, plain.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserInputError, match=r"small\.pt' cannot be read: it would unpack to"):
        load_weights_file(tmp_path / "small.pt")


def test_a_nested_checkpoint_is_refused_by_key(tmp_path: Path, source: dict[str, Tensor]) -> None:
    torch.save({"state_dict": source}, tmp_path / "nested.pt")
    with pytest.raises(UserInputError, match=r"'state_dict' in .* is of type OrderedDict"):
        load_weights_file(tmp_path / "nested.pt")


def test_names_and_places_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="did you mean 'imagenet'"):
        find_weights_file("resnet18", "imagnet")
    with pytest.raises(UserInputError, match=r"resnet50\.pt or resnet50\.safetensors"):
        find_weights_file("resnet50", str(tmp_path))
    with pytest.raises(UserInputError, match="local path"):
        find_weights_file("resnet18", "https://example.org/resnet18.pt")
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(UserInputError, match=r"\.safetensors"):
        find_weights_file("resnet18", str(tmp_path / "weights.bin"))


def test_imagenet_without_network_names_the_file_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    for backbone, url in PUBLISHED_URLS.items():
        with pytest.raises(UserInputError) as caught:
            find_weights_file(backbone, "imagenet")
        assert url.rpartition("/")[2] in str(caught.value)
        assert str(tmp_path / "hub" / "checkpoints") in str(caught.value)
        assert str(caught.value).count("\n") <= 1


def test_imagenet_is_taken_from_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: nn.Module, source: dict[str, Tensor]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(source, folder / PUBLISHED_URLS["resnet18"].rpartition("/")[2])
    load_backbone_weights(model, "resnet18", "imagenet")
    assert_holds(model, source)


@pytest.mark.shared_data
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_stand_in_weights_load(backbone: str, shared_data: Path) -> None:
    model = make_model(0, backbone)
    load_backbone_weights(model, backbone, str(shared_data / "weights"))
    stored = load_weights_file(shared_data / "weights" / f"{backbone}.pt")
    assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], stored["layer4.1.conv2.weight"].float())

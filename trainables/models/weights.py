"""Pretrained weights from a file, a folder or torchvision; code in a file is never executed."""

import math
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from search_spaces.errors import UserInputError, nearest_name

# The V1 weights of both backbones were trained with the same recipe. With ResNet50's V2 weights an A/B study of the backbones
# would compare the recipes too.
PUBLISHED_URLS: Mapping[str, str] = MappingProxyType(
    {"resnet18": ResNet18_Weights.IMAGENET1K_V1.url, "resnet50": ResNet50_Weights.IMAGENET1K_V1.url}
)
HEAD_PREFIX = "fc."
_SUFFIXES = (".pt", ".pth", ".safetensors")
_OPTIONAL_SUFFIX = "num_batches_tracked"  # a counter, absent from files written before torch 0.4.1


def load_backbone_weights(model: nn.Module, backbone: str, weights: str) -> None:
    """Copy pretrained weights into `model` except for its head `fc`, cast to the model's dtype.

    Args:
        model: A torchvision ResNet.
        backbone: Architecture of `model`, "resnet18" or "resnet50".
        weights: "none" (keeps the model's weights), "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), a local
            .pt, .pth or .safetensors file, a folder with <backbone>.pt or <backbone>.safetensors, or a file:// URL.

    Raises:
        UserInputError: If there are no such weights, or the file does not hold the tensors of this architecture.
    """
    path = find_weights_file(backbone, weights)
    if path is None:
        return
    loaded = {k: v for k, v in load_weights_file(path).items() if not k.startswith(HEAD_PREFIX)}
    expected = {k: v for k, v in model.state_dict().items() if not k.startswith(HEAD_PREFIX)}
    _check_architecture(loaded, expected, backbone, path)
    with torch.no_grad():
        for name, target in expected.items():
            if name in loaded:
                target.copy_(loaded[name])
            else:
                target.zero_()


def find_weights_file(backbone: str, weights: str) -> Path | None:
    """Return the file that `weights` names for `backbone`; the published file is downloaded if necessary.

    Args:
        backbone: "resnet18" or "resnet50".
        weights: As in `load_backbone_weights`.

    Returns:
        The file, or None for "none".

    Raises:
        UserInputError: If there is no such file.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        return _published_file(backbone)
    path = _local_path(weights)
    if path.is_dir():
        return _file_in_folder(path, backbone)
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise UserInputError(
                f"weights must be a {', '.join(_SUFFIXES)} file, but got {str(path)!r}; "
                "save the state dict as .safetensors"
            )
        return path
    raise UserInputError(
        f'weights must be "none", "imagenet", a file or a folder, but there is no {weights!r}'
        f"{nearest_name(weights, ('none', 'imagenet')) if path.parent == Path() else ''}"
    )


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """Return the flat state dict in a .pt, .pth or .safetensors file, on the CPU.

    Raises:
        UserInputError: If the file cannot be read, holds objects other than tensors, or is a pickle that would run code
            (it is read with `weights_only=True`).
    """
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else _load_without_code(path)
    except pickle.UnpicklingError:
        raise UserInputError(
            f"weights must be tensors only, but {str(path)!r} is a pickle of other objects and was not opened; "
            "save the state dict as .safetensors"
        ) from None
    except Exception as error:  # the readers raise almost any class on hostile bytes
        first_line = str(error).partition("\n")[0][:120]
        raise UserInputError(
            f"the weights {str(path)!r} cannot be read: {first_line}; fetch or save the file again"
        ) from None
    if not isinstance(state, dict) or not state:
        raise UserInputError(f"weights must be a state dict (name: tensor), but {str(path)!r} holds none")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserInputError(
                f"weights must be a flat state dict, but {name!r} in {str(path)!r} is of type {type(value).__name__}; "
                "save the state dict by itself"
            )
    return state


def _load_without_code(path: Path) -> Any:
    with warnings.catch_warnings():
        # The warning precedes the UnpicklingError that is handled by the caller.
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_architecture(
    loaded: Mapping[str, Tensor], expected: Mapping[str, Tensor], backbone: str, path: Path
) -> None:
    """Raise UserInputError for the first name, shape or value that does not match."""
    rule = f"{str(path)!r} must hold the weights of {backbone}, but"
    remedy = "give the file of this backbone in torchvision's names"
    for name, value in expected.items():
        if name not in loaded:
            if name.endswith(_OPTIONAL_SUFFIX):
                continue
            raise UserInputError(f"{rule} {name!r} is missing; {remedy}")
        if loaded[name].shape != value.shape:
            shapes = f"{tuple(loaded[name].shape)} instead of {tuple(value.shape)}"
            raise UserInputError(f"{rule} {name!r} has shape {shapes}; {remedy}")
        if not math.isfinite(float(loaded[name].float().sum())):
            raise UserInputError(f"{rule} {name!r} is not finite; fetch or save the file again")
    for name in loaded:
        if name not in expected:
            raise UserInputError(f"{rule} it also holds {name!r}; {remedy}")


def _local_path(weights: str) -> Path:
    if "://" not in weights:
        return Path(weights).expanduser()
    url = urlsplit(weights)
    if url.scheme != "file" or url.netloc not in {"", "localhost"}:
        raise UserInputError(f"weights must lie on a local path, but got {weights!r}; fetch the file and give its path")
    return Path(unquote(url.path))


def _file_in_folder(folder: Path, backbone: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{backbone}{suffix}").is_file():
            return folder / f"{backbone}{suffix}"
    raise UserInputError(
        f"the weights folder {str(folder)!r} must hold {backbone}.pt or {backbone}.safetensors, but holds neither; "
        'put the file there, or use "imagenet" or "none"'
    )


def _published_file(backbone: str) -> Path:
    if backbone not in PUBLISHED_URLS:
        raise UserInputError(f"there are no published weights of {backbone!r}{nearest_name(backbone, PUBLISHED_URLS)}")
    url = PUBLISHED_URLS[backbone]
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    hash_prefix = path.stem.rpartition("-")[2]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=False)
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise UserInputError(
            f"the ImageNet weights of {backbone} are not in {str(path.parent)!r} and cannot be downloaded ({reason});\n"
            f"fetch {url} and put {path.name} into that folder, or set weights to a local file"
        ) from None
    return path

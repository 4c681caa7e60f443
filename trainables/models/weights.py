"""Pretrained weights from a file, a folder or the library of the backbone; code in a file is never executed."""

import math
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from search_spaces.errors import UserInputError, first_line, nearest_name
from trainables.models.catalog import find_backbone

_SUFFIXES = (".pt", ".pth", ".safetensors")
_OPTIONAL_SUFFIX = "num_batches_tracked"  # a counter, absent from files written before torch 0.4.1


def copy_weights(model: nn.Module, state: Mapping[str, Tensor], head: str, backbone: str, path: Path) -> None:
    """Copy pretrained weights into `model` except for its head, cast to the model's dtype.

    Args:
        model: Its names and shapes must be those of the weights.
        state: Of the file.
        head: Dotted name of the classification layer.
        backbone: Its name, for messages.
        path: Of the file, for messages.

    Raises:
        UserInputError: If the file does not hold the tensors of this architecture.
    """
    loaded = {k: v for k, v in state.items() if not k.startswith(f"{head}.")}
    expected = {k: v for k, v in model.state_dict().items() if not k.startswith(f"{head}.")}
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
        backbone: A name of `trainables.models.catalog.find_backbone`.
        weights: "none", "imagenet" (the published ones of torchvision, IMAGENET1K_V1 where there are several, or of timm), a
            local .pt, .pth or .safetensors file, a folder with one file per backbone, named as the backbone without the prefix
            of its library, or a file:// URL.

    Returns:
        The file, or None for "none".

    Raises:
        UserInputError: If there is no such file.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        fetch = find_backbone(backbone).fetch
        if fetch is None:
            raise UserInputError(
                f'there are no published weights of {backbone!r}; set model.weights to "none", a file or a folder'
            )
        return fetch()
    path = find_local_path(weights)
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
        raise UserInputError(
            f"the weights {str(path)!r} cannot be read: {first_line(error)[:120]}; fetch or save the file again"
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
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked:,} bytes; torch.save compresses nothing")
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


def find_local_path(weights: str) -> Path:
    """Return the path of local weights, given as a path, which may begin with ``~``, or as a file:// URL.

    Raises:
        UserInputError: for another kind of URL.
    """
    if "://" not in weights:
        return Path(weights).expanduser()
    url = urlsplit(weights)
    if url.scheme != "file" or url.netloc not in {"", "localhost"}:
        raise UserInputError(
            f"weights must lie on a local path, but got {url.scheme}://...; fetch the file and give its path"
        )
    return Path(unquote(url.path))


def _file_in_folder(folder: Path, backbone: str) -> Path:
    stem = find_backbone(backbone).file_stem
    for suffix in _SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise UserInputError(
        f"the weights folder {str(folder)!r} must hold {stem}.pt or {stem}.safetensors, but holds neither; "
        'put the file there, or use "imagenet" or "none"'
    )

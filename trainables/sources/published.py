"""CIFAR-10, Fashion-MNIST (both through torchvision) and digits (scikit-learn)."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torchvision
from numpy.typing import NDArray
from sklearn.datasets import load_digits as load_sklearn_digits

from search_spaces.errors import UserInputError
from trainables.images import ImageSet
from trainables.sources.descriptions import CIFAR10_CLASSES, FASHION_MNIST_CLASSES, find_groups
from trainables.sources.subsets import choose_subset


def load_cifar10(path: str | None, *, seed: int = 0, num_images: int | None = None) -> ImageSet:
    """Return CIFAR-10, 32x32 RGB: 50,000 training images (or a stratified subset) and the 10,000 of the official test.

    Args:
        path: the folder that holds, or will hold, torchvision's `cifar-10-batches-py`; downloaded if missing.
        seed: of the subset.
        num_images: training images taken; None for all.

    Raises:
        UserInputError: if the files are missing or damaged and cannot be downloaded: what to fetch and where to put it.
    """
    folder = _check_path(path, "cifar10")
    dataset = torchvision.datasets.CIFAR10
    advice = f"fetch {dataset.filename} ({dataset.url}) and put it into {folder}"
    parts = _load_parts(dataset, folder, advice)
    arrays = [(np.asarray(part.data), np.asarray(part.targets, dtype=np.int64)) for part in parts]
    return _join(arrays, CIFAR10_CLASSES, "cifar10", num_images, seed)


def load_fashion_mnist(path: str | None, *, seed: int = 0, num_images: int | None = None) -> ImageSet:
    """Return Fashion-MNIST, 28x28, its one gray channel repeated into RGB; arguments and errors as `load_cifar10`."""
    folder = _check_path(path, "fashion_mnist")
    dataset = torchvision.datasets.FashionMNIST
    names = ", ".join(name for name, _ in dataset.resources)
    advice = f"fetch {names} ({dataset.mirrors[0]}) and put them into {folder / 'FashionMNIST' / 'raw'}"
    parts = _load_parts(dataset, folder, advice)
    arrays = [(_repeat_gray(part.data.numpy()), part.targets.numpy().astype(np.int64)) for part in parts]
    return _join(arrays, FASHION_MNIST_CLASSES, "fashion_mnist", num_images, seed)


def load_digits(path: str | None = None, *, seed: int = 0, num_images: int | None = None) -> ImageSet:
    """Return scikit-learn's 1,797 handwritten digits, 8x8, gray levels 0..16 scaled to 0..255 and repeated into RGB."""
    if path is not None:
        raise UserInputError(f"digits come with scikit-learn and are not read: remove data.path ({path!r})")
    digits = load_sklearn_digits()
    labels = digits.target.astype(np.int64)
    chosen = choose_subset(labels, num_images, seed)
    gray = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
    return ImageSet(
        images=_repeat_gray(gray),
        labels=labels[chosen],
        class_names=tuple(str(i) for i in range(10)),
        source="digits",
    )


def _check_path(path: str | None, source: str) -> Path:
    if path is None:
        raise UserInputError(f"the source {source!r} needs data.path, the folder for torchvision's files")
    return Path(path)


def _load_parts(dataset: Any, folder: Path, advice: str) -> tuple[Any, Any]:
    """Return the training and the test part, downloading what is missing."""
    try:
        return dataset(str(folder), train=True), dataset(str(folder), train=False)
    except RuntimeError:
        pass  # torchvision's word for "not there, or damaged": try to download
    existed = folder.exists()
    try:
        return dataset(str(folder), train=True, download=True), dataset(str(folder), train=False, download=True)
    except (URLError, OSError, RuntimeError) as error:
        if not existed:
            _remove_empty(folder)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserInputError(
            f"{dataset.__name__} is not in {folder} and cannot be downloaded ({reason}); {advice}"
        ) from None


def _remove_empty(folder: Path) -> None:
    """Remove the empty folders that a failed download left."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _repeat_gray(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[..., None], 3, axis=3)


def _join(
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]],
    class_names: tuple[str, ...],
    source: str,
    num_images: int | None,
    seed: int,
) -> ImageSet:
    (train_images, train_labels), (test_images, test_labels) = parts
    chosen = choose_subset(train_labels, num_images, seed)
    return ImageSet(
        images=np.concatenate([train_images[chosen], test_images]),
        labels=np.concatenate([train_labels[chosen], test_labels]),
        class_names=class_names,
        source=source,
        official_test=np.arange(len(chosen) + len(test_labels)) >= len(chosen),
        class_groups=find_groups(class_names),
    )

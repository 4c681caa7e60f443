"""A user's own folder: root/<class>/<image>, or root/train/<class>/... beside root/test/<class>/..."""

from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from search_spaces.errors import UserInputError
from trainables.images import ImageSet
from trainables.sources.decoding import decode_image
from trainables.sources.descriptions import find_groups
from trainables.sources.subsets import choose_subset


def load_folder(
    path: str | None, *, seed: int = 0, num_images: int | None = None, native_size: int | None = None
) -> ImageSet:
    """Return the images below a folder in ImageFolder's layout; folder names are class names, sorted.

    Args:
        path: the root. Where it holds `train` and `test`, the images in `test` are the official test set.
        seed: of the subset.
        num_images: images taken outside the test set, stratified; None for all.
        native_size: side in pixels to which every image is resized; None demands that all have one size.

    Raises:
        UserInputError: naming the folder or image that cannot be used.
    """
    root = _check_root(path)
    parts = ("train", "test") if (root / "train").is_dir() and (root / "test").is_dir() else ("",)
    class_names = _class_names(root / parts[0])
    files: list[Path] = []
    labels: list[int] = []
    is_test: list[bool] = []
    for part in parts:
        found, found_labels = _list_images(root / part, class_names)
        chosen = choose_subset(np.array(found_labels), None if part == "test" else num_images, seed)
        files += [found[i] for i in chosen]
        labels += [found_labels[i] for i in chosen]
        is_test += [part == "test"] * len(chosen)
    return ImageSet(
        images=_decode_files(files, native_size),
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        source="folder",
        official_test=np.array(is_test) if len(parts) == 2 else None,
        class_groups=find_groups(class_names),
    )


def _check_root(path: str | None) -> Path:
    if path is None:
        raise UserInputError("the source 'folder' needs data.path, a folder with one folder per class")
    root = Path(path)
    if not root.is_dir():
        raise UserInputError(f"there is no folder {path}; data.path must hold one folder of images per class")
    return root


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(names) < 2:
        raise UserInputError(
            f"{folder} must hold at least two folders, one per class and named after it, but holds {len(names)}"
        )
    return names


def _list_images(folder: Path, class_names: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """Return files and labels; raise UserInputError for a class folder that is unknown, missing or empty."""
    present = _class_names(folder)
    for name in sorted({*present} ^ {*class_names}):
        raise UserInputError(f"the class {name!r} must have a folder in train and in test, but {folder} differs")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in IMG_EXTENSIONS and p.is_file())
        if not found:
            raise UserInputError(f"{folder / name} holds no image ({', '.join(IMG_EXTENSIONS)})")
        files += found
        labels += [label] * len(found)
    return files, labels


def _decode_files(files: list[Path], native_size: int | None) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None = None
    for index, file in enumerate(files):
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserInputError(f"{file} cannot be read: {error.strerror}") from None
        image = decode_image(data, str(file), native_size)
        if images is None:
            images = np.empty((len(files), *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            raise UserInputError(
                f"{file} is {image.shape[1]}x{image.shape[0]}, but {files[0]} is {images.shape[2]}x{images.shape[1]}; "
                "set data.options.native_size to resize all to one size"
            )
        images[index] = image
    assert images is not None
    return images

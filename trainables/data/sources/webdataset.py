"""Images in tar files as WebDataset writes and reads them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from search_spaces.errors import UserInputError, nearest_name
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import decode_files
from trainables.data.decoding.encoded_files import DiskState, EncodedImages, ImageSpans, combine_states
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import Aspect, ImageSet
from trainables.data.problems import ProblemList, make_printable
from trainables.data.sources.labeled_files import PARTS, LabeledFiles
from trainables.data.sources.parquet import VALIDATION_SPLITS
from trainables.data.sources.tar_shards import IMAGE_EXTENSIONS, TarSample, list_samples

# Word in a file's name -> published split.
SPLITS: Mapping[str, str] = MappingProxyType(
    {"train": "train", "test": "test", **dict.fromkeys(VALIDATION_SPLITS, "validation")}
)
SUFFIX = ".tar"
NAME_FILES = ("classes.txt", "classnames.txt")


def load_webdataset(
    path: str | None,
    *,
    seed: int = 0,
    num_images: Annotated[int, Field(ge=1)] | None = None,
    native_size: Annotated[int, Field(ge=8, le=1024)] | None = None,
    image_size: Annotated[int, Field(ge=8)] | None = None,
    aspect: Aspect = "crop",
    on_bad_image: Literal["refuse", "skip"] = "refuse",
    label_field: str = "label",
    class_names: Sequence[str] | None = None,
    class_groups: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
    memory_budget: ImageMemoryBudget,
) -> ImageSet:
    """Return the images of a tar file, or of a folder of tar files such as imagenet-train-000000.tar.

    A sample is an image (.jpg, .png, ...) with its class in a .cls file, a number or a name, or in its .json. Other files of a
    sample are ignored. Where names of tar files hold the word train, those with validation, valid, val, dev or test are the
    published splits.

    Args:
        path: A .tar file or a folder.
        seed: Seed of the subset.
        num_images: Keep this many images outside the test set, stratified; only these are decoded and checked.
        native_size: Side in pixels at which images are stored; see `decode_files`.
        image_size: Side in pixels of the images that models are trained on; set as train.image_size in a spec.
        aspect: How images become squares; set as data.aspect in a spec.
        on_bad_image: Whether images that cannot be used are skipped; set as data.on_bad_image in a spec.
        label_field: Field of a sample's .json with its class, where it has no .cls.
        class_names: K names in the order of the numbers. By default the lines of classes.txt or classnames.txt in the folder, or
            where labels are names these in alphabetical order, or the numbers themselves.
        class_groups: Named groups of classes; by default those of the described data set with the same classes.
        group: Field of a sample's .json that says which images belong together, such as a patient; set as data.group in a spec.
        memory_budget: Memory that the decoded images may take; not an option of a spec.

    Raises:
        UserInputError: With all tar files that are cut or no tar files, and all samples without a label or with several images.
    """
    found = list_tar_set(path, label_field, group, class_names)
    chosen = found.choose(num_images, seed)
    request = DecodeRequest(native_size, image_size, aspect, on_bad_image)
    decoded = decode_files(TarImages(found, chosen), request, memory_budget)
    return found.make_image_set("webdataset", decoded, chosen, class_groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class TarSet(LabeledFiles):
    """The samples of tar files.

    Attributes:
        paths: F files.
        files: (N,) int32, number of the file in which each sample is.
        samples: N samples.
    """

    paths: tuple[Path, ...]
    files: NDArray[np.int32]
    samples: tuple[TarSample, ...]


def list_tar_set(
    path: str | None, label_field: str = "label", group: str | None = None, class_names: Sequence[str] | None = None
) -> TarSet:
    """Return the samples at `path`; arguments and errors as in `load_webdataset`."""
    paths = _find_files(path)
    problems = ProblemList()
    of_files = [list_samples(file, label_field, group, problems) for file in paths]
    files = np.repeat(np.arange(len(paths), dtype=np.int32), [len(found) for found in of_files])
    samples = tuple(sample for found in of_files for sample in found)
    places = [f"{paths[number]} {sample.key}" for number, sample in zip(files, samples, strict=True)]
    names, labels = _resolve_labels(Path(str(path)), samples, places, class_names, problems)
    if not samples:
        problems.add("there is no image", str(path), "give tar files with samples of an image and its class")
    problems.raise_any(str(path))
    return TarSet(
        paths=tuple(paths),
        files=files,
        samples=samples,
        labels=labels,
        class_names=names,
        parts=_find_parts(paths)[files],
        groups=None if group is None else [sample.group for sample in samples],
    )


class TarImages(EncodedImages):
    """Images in tar files, each of which can be read alone."""

    def __init__(self, found: TarSet, kept: NDArray[np.int64]) -> None:
        """Keep where the images are.

        Args:
            found: The samples.
            kept: (M,) int64, sorted.
        """
        chosen = [found.samples[i] for i in kept]
        self._paths = found.paths
        files = found.files[kept]
        self.names = tuple(
            make_printable(f"{found.paths[f]} {sample.key}") for f, sample in zip(files, chosen, strict=True)
        )
        self._spans = ImageSpans(
            paths=tuple(map(str, self._paths)),
            files=files,
            offsets=np.array([sample.offset for sample in chosen], dtype=np.int64),
            sizes=np.array([sample.size for sample in chosen], dtype=np.int64),
        )

    def read_state(self) -> DiskState:
        """Return the state of the files, with the places that are read."""
        state = combine_states(self._paths)
        return replace(state, stamp=self._spans.stamp(state.stamp))

    def readers(self) -> Iterator[partial[bytes]]:
        """Yield a function per image."""
        return (partial(self._spans.read, position) for position in range(len(self._spans)))

    def locate(self, folder: Path) -> ImageSpans:  # noqa: ARG002
        """Return the places in the tar files."""
        return self._spans


def is_tar_set(path: Path) -> bool:
    """Return whether `path` is a tar file, or a folder that holds some and no image: an archive may lie beside images."""
    if path.is_file():
        return path.suffix == SUFFIX
    suffixes = {file.suffix.lower() for file in path.rglob("*")}
    return SUFFIX in suffixes and not any(f".{extension}" in suffixes for extension in IMAGE_EXTENSIONS)


def _find_files(path: str | None) -> list[Path]:
    if not path:
        raise UserInputError('the source "webdataset" needs data.path, a .tar file or a folder of them')
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    files = sorted(root.rglob(f"*{SUFFIX}")) if root.is_dir() else []
    if not files:
        found = "holds no .tar file" if root.is_dir() else "does not exist"
        raise UserInputError(f"data.path must be a .tar file or a folder of them, but {root} {found}")
    return files


def _find_parts(paths: Sequence[Path]) -> NDArray[np.int64]:
    """Return (F,) the position of each file's published split in `PARTS`, by its name or that of its folder."""

    def name(path: Path) -> str:
        words = re.split(r"[^a-z]+", f"{path.stem} {path.parent.name}".lower())
        return next((SPLITS[word] for word in words if word in SPLITS), "")

    parts = [name(path) for path in paths]
    return np.array([PARTS.index(part if part and "train" in parts else "train") for part in parts])


def _resolve_labels(
    root: Path, samples: Sequence[TarSample], places: Sequence[str], given: Sequence[str] | None, problems: ProblemList
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the classes and (N,) labels; add what does not fit to the problems."""
    listed = tuple(given) if given is not None else _read_names(root)
    values = _choose_values(samples, listed)
    names = listed or _name_values(values)
    numbers = {name: number for number, name in enumerate(names)}
    labels = []
    for value, place in zip(values, places, strict=True):
        number = value if isinstance(value, int) else numbers.get(value, -1)
        if not 0 <= number < len(names):
            near = nearest_name(value, names) if isinstance(value, str) else ""
            rule = f"labels must be numbers in [0, {len(names)}) or names of classes"
            problems.add(rule, f"{place} ({str(value)[:40]!r}{near})", "correct them or name every class")
            number = 0
        labels.append(number)
    if values and (len(names) < 2 or len(set(names)) < len(names)):
        problems.add("a source needs at least two classes with distinct names", str(list(names)), "correct them")
    return names, np.array(labels, dtype=np.int64)


def _read_names(root: Path) -> tuple[str, ...]:
    folder = root if root.is_dir() else root.parent
    found = next((folder / name for name in NAME_FILES if (folder / name).is_file()), None)
    try:
        lines = [] if found is None else found.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserInputError(f"{found} is not in UTF-8; save it as UTF-8, a class per line") from None
    return tuple(line.strip() for line in lines if line.strip())


def _choose_values(samples: Sequence[TarSample], names: Sequence[str]) -> list[str | int]:
    """Return the labels: all as they are written where only that makes all of them valid, else numbers as numbers.

    A .cls holds text: "7" is class number 7 in most sets, and the digit 7 in one of digits and letters.
    """
    if names:
        are_numbers = all(isinstance(sample.label, int) and sample.label < len(names) for sample in samples)
        are_names = not are_numbers and {sample.text for sample in samples} <= set(names)
    else:
        are_names = any(isinstance(sample.label, str) for sample in samples)
    return [sample.text if are_names else sample.label for sample in samples]


def _name_values(values: Sequence[str | int]) -> tuple[str, ...]:
    texts = sorted({value for value in values if isinstance(value, str)})
    highest = max((value for value in values if isinstance(value, int)), default=-1)
    return tuple(texts) or tuple(map(str, range(highest + 1)))

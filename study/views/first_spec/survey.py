"""What `study init` finds in a folder, manifest or set of parquet files without decoding an image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.images import SkippedFile
from trainables.data.problems import Problem, make_error, make_printable
from trainables.data.sources.decoding import Headers, read_headers
from trainables.data.sources.layouts import Layout, find_layout, make_layout_error
from trainables.data.sources.manifest import is_manifest
from trainables.data.sources.parquet import open_parquet

SPLITS = ("", "train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Labeled images as they were found.

    Attributes:
        path: the folder, manifest or parquet file; absolute.
        source: "folder" or "parquet".
        layout: how the images are laid out, in words.
        class_names: K names.
        class_counts: number of images of each class, (K,), by published split; "" for images of none.
        has_groups: whether images belong to groups.
        sizes: (N, 2) width and height in pixels of the images whose header could be read.
        kinds: number of images by kind, such as {"RGB": 380, "grayscale": 3}.
        skipped: files that are not images.
    """

    path: Path
    source: str
    layout: str
    class_names: tuple[str, ...]
    class_counts: Mapping[str, tuple[int, ...]]
    has_groups: bool
    sizes: NDArray[np.int32]
    kinds: Mapping[str, int]
    skipped: tuple[SkippedFile, ...]

    @property
    def num_images(self) -> int:
        """Number of images in all splits."""
        return sum(map(sum, self.class_counts.values()))

    @property
    def native_side(self) -> int | None:
        """Side of the images in pixels if all are squares of one size, which are stored as they are."""
        side = int(self.sizes[0, 0])
        return side if (self.sizes == side).all() else None

    @property
    def median_short_side(self) -> int:
        """Median of the shorter sides in pixels."""
        return int(np.median(self.sizes.min(axis=1)))


def survey_images(path: str, group: str | None = None) -> Survey:
    """Return what is found at `path`.

    Args:
        path: a folder, a manifest, a .parquet file of encoded images, or a folder of such files.
        group: as `data.group` of a spec.

    Raises:
        UserInputError: listing everything because of which the images cannot be used, broken files included.
    """
    given = Path(path).expanduser().absolute()
    return _survey_parquet(given, group) if is_parquet_set(given) else _survey_layout(given, group)


def is_parquet_set(path: Path) -> bool:
    """Return whether `path` is a parquet file of encoded images, or a folder (or its data/) that holds such files."""
    if path.is_file():
        return path.suffix == ".parquet" and not is_manifest(path)
    files = [file for folder in (path, path / "data") for file in sorted(folder.glob("*.parquet"))]
    return bool(files) and not any(map(is_manifest, files))


def _survey_layout(path: Path, group: str | None) -> Survey:
    layout = find_layout(path, group=group)
    headers = read_headers(layout.files)
    error = make_layout_error(layout, further=headers.problems)
    if error is not None and (layout.found_problems or not len(headers.sizes)):
        raise error
    return Survey(
        path=path,
        source="folder",
        layout=layout.kind,
        class_names=layout.class_names,
        class_counts=_count(layout),
        has_groups=layout.files[0].group is not None,
        sizes=headers.sizes,
        kinds=_count_kinds(headers),
        skipped=layout.skipped,
    )


def _survey_parquet(path: Path, group: str | None) -> Survey:
    table = open_parquet(str(path), group=group)
    headers = read_headers(table.images)
    if not len(headers.sizes):
        raise make_error(make_printable(str(path)), headers.problems)
    counts = {
        split: tuple(np.bincount(table.labels[table.part == part], minlength=len(table.class_names)).tolist())
        for part, split in enumerate(table.parts)
    }
    return Survey(
        path=path,
        source="parquet",
        layout="parquet files with encoded images",
        class_names=table.class_names,
        class_counts={split: per_class for split, per_class in counts.items() if sum(per_class)},
        has_groups=group is not None,
        sizes=headers.sizes,
        kinds=_count_kinds(headers),
        skipped=(),
    )


def _count(layout: Layout) -> dict[str, tuple[int, ...]]:
    counts = Counter((file.split, file.class_name) for file in layout.files)
    return {
        split: tuple(counts[split, name] for name in layout.class_names)
        for split in layout.count_splits()
    }

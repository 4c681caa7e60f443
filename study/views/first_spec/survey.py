"""What `study init` finds in a folder, manifest or set of parquet or tar files without decoding an image."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import count_noun
from trainables.data.all_cores import map_on_all_cores
from trainables.data.decoding.decode_set import STORED_SIDE_RATIO
from trainables.data.decoding.encoded_files import BadImageError
from trainables.data.decoding.image_decoder import ImageHeader, open_header, read_headers
from trainables.data.image_memory import default_folder
from trainables.data.images import SkippedFile
from trainables.data.problems import Problem, make_error, make_printable
from trainables.data.sources.fetched_files import fetch_source
from trainables.data.sources.folders.layouts import Layout, find_layout, list_scarce_classes
from trainables.data.sources.folders.manifest import is_manifest
from trainables.data.sources.labeled_files import PARTS
from trainables.data.sources.parquet import ParquetSource
from trainables.data.sources.webdataset import TarSource, is_tar_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Labeled images as they were found.

    Attributes:
        path: the folder, manifest, parquet or tar file, absolute; or the URI.
        source: "folder", "parquet" or "webdataset".
        layout: a sentence on the layout of the images.
        class_names: K names.
        class_counts: number of images of each class, (K,), by published split; "" for images of none.
        has_groups: whether images belong to groups.
        sizes: (N, 2) width and height in pixels of the images whose header could be read.
        kinds: number of images by kind, such as {"RGB": 380, "grayscale": 3}.
        skipped: files that are not images.
    """

    path: Path | str
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

    def stored_side(self, image_size: int) -> int:
        """Return the side in pixels at which the images are stored for training at `image_size`."""
        return self.native_side or round(image_size * STORED_SIDE_RATIO)

    @property
    def median_short_side(self) -> int:
        """Median of the shorter sides in pixels."""
        return int(np.median(self.sizes.min(axis=1)))


def survey_images(path: str, group: str | None = None) -> Survey:
    """Return what is found at `path`.

    Args:
        path: a folder, a manifest, a .parquet file of encoded images, a .tar file of WebDataset, a folder of such files, or the
            URI of one of these, whose files are copied to this machine first.
        group: as `data.group` of a spec.

    Raises:
        UserInputError: listing everything because of which the images cannot be used, broken files included.
    """
    if "://" in path:
        return replace(survey_images(str(fetch_source(path, default_folder())), group), path=path)
    given = Path(path).expanduser().resolve()
    if is_parquet_set(given):
        return _survey_encoded(given, ParquetSource(path=str(given), group=group))
    if is_tar_set(given):
        return _survey_encoded(given, TarSource(path=str(given), group=group))
    return _survey_layout(given, group)


def is_parquet_set(path: Path) -> bool:
    """Return whether `path` is a parquet file of encoded images, or a folder (or its data/) that holds such files."""
    if path.is_file():
        return path.suffix == ".parquet" and not is_manifest(path)
    files = [file for folder in (path, path / "data") for file in sorted(folder.glob("*.parquet"))]
    return bool(files) and not any(map(is_manifest, files))


def _survey_layout(path: Path, group: str | None) -> Survey:
    layout = find_layout(path, group=group)
    found = read_headers(layout.files)
    headers = [header for header in found if isinstance(header, ImageHeader)]
    if layout.found_problems or not headers:
        bad = describe_bad(_list_bad([file.name for file in layout.files], found))
        problems = [*layout.found_problems, *bad, *list_scarce_classes(layout)]
        raise make_error(make_printable(str(layout.root)), problems)
    return Survey(
        path=path,
        source="folder",
        layout=layout.kind,
        class_names=layout.class_names,
        class_counts=_count(layout),
        has_groups=layout.files[0].group is not None,
        sizes=np.array([(header.width, header.height) for header in headers], dtype=np.int32),
        kinds=_count_kinds(headers),
        skipped=layout.skipped,
    )


def _survey_encoded(path: Path, source: ParquetSource | TarSource) -> Survey:
    files = source.find()
    images = files.encode(np.arange(len(files.labels)))
    found = list(map_on_all_cores(_read_header, images.readers(), len(files.labels), "reading headers"))
    headers = [header for header in found if isinstance(header, ImageHeader)]
    if not headers:
        raise make_error(make_printable(str(path)), describe_bad(_list_bad(images.names, found)))
    counts = {
        split: tuple(np.bincount(files.labels[marks], minlength=len(files.class_names)).tolist())
        for split in PARTS
        if (marks := files.mark(split)) is not None
    }
    return Survey(
        path=path,
        source=source.name,
        layout=f"{'tar' if source.name == 'webdataset' else source.name} files with encoded images",
        class_names=files.class_names,
        class_counts=counts,
        has_groups=files.groups is not None,
        sizes=np.array([(header.width, header.height) for header in headers], dtype=np.int32),
        kinds=_count_kinds(headers),
        skipped=(),
    )


def _list_bad(names: Sequence[str], found: Sequence[ImageHeader | str]) -> list[SkippedFile]:
    """Return the files without a header that can be used."""
    return [SkippedFile(name=n, reason=r) for n, r in zip(names, found, strict=True) if isinstance(r, str)]


def _read_header(_: int, read: Callable[[], bytes]) -> ImageHeader | str:
    """Return the header of an encoded image, or why it has none."""
    try:
        return open_header(read(), "crop")
    except BadImageError as error:
        return str(error)


def _count(layout: Layout) -> dict[str, tuple[int, ...]]:
    counts = Counter((file.split, file.class_name) for file in layout.files)
    return {split: tuple(counts[split, name] for name in layout.class_names) for split in layout.count_splits()}


def _count_kinds(headers: Sequence[ImageHeader]) -> dict[str, int]:
    return dict(Counter(kind for header in headers for kind in header.kinds).most_common())


def describe_bad(bad: Sequence[SkippedFile], advice: str = "replace or remove them") -> list[Problem]:
    """Return the problem that image files cannot be used, with their names; none without any."""
    return [Problem(f"{count_noun(len(bad), 'image file')} cannot be used", name_files(bad), advice)] if bad else []


def name_files(files: Sequence[SkippedFile]) -> tuple[str, ...]:
    """Return the names of files with the reasons why they are not used."""
    return tuple(f"{file.name} ({file.reason})" for file in files)

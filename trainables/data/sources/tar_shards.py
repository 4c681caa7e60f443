"""Tar files in the layout of WebDataset: the files of a sample stand together and share their name up to the first dot."""

import json
import os
import tarfile
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from search_spaces.errors import first_line
from trainables.data.problems import ProblemList

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm"})
CLASS, FIELDS = "cls", "json"
END_BYTES = 2 * tarfile.BLOCKSIZE
# A class or the fields of one image have no more.
MAX_TEXT_BYTES = 2**20
# Longer ones are no numbers of classes.
MAX_DIGITS = 9
COPY_AGAIN = "copy it again, or write it anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class TarSample:
    """An image of a tar file.

    Attributes:
        key: name up to the first dot.
        offset: first byte of the encoded image in the tar file.
        size: its bytes.
        label: text or number of the class.
        text: the label as it is written.
        group: of the image; "" without groups.
    """

    key: str
    offset: int
    size: int
    label: str | int
    text: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class _Member:
    key: str
    extension: str
    offset: int
    size: int
    content: bytes = field(default=b"", repr=False)


def list_samples(path: Path, label_field: str, group: str | None, problems: ProblemList) -> list[TarSample]:
    """Return the samples of a tar file in their order, and add what is wrong with it to the problems.

    Args:
        path: the tar file.
        label_field: field of a sample's .json that holds its class, where it has no .cls.
        group: field of a sample's .json that says which images belong together; None without groups.
        problems: is extended.
    """
    try:
        members, end = _list_members(path)
    except (tarfile.TarError, OSError, EOFError) as error:
        problems.add("cannot be read as tar", f"{path} ({_explain(path, error)})", COPY_AGAIN)
        return []
    if not _has_only_zeros(path, end):
        problems.add(
            "is damaged, or several tar files in one: what follows is not read", f"{path}, byte {end}", COPY_AGAIN
        )
        return []
    if not _has_end(path):
        problems.add("is cut: the blocks that end a tar file are missing", path, COPY_AGAIN)
        return []
    samples = []
    for key, together in groupby(members, key=lambda member: member.key):
        sample = _read_sample(f"{path} {key}", key, list(together), label_field, group, problems)
        if sample is not None:
            samples.append(sample)
    if not samples and not members:
        problems.add("holds no files", path, "remove it")
    return samples


def _list_members(path: Path) -> tuple[list[_Member], int]:
    """Return the files, and the first byte behind the last one: of zeros, or of a header that tarfile takes for the end."""
    found = []
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            folder, _, name = info.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if not info.isfile() or not stem:
                continue
            if info.issparse():
                raise tarfile.ReadError(f"{info.name} is stored with holes; pack it without --sparse")
            extension = extension.lower()
            opened = tar.extractfile(info) if extension in {CLASS, FIELDS} else None
            content = b"" if opened is None else opened.read(MAX_TEXT_BYTES + 1)
            key = f"{folder}/{stem}" if folder else stem
            found.append(_Member(key, extension, info.offset_data, info.size, content))
        return found, tar.offset


def _has_only_zeros(path: Path, start: int) -> bool:
    """Return whether a file consists of zeros from `start` on. Behind a whole tar file, these are a few blocks."""
    with path.open("rb") as file:
        file.seek(start)
        return not any(any(part) for part in iter(partial(file.read, tarfile.RECORDSIZE), b""))


def _explain(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            is_compressed = file.read(2) == b"\x1f\x8b"
    except OSError:
        is_compressed = False
    if is_compressed:
        return "compressed; unpack it with gunzip, since single images cannot be read from it"
    return first_line(error)


def _has_end(path: Path) -> bool:
    """Return whether the file ends with the two blocks of zeros without which tarfile takes a cut file for a whole one."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < END_BYTES:
            return False
        file.seek(-END_BYTES, os.SEEK_END)
        return not any(file.read())


def _read_sample(
    where: str, key: str, members: list[_Member], label_field: str, group: str | None, problems: ProblemList
) -> TarSample | None:
    images = [member for member in members if member.extension in IMAGE_EXTENSIONS]
    texts = {member.extension: member.content for member in members if member.extension in {CLASS, FIELDS}}
    if not images:
        return None  # Not every sample of a mixed set is an image.
    if len(images) > 1:
        problems.add("has several images", f"{where} ({', '.join(m.extension for m in images)})", "keep one of them")
        return None
    if any(len(text) > MAX_TEXT_BYTES for text in texts.values()):
        problems.add(f"has a .cls or .json of over {MAX_TEXT_BYTES:,} bytes", where, "keep what says the class")
        return None
    fields: Any = {}
    if FIELDS in texts:
        try:
            fields = json.loads(texts[FIELDS])
        except (ValueError, RecursionError):
            fields = None
    if not isinstance(fields, dict):
        problems.add("has a .json that cannot be read, or that holds no fields", where, "correct it")
        return None
    text = texts[CLASS].decode(errors="replace").strip() if CLASS in texts else None
    label = fields.get(label_field) if text is None else text
    if text is not None and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        label = int(text)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        rule = f"has no label: no .cls, and no text or whole number under {label_field!r} in a .json"
        problems.add(rule, where, "add one, or set data.options.label_field")
        return None
    belongs = "" if group is None else fields.get(group, "")
    if group is not None and (belongs == "" or not isinstance(belongs, int | str)):
        problems.add(f"has no text or whole number under {group!r}, the data.group, in a .json", where, "add it")
        return None
    return TarSample(
        key=key,
        offset=images[0].offset,
        size=images[0].size,
        label=label,
        text=str(label) if text is None else text,
        group=str(belongs),
    )

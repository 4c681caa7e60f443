"""Data sets that torchvision downloads: their archives, and advice for machines without network access."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from search_spaces.errors import UserInputError

DEFAULT_ROOT = "data"
TIMEOUT_SECONDS = 15.0
NETWORK_ERRORS = (OSError, http.client.HTTPException)

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The published files of one data set.

    Attributes:
        title: Name in messages.
        urls: URLs of the files.
        folder: Folder of the files.
    """

    title: str
    urls: tuple[str, ...]
    folder: Path

    @property
    def advice(self) -> str:
        """Advice on fetching the files by hand."""
        names = ", ".join(url.rsplit("/", 1)[-1] for url in self.urls)
        base = self.urls[0].rsplit("/", 1)[0]
        return f"fetch {names} from {base}/ and put {'it' if len(self.urls) == 1 else 'them'} into {self.folder}"


def check_reachable(archive: Archive) -> None:
    """Check that the archive's server answers, since torchvision has no time-out and leaves empty folders behind.

    Raises:
        UserInputError: With advice, if the server does not answer.
    """
    request = urllib.request.Request(archive.urls[0], method="HEAD", headers={"User-Agent": "abstudy"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            pass
    except NETWORK_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        raise UserInputError(
            f"{archive.title} is missing and cannot be downloaded ({_one_line(reason)}); {archive.advice}"
        ) from None


def load_published(archive: Archive, load: Callable[[], Loaded], malformed: tuple[type[Exception], ...] = ()) -> Loaded:
    """Return the result of `load`.

    Args:
        archive: Archive to name in the error.
        load: Calls torchvision, which checks the files' MD5, unpacks archives and downloads missing files.
        malformed: Further errors that `load` raises for damaged files.

    Raises:
        UserInputError: If files are damaged and cannot be downloaded again. (torchvision raises RuntimeError for a wrong
            MD5 and OSError for the network.)
    """
    expected: tuple[type[Exception], ...] = (RuntimeError, *NETWORK_ERRORS, *malformed)
    try:
        return load()
    except expected as error:
        raise UserInputError(
            f"{archive.title} in {archive.folder} cannot be read ({_one_line(error)}); remove it, then {archive.advice}"
        ) from None


def _one_line(error: object) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__

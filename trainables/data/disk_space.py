"""Space on a disk, asked for before it is needed."""

import shutil
from pathlib import Path

from search_spaces.errors import UserInputError


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raise UserInputError unless the disk of `folder`, which is made, has room for `num_bytes` more.

    Args:
        folder: on this machine.
        num_bytes: how many.
        what: subject of the sentence "... needs 3.1 GB".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserInputError(f"{folder} cannot be used ({error.strerror}); set resources.image_folder") from None
    if num_bytes > free:
        raise UserInputError(
            f"{what} needs {num_bytes / 1e9:.1f} GB in {folder}, whose disk has {free / 1e9:.1f} GB left; set "
            "resources.image_folder to a folder with space"
        )

"""`study models`: the names that a backbone may have."""

from fnmatch import fnmatch

from search_spaces.errors import UserInputError, nearest_name
from search_spaces.extensions import list_entry_points
from trainables.models.catalog import ENTRY_POINTS, RESNETS, TIMM, TORCHVISION, list_timm, list_torchvision

LIBRARIES = ("torchvision", "timm", "own")


def list_model_names(library: str, pattern: str) -> list[str]:
    """Return the names of a library, or of all that are installed, that match a pattern.

    Args:
        library: "torchvision", "timm", "own" (entry points of installed packages), or "" for all.
        pattern: of shell-style wildcards, for the name without the prefix of its library.

    Raises:
        UserInputError: for an unknown library, or one that is not installed, and if no name matches.
    """
    if library and library not in LIBRARIES:
        raise UserInputError(
            f"there is no library {library!r}{nearest_name(library, LIBRARIES)}: {', '.join(LIBRARIES)}"
        )
    found: list[str] = []
    if library in {"", "torchvision"}:
        found += [*RESNETS, *(TORCHVISION + name for name in list_torchvision())]
    if library in {"", "own"}:
        found += list_entry_points(ENTRY_POINTS)
    if library == "timm":
        found += [TIMM + name for name in list_timm()]
    elif not library:
        try:
            found += [TIMM + name for name in list_timm()]
        except UserInputError:
            found.append("timm:NAME (not installed)")
    matching = [name for name in found if fnmatch(name.rpartition(":")[2], pattern)]
    if not matching:
        raise UserInputError(f'no name matches {pattern!r}; wildcards are * and ?, as in "convnext*"')
    return matching

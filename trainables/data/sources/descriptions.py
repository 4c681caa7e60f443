"""Descriptions of data sets: class names and named groups of classes (descriptions.toml)."""

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from search_spaces.errors import UserInputError, nearest_name

ClassGroups = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Description of one data set.

    Attributes:
        class_names: K names in the order of the labels.
        groups: Named groups of class names.
    """

    class_names: tuple[str, ...]
    groups: ClassGroups


@functools.cache
def load_descriptions() -> Mapping[str, Description]:
    """Return the shipped descriptions, by the name of the data set."""
    text = (resources.files("trainables.data.sources") / "descriptions.toml").read_text(encoding="utf-8")
    return {
        name: Description(
            class_names=tuple(entry["class_names"]),
            groups={group: tuple(members) for group, members in entry["groups"].items()},
        )
        for name, entry in tomllib.loads(text).items()
    }


def resolve_groups(class_groups: Mapping[str, Sequence[str]] | None, class_names: Sequence[str]) -> ClassGroups:
    """Return the user's groups, or by default those of the described data set with exactly these classes, in any order.

    Args:
        class_groups: The user's groups, or None.
        class_names: K names.

    Raises:
        UserInputError: If a group is empty or names a class that does not exist.
    """
    if class_groups is None:
        described = load_descriptions().values()
        return next((d.groups for d in described if sorted(d.class_names) == sorted(class_names)), {})
    for group, members in class_groups.items():
        if not members:
            raise UserInputError(f"the group {group!r} in data.options.class_groups is empty; remove it")
        for member in members:
            if member not in class_names:
                raise UserInputError(
                    f"the group {group!r} names the class {member!r}, which the images do not have"
                    f"{nearest_name(member, class_names)}"
                )
    return {group: tuple(members) for group, members in class_groups.items()}

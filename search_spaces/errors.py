"""`UserInputError`, which the command line turns into exit status 2, and the lists in its messages."""

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

# A list in a message has at most so many entries and about so many characters; a group of names in it so many names.
MAX_LISTED = 20
MAX_LIST_CHARACTERS = 1500
MAX_GROUPED = 4
Result = TypeVar("Result")


class UserInputError(ValueError):
    """The user's input cannot be used. The message states the rule, the value, its place and the next action."""


def refuse_any(problems: Collection[str], heading: str = "") -> None:
    """Raise UserInputError with the messages of all problems, if there are any: in one line, or below a heading."""
    if problems:
        listed = [heading, *(f"- {problem}".replace("\n", "\n  ") for problem in problems)]
        raise UserInputError("\n".join(listed) if heading else "; ".join(problems))


def attempt(problems: list[str], call: Callable[..., Result], *arguments: object, prefix: str = "") -> Result | None:
    """Return what the call returns; where it raises UserInputError, add its message to `problems`, after the prefix."""
    try:
        return call(*arguments)
    except UserInputError as error:
        problems.append(f"{prefix}{error}")
        return None


def list_some(
    names: Iterable[object], most: int = MAX_LISTED, separator: str = ", ", characters: int = MAX_LIST_CHARACTERS
) -> str:
    """Return ``a, b, and 3 more``: the first names, however many there are, and the number of the others.

    Args:
        names: Texts, or whatever `str` makes one of; a tuple is a group of equal things, ``a = b``, and is cut in the same way.
        most: Names that are listed.
        separator: Between two names.
        characters: Of all names that are listed, at most; the first one is always whole.
    """
    texts = [list_some(n, MAX_GROUPED, " = ", characters) if isinstance(n, tuple) else str(n) for n in names]
    shown = texts[:most]
    while len(shown) > 1 and sum(map(len, shown)) > characters:
        shown.pop()
    rest = len(texts) - len(shown)
    more = f"{separator.rstrip(' =')} and {rest} more" if rest else ""
    return separator.join(shown) + more


def count_noun(number: float, noun: str) -> str:
    """Return the number with its noun in singular or plural, such as "3 copies"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def first_line(error: object) -> str:
    """Return the first line of an error's text, or the name of its class where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_choice(rule: str, name: str, valid_names: Collection[str]) -> None:
    """Raise UserInputError, `rule` with the name and the nearest valid one, unless the name is valid.

    Args:
        rule: Such as "there is no optimizer".
        name: The user's.
        valid_names: Those that the name can be.
    """
    if name not in valid_names:
        raise UserInputError(f"{rule} {name!r}{nearest_name(name, valid_names)}")


def nearest_name(name: str, valid_names: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest valid name, or a list of valid names if none is near."""
    valid = [str(v) for v in valid_names]
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (valid: {list_some(valid)})"

"""Problems of a data set, collected, so that one message lists all of them."""

import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import MAX_LIST_CHARACTERS, UserInputError, list_some

# The lists of all problems in a message share about so many characters.
MAX_NAMES_CHARACTERS = 2000


class DataProblemsError(UserInputError):
    """A data set cannot be used; the message lists everything that is wrong with it.

    Attributes:
        problems: the same, with all names.
    """

    def __init__(self, message: str, problems: "Sequence[Problem]") -> None:
        """Keep the problems beside the message."""
        super().__init__(message)
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem, and everything that has it.

    Attributes:
        rule: what is wrong, such as "files that do not exist".
        names: files, rows, classes or folders that have it, or groups of such names; empty where the rule says all.
        advice: the next action; "" where the rule says it.
        is_counted: whether a message leaves the names to the file of all names, because the rule has their number.
    """

    rule: str
    names: tuple[str | tuple[str, ...], ...]
    advice: str
    is_counted: bool = False

    def __str__(self) -> str:
        """Return the rule, some of the names, and the advice."""
        return self.describe(MAX_LIST_CHARACTERS)

    def describe(self, characters: int) -> str:
        """Return the rule, names of about so many characters, and the advice."""
        shown = "" if self.is_counted else list_some(self.names, characters=characters)
        names = f": {shown}" if shown else ""
        return f"{self.rule}{names}{self.advice and '; ' + self.advice}"

    @property
    def lines(self) -> list[str]:
        """All names, a group in one line."""
        return [" = ".join(name) if isinstance(name, tuple) else name for name in self.names]


def make_error(subject: str, problems: Sequence[Problem]) -> DataProblemsError:
    """Return one error that lists all problems; where names were left out, all of them are in a file that it names.

    The file is <last part of the subject>-problems-*.txt in the folder of temporary files.

    Args:
        subject: what has the problems, such as the folder.
        problems: at least one.
    """
    characters = min(MAX_LIST_CHARACTERS, MAX_NAMES_CHARACTERS // len(problems))
    where = write_cut_names(subject, problems, characters)
    texts = [problem.describe(characters) for problem in problems]
    if len(texts) == 1:
        return DataProblemsError(f"{subject}: {texts[0]}{where and '; ' + where}", problems)
    lines = [f"{subject} has {len(problems)} problems:", *(f"- {text}" for text in texts)]
    return DataProblemsError("\n".join([*lines, where] if where else lines), problems)


def write_cut_names(subject: str, problems: Sequence[Problem], characters: int = MAX_LIST_CHARACTERS) -> str:
    """Write all names to a file if some are left out of a message; return the clause that says where, or ""."""
    is_cut = any(p.is_counted or list_some(p.names, characters=characters) != ", ".join(p.lines) for p in problems)
    return _write_all(subject, problems) if is_cut else ""


class ProblemList:
    """Problems in the order in which they were found; one entry per rule and advice, with the names of all that have it."""

    def __init__(self) -> None:
        """Start without problems."""
        self._names: dict[tuple[str, str], list[str]] = {}

    def add(self, rule: str, name: object, advice: str) -> None:
        """Add a problem of one file."""
        self._names.setdefault((make_printable(rule), advice), []).append(make_printable(str(name)))

    def raise_any(self, subject: str) -> None:
        """Raise UserInputError with all problems, if there are any."""
        if self._names:
            problems = [Problem(rule, tuple(names), advice) for (rule, advice), names in self._names.items()]
            raise make_error(subject, problems)


def make_printable(text: str) -> str:
    """Return a name with what a terminal would execute, such as control characters, and bytes that are no text, as escapes."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def group_look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the names, sorted, in groups that differ only in case, in blanks around them or in their form of Unicode."""
    alike: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        parts = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower()).split("/")
        alike.setdefault("/".join(part.strip() for part in parts), []).append(name)
    return list(alike.values())


def _write_all(subject: str, problems: Iterable[Problem]) -> str:
    """Write every name to a file; return the clause that says where, or that it could not be written."""
    stem = re.sub(r"[^\w.-]", "_", Path(subject).name)[:60] or "data"
    try:
        handle, path = tempfile.mkstemp(prefix=f"{stem}-problems-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            for problem in problems:
                file.write(
                    "\n".join([f"{problem.rule}; {problem.advice}", *(f"  {line}" for line in problem.lines), ""])
                )
    except OSError as error:
        return f"the full list cannot be written ({error.strerror})"
    return f"the full list is in {path}"

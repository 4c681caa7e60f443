"""The log of `study gate`: a JSON line for each look, of which the comparisons of a project share a false discovery rate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from analysis.comparison.values import GateAnswer, ProjectPlace
from search_spaces.errors import UserInputError, first_line
from trainables.damaged_files import decoding


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLook:
    """A line of the log.

    Attributes:
        old: name of the old arm.
        new: name of the new arm.
        question: what was asked: "better", or "not worse by" the margin.
        images: digest of the test images and their labels.
        pairs: digest of the predictions of each pair of seeds.
        rate: the false discovery rate, the same in all lines.
        number: of the comparison, from 1; it has a line for each look at which its seeds or its answer are new.
        p_value: anytime-valid, of this look and the earlier ones.
        e_value: of the comparison.
        answer: at this look.
    """

    old: str
    new: str
    question: str
    images: str
    pairs: tuple[str, ...]
    rate: float
    number: int
    p_value: float
    e_value: float
    answer: GateAnswer


_LINE = TypeAdapter(LoggedLook)


@contextmanager
def hold_log(path: Path) -> Iterator[None]:
    """Hold the lock beside a log, so that no two looks take the same place; raise UserInputError if it cannot be made."""
    try:
        with FileLock(f"{path}.lock"):
            yield
    except OSError as error:
        raise UserInputError(f"--log {path} cannot be written: {first_line(error)}") from None


def read_log(path: Path, rate: float | None = None) -> list[LoggedLook]:
    """Return the looks of a log; none where there is no file yet.

    Args:
        path: of the log.
        rate: false discovery rate that it must have; None for any.

    Raises:
        UserInputError: for a file that cannot be read or holds anything else, and for another rate.
    """
    looks: list[LoggedLook] = []
    with decoding(f"--log {path}", OSError):
        lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        with decoding(f"--log {path}, line {len(looks) + 1} is not of `study gate`, or"):
            looks.append(_LINE.validate_json(line))
    if looks and rate not in (None, looks[0].rate):
        raise UserInputError(f"--rate {rate}: the log {path} has the rate {looks[0].rate}, which holds for all of it")
    return looks


def find_place(
    looks: Sequence[LoggedLook], rate: float, question: str, images: str, pairs: Sequence[str]
) -> ProjectPlace:
    """Return the place of a look in its project: that of the earlier looks at the same pairs of seeds, else the next one.

    Args:
        looks: of the log.
        rate: of the log.
        question: as in `LoggedLook`, like the values below.
        images: of this look.
        pairs: of this look.

    Raises:
        UserInputError: if pairs of seeds of an earlier look are missing.
    """
    same = [look.number for look in looks if look.question == question and set(look.pairs) & set(pairs)]
    number = same[-1] if same else max((look.number for look in looks), default=0) + 1
    own, before = ([look for look in looks if look.number == number], [look for look in looks if look.number < number])
    if missing := {pair for look in own for pair in look.pairs} - set(pairs):
        raise UserInputError(
            f"{len(missing)} pairs of seeds of an earlier look at comparison {number} of the log are missing or have changed; "
            "seeds may be added, but none may be left out"
        )
    num_found = len({look.number for look in before if look.answer is GateAnswer.YES})
    num_seen = len({look.number for look in before if look.images == images})
    smallest = min((look.p_value for look in own), default=1.0)
    return ProjectPlace(rate=rate, number=number, num_found=num_found, smallest_p=smallest, num_seen=num_seen)


def add_look(path: Path, looks: Sequence[LoggedLook], now: LoggedLook) -> None:
    """Append a look to a log, unless it is the last one of its comparison again."""
    last = [(set(look.pairs), look.answer) for look in looks if look.number == now.number][-1:]
    if last != [(set(now.pairs), now.answer)]:
        with path.open("ab") as file:
            file.write(_LINE.dump_json(now) + b"\n")

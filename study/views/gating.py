"""`study gate`: whether a change is real, from studies, arms or files of predictions; and the log of a project. Needs no Ray."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from pydantic import TypeAdapter
from rich.console import Console

from analysis.comparison.gate import FIRST_LOOK, HALF_OF_LOOKS, compute_e_values, judge_look
from analysis.comparison.tables import ONE_SEED, build_table_rows
from analysis.comparison.values import GateAnswer, GateLook, ProjectPlace, Question, Verdict
from analysis.external.outside_predictions import read_predictions_files
from analysis.formats.numbers import escape_markdown, format_pp
from analysis.statistics.arm_predictions import ArmPredictions, check_same_images, stack_predictions
from analysis.statistics.interval import ALPHA, MARGIN
from search_spaces.errors import UserInputError, attempt, check_choice, first_line, list_some, refuse_any
from study.open_study import load_study, read_passport
from study.state.paths import SPEC, open_study
from study.views.printing import print_line
from trainables.damaged_files import decoding

RATE = 0.1
SUFFIXES = (".npz", ".parquet", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """The options of `study gate`.

    Attributes:
        old: a study, STUDY:ARM, a file of predictions, FILE:ARM, or a folder of such files.
        new: the same.
        not_worse: ask whether NEW is not worse, instead of whether it is better.
        margin: in macro-F1, a fraction; None for that of the plan of a study NEW, else `MARGIN`.
        alpha: error rate of a yes, and of a no; None for `ALPHA`.
        log: file of the project's comparisons; None for a comparison that stands alone.
        rate: false discovery rate of the log; None for that which it has, else `RATE`.
    """

    old: str
    new: str
    not_worse: bool = False
    margin: float | None = None
    alpha: float | None = None
    log: Path | None = None
    rate: float | None = None


class _Side(NamedTuple):
    """One side of a gate: its predictions, what names its images beside their ids, and the margin of its plan."""

    arm: ArmPredictions
    images: str | tuple[str, ...]
    margin: float | None = None


def judge_sides(options: GateOptions) -> tuple[GateLook, list[str]]:
    """Return whether a change is real, with what is to be said of the answer, and note the look in the log if there is one.

    Args:
        options: of the command.

    Raises:
        UserInputError: listing everything that is wrong with the options, the two sides and the log.
    """
    problems = _list_option_problems(options)
    sides = attempt(problems, _read_sides, (options.old, options.new), problems)
    if options.log is not None:
        attempt(problems, read_log, options.log, options.rate)
    refuse_any(problems, "this gate cannot answer:" if len(problems) > 1 else "")
    assert sides is not None
    return _judge(*sides, options)


def _list_option_problems(options: GateOptions) -> list[str]:
    limits = (("margin", options.margin, 1.0), ("alpha", options.alpha, 0.5), ("rate", options.rate, 1.0))
    problems = [
        f"--{name}: `0 < {name} < {most:g}` must hold, but got {value}"
        for name, value, most in limits
        if value is not None and not 0.0 < value < most
    ]
    is_unused = options.rate is not None and options.log is None
    return [*problems, "--rate is that of a log; add --log FILE, or remove it"] if is_unused else problems


def _read_sides(texts: tuple[str, str], problems: list[str]) -> tuple[_Side, _Side] | None:
    """Return OLD and NEW; files are read together, so that their images and classes have one order.

    What cannot be read is added to the problems, and None is returned.

    Raises:
        UserInputError: for classes without an image, for one arm twice, and for other images, labels or classes.
    """
    places = {text: _split(text) for text in texts}
    given = [(path, (text, arm)) for text, (place, arm) in places.items() for path in _list_files(place)]
    paths, named = [path for path, _ in given], [side for _, side in given]
    found = attempt(problems, partial(read_predictions_files, sides=named), paths) if given else None
    unread = {text for text, _ in named} if found is None else set()
    if found and found.absent_classes:
        raise UserInputError(f"macro-F1 needs images of every class, but has none of {list_some(found.absent_classes)}")
    arms, names = (found.arms, found.image_names or "") if found else ({}, "")
    sides = {text: _Side(stack_predictions(text, by_seed), names) for text, by_seed in arms.items()}
    for text in [text for text in places if text not in sides and text not in unread]:
        if (side := attempt(problems, _read_arm, *places[text])) is not None:
            sides[text] = side
    if len(sides) < len(places):
        return None
    old, new = (sides[text] for text in texts)
    if old.arm.name == new.arm.name:
        raise UserInputError(f"OLD and NEW are both {new.arm.name!r}; a gate compares two arms")
    if old.images and new.images and old.images != new.images:
        raise UserInputError("OLD and NEW need the same test images, but are of other data sets")
    check_same_images(old.arm, new.arm)
    return old, new


def _split(text: str) -> tuple[str, str | None]:
    """Return the place and the arm of "PLACE:ARM"; what has slashes after its last colon is a URI or a path."""
    place, _, arm = text.rpartition(":")
    return (text, None) if not place or "/" in arm or Path(text).exists() else (place, arm)


def _list_files(place: str) -> list[Path]:
    """Return the files of predictions at a place; none where it is a study."""
    path = Path(place)
    if path.is_dir() and not (path / SPEC).exists():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    return [path] if path.is_file() or path.suffix.lower() in SUFFIXES else []


def _read_arm(place: str, arm: str | None) -> _Side:
    """Return an arm of a study with its test predictions; None for the arm with the highest score on the confirm split."""
    # They import torch, which files of predictions do not need.
    from study.confirmation.evidence import load_evidence, require_plan
    from study.results.comparison import choose_handed_arm

    study = load_study(open_study(place))
    plan = require_plan(study)
    evidence, name = load_evidence(study, plan), choose_handed_arm(study, plan).arm if arm is None else arm
    check_choice(f"the study {study.name!r} has no arm", name, evidence)
    found = stack_predictions(f"{place}:{name}", evidence[name].by_seed)
    return _Side(found, read_passport(study.store)["data"]["fingerprint"], plan.margin)


def _judge(old: _Side, new: _Side, options: GateOptions) -> tuple[GateLook, list[str]]:
    pair = _pair(old.arm, new.arm)
    margin, alpha = options.margin or new.margin or MARGIN, options.alpha or ALPHA
    judge = partial(judge_look, pair[1], pair[0], not_worse=options.not_worse, margin=margin, alpha=alpha)
    num_left = len(old.arm.seeds) + len(new.arm.seeds) - 2 * len(pair[0].seeds)
    notes = [f"Seeds without a partner on the other side, which are left out: {num_left}."] if num_left else []
    if options.log is None:
        look = judge()
        return look, [*_list_notes(look), *notes]
    with hold_log(options.log):
        looks = read_log(options.log, options.rate)
        images, pairs = _digest_images(old, pair)
        asked = f"not worse by {margin:g}" if options.not_worse else "better"
        place = find_place(looks, options.rate or (looks[0].rate if looks else RATE), asked, images, pairs)
        look = judge(place=place)
        named = {"old": old.arm.name, "new": new.arm.name, "question": asked, "images": images, "pairs": tuple(pairs)}
        values = {"rate": place.rate, "number": place.number, "p_value": look.p_value, "answer": look.answer}
        now = LoggedLook(**named, **values, e_value=compute_e_values(place, look.p_value)[0])  # type: ignore[arg-type]
        add_look(options.log, looks, now)
    return look, [*_list_notes(look), *notes]


def _digest_images(old: _Side, pair: Sequence[ArmPredictions]) -> tuple[str, list[str]]:
    """Return digests of the images with their labels, and of each pair of seeds; the order of the images makes no difference."""
    is_named = isinstance(old.images, tuple)
    names = old.images if is_named else old.arm.sample_ids.tolist()
    order = sorted(range(len(names)), key=names.__getitem__)
    labels, predicted = old.arm.labels[order].tolist(), [arm.predicted[:, order] for arm in pair]
    images = _digest("" if is_named else old.images, [names[i] for i in order], labels)
    return images, [_digest(images, *map(bytes, both)) for both in zip(*predicted, strict=True)]


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _pair(old: ArmPredictions, new: ArmPredictions) -> list[ArmPredictions]:
    """Return both sides with the seeds that they share; where they share none, as many as both have, in their order."""
    shared, count = sorted(set(old.seeds) & set(new.seeds)), min(len(old.seeds), len(new.seeds))
    rows = [[arm.seeds.index(seed) for seed in shared or arm.seeds[:count]] for arm in (old, new)]
    seeds = tuple(shared or old.seeds[:count])
    return [replace(arm, seeds=seeds, predicted=arm.predicted[own]) for arm, own in zip((old, new), rows, strict=True)]


def print_gate(look: GateLook, notes: Sequence[str], console: Console, *, markdown: bool, as_json: bool) -> None:
    """Print the answer as lines, Markdown or JSON; Markdown is also appended to the summary of a step of GitHub Actions."""
    lines = [*describe_look(look), *notes]
    text = "\n".join([f"{look.answer.upper()}: {lines[0]}", *lines[1:]])
    if markdown:
        text = f"### study gate: {look.answer}\n\n" + "".join(f"- {escape_markdown(line)}\n" for line in lines)
    print_line(json.dumps({**asdict(look), "notes": notes}, indent=1) if as_json else text, console)
    if markdown and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def describe_look(look: GateLook) -> tuple[str, str]:
    """Return the answer as a sentence, and the difference with its interval and verdict."""
    row = build_table_rows([look.row], winner_first=False)[0]
    values = f"{row.effect} {row.interval} at {row.confidence} | {row.verdict} | {row.seeds}"
    return _describe_answer(look), f"{values} | {look.row.num_images:,} test images | {row.comparison}"


def _describe_answer(look: GateLook) -> str:
    new, old, margin = look.row.treatment, look.row.control, format_pp(look.row.margin)
    yes = f"{new} is not worse than {old} by {margin} or more" if look.not_worse else f"{new} is better than {old}"
    no = f"{new} is worse than {old}{f' by more than {margin}' if look.not_worse else ''}"
    no = f"{new} and {old} differ by less than {margin}" if look.row.verdict is Verdict.EQUIVALENT else no
    unknown = f"it is not known whether {yes}; {look.settles}"
    return f"{ {GateAnswer.YES: yes, GateAnswer.NO: no}.get(look.answer, unknown) }."


def _list_notes(look: GateLook) -> list[str]:
    """Return how often the answer is wrong, and what it covers."""
    first, place = HALF_OF_LOOKS - FIRST_LOOK, look.place
    notes = [
        f"A yes is wrong with a probability of at most {100 * look.alpha:g} %, and so is a no, whenever you look and "
        f"stop: the look at S pairs of seeds has {HALF_OF_LOOKS} / ((S + {first}) (S + {first + 1})) of it, S >= {FIRST_LOOK}."
    ]
    notes += [ONE_SEED] if look.row.question is Question.MODELS else []
    claim = "The claim covers fresh seeds, and new images if these have chosen nothing"
    if place is None:
        return [*notes, f"{claim}; --log FILE counts the comparisons that used them."]
    (e_value, needed), rate = compute_e_values(place, look.p_value), f"{100 * place.rate:g} %"
    seen = f". They are seen: earlier comparisons of the log that used them: {place.num_seen}" if place.num_seen else ""
    alone = "; alone, it would be a yes" if look.p_value <= look.alpha and look.answer is not GateAnswer.YES else ""
    return [
        *notes,
        f"Comparison {place.number} of the log, with {place.num_found} yes before it: e-value {e_value:,.1f}, a yes needs "
        f"{needed:,.1f}{alone}. Of all yes in the log, an expected share of at most {rate} is false (e-LOND).",
        f"{claim}{seen}.",
    ]


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

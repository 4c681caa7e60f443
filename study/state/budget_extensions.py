"""Extending a study: a larger budget is written to a file of its own, because spec.toml is never rewritten."""

import re
import tomllib
from dataclasses import dataclass
from typing import Literal

from search_spaces.errors import UserInputError
from search_spaces.format import check_format
from study.spec.reading import parse_spec, with_overrides
from study.spec.study_spec import StudySpec
from study.state.paths import EXTENSIONS, SPEC
from study.state.record_book import now_utc
from study.state.sealed_files import add_sealed_json, read_sealed_folder, read_sealed_toml
from trainables.storage.store import Store

BudgetKind = Literal["num_trials", "device_seconds"]
KINDS: tuple[BudgetKind, ...] = ("num_trials", "device_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A larger budget: the new total number of trials, or of device-seconds."""

    kind: BudgetKind
    total: float


def launched_spec(store: Store) -> StudySpec:
    """Return the spec of the launch; raise UserInputError naming spec.toml if it cannot be used, or has another format."""
    text, where = read_sealed_toml(store, SPEC), store.locate(SPEC)
    check_format(tomllib.loads(text).get("format"), where)
    return parse_spec(text, where)


def extended_spec(store: Store, spec: StudySpec) -> StudySpec:
    """Return the spec with the budget of the last extension; `spec` itself if there is none."""
    return list(specs_over_time(store, spec).values())[-1]


def specs_over_time(store: Store, spec: StudySpec) -> dict[int, StudySpec]:
    """Return number of trials -> the spec that applied from then on: `spec` at 0, then one per extension."""
    specs = {0: spec}
    for name, extension in read_sealed_folder(store, EXTENSIONS).items():
        (kind,) = set(KINDS) & set(extension)
        total = int(extension[kind]) if kind == "num_trials" else float(extension[kind])
        specs[int(extension["after_trials"])] = with_overrides(spec, [f"search.{kind}={total}"], name)
    return specs


def parse_extension(num_trials: str | None, device_seconds: str | None, spec: StudySpec) -> Extension | None:
    """Return the extension that ``--num-trials`` or ``--device-seconds`` asks for.

    Args:
        num_trials: a total such as ``40``, or an increase such as ``+8``; None if it is not given.
        device_seconds: the same in device-seconds.
        spec: the study's spec, with the budget of the last extension.

    Returns:
        The extension; None if neither is given.

    Raises:
        UserInputError: if the total does not exceed the budget, or the study's budget is of the other kind.
    """
    given: dict[BudgetKind, str | None] = {"num_trials": num_trials, "device_seconds": device_seconds}
    asked = [(kind, text) for kind, text in given.items() if text is not None]
    if not asked:
        return None
    if spec.has_given_arms:
        raise UserInputError(
            "the study compares given configurations, each trained once before the confirmation; there is no search to extend"
        )
    kind, text = asked[0]
    option = f"--{kind.replace('_', '-')}"
    current = getattr(spec.search, kind)
    if current is None or len(asked) > 1:
        own = "num_trials" if spec.search.num_trials is not None else "device_seconds"
        raise UserInputError(
            f"the study's budget is search.{own} = {getattr(spec.search, own):g}; extend it with --{own.replace('_', '-')}"
        )
    number = r"\+?[0-9]{1,9}" if kind == "num_trials" else r"\+?[0-9]{1,12}(\.[0-9]{1,6})?"
    if not re.fullmatch(number, text):
        raise UserInputError(f"{option} takes a total such as 40, or an increase such as +8, but got {text!r}")
    total = current + float(text) if text.startswith("+") else float(text)
    if total <= current:
        raise UserInputError(f"{option} must exceed the study's {current:g}, but got {total:g}")
    return Extension(kind=kind, total=total)


def write_extension(store: Store, extension: Extension, num_trials: int) -> None:
    """Write a larger budget, which applies after the search has started `num_trials` trials."""
    total = int(extension.total) if extension.kind == "num_trials" else extension.total
    add_sealed_json(store, EXTENSIONS, {extension.kind: total, "after_trials": num_trials, "time": now_utc()})

"""Growing a study: further trials are asked for in a file of their own, since spec.toml is never rewritten."""

import json
import re
from typing import Any

from search_spaces.errors import UserInputError
from study.paths import EXTENSIONS
from study.records import now_utc
from study.spec import StudySpec, with_overrides
from trainables.record import DamagedFileError
from trainables.store import Store


def extended_spec(store: Store, spec: StudySpec) -> StudySpec:
    """Return the spec with the number of trials that the last extension asks for; unchanged without one."""
    names = store.list_folder(EXTENSIONS)
    if not names:
        return spec
    name = f"{EXTENSIONS}/{names[-1]}"
    try:
        extension: dict[str, Any] = json.loads(store.read_text(name))
        num_trials = int(extension["num_trials"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(f"{store.root}/{name} is damaged: {error}") from None
    return with_overrides(spec, [f"search.num_trials={num_trials}"], name)


def parse_num_trials(text: str, spec: StudySpec) -> int:
    """Return the total that ``40`` or ``+8`` asks for; raise UserInputError if it is no growth."""
    if not re.fullmatch(r"\+?[0-9]{1,9}", text):
        raise UserInputError(f"--num-trials takes a total such as 40, or a growth such as +8, but got {text!r}")
    current = spec.search.num_trials
    total = current + int(text) if text.startswith("+") else int(text)
    if total <= current:
        raise UserInputError(f"--num-trials must exceed the study's {current} trials, but asks for {total}")
    return total


def write_extension(store: Store, num_trials: int) -> None:
    """Ask for `num_trials` trials in total."""
    number = len(store.list_folder(EXTENSIONS)) + 1
    text = json.dumps({"num_trials": num_trials, "time": now_utc()}, indent=1) + "\n"
    store.write_text(f"{EXTENSIONS}/{number:04d}.json", text)

"""The rounds of interventions of a study: the studies beside it that are named `<study>-intervene-<round>`."""

import re

from search_spaces.errors import UserInputError
from study.open_study import OpenStudy, load_study
from study.state.paths import SPEC
from trainables.records.store import Store, join_uri

LONGEST_NAME = 64


def list_rounds(study: OpenStudy) -> tuple[Store, ...]:
    """Return the rounds of a study, or of the study that a round belongs to, by number; those that were launched."""
    beside, stem = _find_place(study)
    pattern = re.compile(re.escape(stem) + r"-intervene-(\d+)")
    found = {}
    for name in Store(beside).list_folder():
        match = pattern.fullmatch(name)
        if match and (store := Store(join_uri(beside, name))).exists(SPEC):
            found[int(match[1])] = store
    return tuple(found[number] for number in sorted(found))


def next_round(study: OpenStudy) -> tuple[int, Store]:
    """Return the number and the store of the next round.

    Raises:
        UserInputError: if the name of the study leaves no room for that of the round.
    """
    beside, stem = _find_place(study)
    numbers = [load_study(store).spec.intervene for store in list_rounds(study)]
    number = 1 + max((section.round for section in numbers if section is not None), default=0)
    name = f"{stem}-intervene-{number}"
    if len(name) > LONGEST_NAME:
        raise UserInputError(
            f"the round would be named {name!r}, which is longer than {LONGEST_NAME} characters; launch the study under a "
            "shorter --name"
        )
    return number, Store(join_uri(beside, name))


def _find_place(study: OpenStudy) -> tuple[str, str]:
    """Return the folder of the study and its name; those of its parent's for a round."""
    root = study.store.root
    beside, _, folder = root.rpartition("/")
    stem = folder if study.spec.intervene is None else re.sub(r"-intervene-\d+$", "", folder)
    return beside or ".", stem

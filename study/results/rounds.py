"""The rounds of interventions of a study: the studies beside it that are named `<study>-intervene-<round>`."""

import re
from collections.abc import Mapping

from analysis.interventions.values import InterventionFindings
from search_spaces.errors import UserInputError
from study.open_study import OpenStudy, load_study
from study.results.findings import load_findings
from study.state.paths import FINDINGS, find_rounds
from trainables.storage.store import Store, join_uri, split_uri

LONGEST_NAME = 64


def list_rounds(study: OpenStudy) -> tuple[Store, ...]:
    """Return the rounds of a study, or of the study that a round belongs to, by number; those that were launched."""
    return find_rounds(*_find_place(study))


def find_parent(study: OpenStudy) -> Store | None:
    """Return the analyzed study beside a round that asked for it; None if there is none."""
    parent = Store(join_uri(*_find_place(study)))
    return parent if parent.exists(FINDINGS) else None


def load_rounds(study: OpenStudy) -> Mapping[str, InterventionFindings]:
    """Return what the finished rounds of a study did, by their names; nothing for a study that is a round itself."""
    if study.spec.intervene is not None:
        return {}
    rounds = [load_study(store) for store in list_rounds(study) if store.exists(FINDINGS)]
    found = {one.spec.name: load_findings(one).interventions for one in rounds}
    return {name: done for name, done in found.items() if done is not None}


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
    beside, folder = split_uri(study.store.root)
    return beside, folder if study.spec.intervene is None else re.sub(r"-intervene-\d+$", "", folder)

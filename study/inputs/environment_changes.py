"""Continuing a study with other code or package versions: refused by default; if allowed, recorded permanently."""

from collections.abc import Sequence
from typing import Any

from search_spaces.errors import UserInputError, list_some
from study.inputs.provenance import describe_code, describe_platform, list_differences, package_versions
from study.state.checksums import read_sealed_json, write_sealed_json
from study.state.paths import CHANGES
from study.state.record_book import now_utc
from trainables.storage.store import Store

MAX_NAMED = 4

# Packages in whose arithmetic a Gaussian process is fitted.
ARITHMETIC = ("numpy", "optuna", "scipy", "torch")


def find_changes(passport: dict[str, Any]) -> tuple[str, ...]:
    """Return one line per difference in code, package versions and Python between the passport and this process.

    The packages are those that the passport names.
    """
    then = {"code": passport["code"], "versions": passport["versions"], "python": passport["platform"]["python"]}
    versions = package_versions(passport["versions"])
    now = {"code": describe_code(), "versions": versions, "python": describe_platform()["python"]}
    return list_differences(then, now)


def list_arithmetic_changes(passport: dict[str, Any]) -> tuple[str, ...]:
    """Return one line per difference from the launch, in the processor and `ARITHMETIC`, that may change a suggestion."""
    then, now = (
        {name: versions[name] for name in ARITHMETIC} for versions in (passport["versions"], package_versions())
    )
    before, here = passport["platform"]["processor"], describe_platform()["processor"]
    return list_differences({"versions": then, "processor": before}, {"versions": now, "processor": here})


def check_unchanged(store: Store, passport: dict[str, Any], *, allow_changed: bool, num_trials: int) -> tuple[str, ...]:
    """Return the differences since the study was launched or last continued, and record them in the study.

    Args:
        store: the study's root.
        passport: the study's passport.
        allow_changed: whether differences are allowed.
        num_trials: number of trials that the search has started, recorded with the differences.

    Returns:
        One line per difference.

    Raises:
        UserInputError: if there are differences that are neither allowed nor recorded.
    """
    changes = find_changes(passport)
    noted = read_changes(store)
    if not changes or (noted and tuple(noted[-1]["changes"]) == changes):
        return changes
    if not allow_changed:
        named = list_some(changes, MAX_NAMED, "; ")
        raise UserInputError(
            f"the study was launched with other code or versions: {named}. "
            "Restore them, or continue with --allow-changed; the report will state the changes"
        )
    note = {"time": now_utc(), "after_trials": num_trials, "changes": list(changes)}
    write_sealed_json(store, f"{CHANGES}/{len(noted) + 1:04d}.json", note)
    return changes


def read_changes(store: Store) -> tuple[dict[str, Any], ...]:
    """Return the recorded changes, oldest first: `changes`, one line each, and `after_trials`."""
    notes = [read_sealed_json(store, f"{CHANGES}/{file}") for file in store.list_folder(CHANGES)]
    return tuple({"changes": list(n["changes"]), "after_trials": int(n["after_trials"])} for n in notes)


def describe_changed_versions(notes: Sequence[dict[str, Any]]) -> list[str]:
    """Return one sentence for the report per record of `read_changes`."""
    return [
        f"From trial {note['after_trials']} of the search on, the study ran with other code or versions: "
        f"{'; '.join(note['changes'])}."
        for note in notes
    ]

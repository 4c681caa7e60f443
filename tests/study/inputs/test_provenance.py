"""Continuing a study with other code or versions: refused by default; if allowed, recorded permanently."""

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from search_spaces.errors import UserInputError
from study.inputs import provenance
from trainables.damaged_files import DamagedFileError
from trainables.storage.store import Store


def make_passport(**versions: str) -> dict[str, Any]:
    return {
        "code": provenance.describe_code(),
        "versions": {name: metadata.version(name) for name in provenance.PACKAGES} | versions,
        "platform": provenance.describe_platform(),
    }


def test_without_changes_nothing_is_recorded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    provenance.check_unchanged(store, make_passport(), allow_changed=False, num_trials=3)
    assert provenance.read_changes(store) == ()


def test_other_version_is_refused_by_name_with_a_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    now = metadata.version("optuna")
    with pytest.raises(UserInputError, match=rf'versions.optuna: "1.0" -> "{now}".*--allow-changed'):
        provenance.check_unchanged(store, make_passport(optuna="1.0"), allow_changed=False, num_trials=3)
    assert store.list_folder() == ()


def test_allowed_change_is_recorded_once_and_stated_in_the_report(tmp_path: Path) -> None:
    store = Store(tmp_path)
    passport = make_passport(optuna="1.0")
    for num_trials in (3, 5):
        provenance.check_unchanged(store, passport, allow_changed=True, num_trials=num_trials)
    # Once allowed, the same change is accepted without the option.
    provenance.check_unchanged(store, passport, allow_changed=False, num_trials=7)
    (note,) = provenance.read_changes(store)
    assert note == {"changes": list(provenance.find_changes(passport)), "after_trials": 3}
    (sentence,) = provenance.describe_changed_versions(provenance.read_changes(store))
    assert sentence.startswith(
        "From trial 3 of the search on, the study ran with other code or versions: versions.optuna"
    )
    with pytest.raises(UserInputError, match=r"versions\.ray"):
        provenance.check_unchanged(store, make_passport(optuna="1.0", ray="1.0"), allow_changed=False, num_trials=9)


def test_the_packages_that_the_passport_names_are_compared() -> None:
    assert provenance.find_changes(make_passport()) == provenance.list_arithmetic_changes(make_passport()) == ()
    (line,) = provenance.find_changes(make_passport(timm="0.1"))
    assert line == f'versions.timm: "0.1" -> "{metadata.version("timm")}"'


def test_damaged_note_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_text("changes/0001.json", "{")
    with pytest.raises(DamagedFileError, match=r"changes/0001\.json is damaged"):
        provenance.read_changes(store)

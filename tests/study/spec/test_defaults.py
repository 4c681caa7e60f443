"""Defaults have a version: a study keeps those that it was launched with, whatever later versions change."""

from typing import Any

import pytest
from pydantic import BaseModel

from search_spaces.errors import UserInputError
from study.spec import defaults
from study.spec.reading import load_spec, parse_spec
from study.spec.study_spec import StudySpec

SMALL = 'name = "small"\n[data]\nsource = "planted"\n'
# Defaults that no table can hold: they are None or empty, which TOML cannot say or which is no choice.
EMPTY = (None, {}, ())


def flatten(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Return every leaf of a spec by its dotted key."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {f"{prefix}{name}": value}
    return found


def test_the_current_table_holds_every_default_of_the_sections() -> None:
    spec = StudySpec.model_validate({"name": "small", "data": {"source": "planted"}})
    given = {"name", "data.source", "defaults_version"}
    current = {k: v for k, v in flatten(spec).items() if k not in given and v not in EMPTY}
    assert current == defaults.DEFAULTS[defaults.CURRENT_VERSION]


def test_a_new_study_records_the_version_and_an_old_one_keeps_its_own(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**defaults.DEFAULTS[1], "train.batch_size": 64, "confirm.looks": [3, 6], "search.asha.first_rung": 2}
    monkeypatch.setattr(defaults, "DEFAULTS", {1: defaults.DEFAULTS[1], 2: changed})
    for module in ("study.spec.defaults", "study.spec.reading"):
        monkeypatch.setattr(f"{module}.CURRENT_VERSION", 2)
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    new, text = load_spec(str(file))
    assert (new.defaults_version, new.train.batch_size, new.confirm.looks, new.first_rung(new.arms()[0])) == (
        2,
        64,
        [3, 6],
        2,
    )
    assert parse_spec(text, "spec.toml") == new
    old = parse_spec(SMALL, "spec.toml")
    assert (old.defaults_version, old.train.batch_size, old.confirm.looks) == (1, 128, [5])
    asked, _ = load_spec(str(file), ["defaults_version=1"])
    assert asked == old


def test_the_head_of_a_study_of_the_first_version_stays_in_the_precision_of_its_backbone() -> None:
    assert parse_spec(SMALL, "spec.toml").train.head_precision == "as_backbone"
    assert parse_spec(f"defaults_version = 2\n{SMALL}", "spec.toml").train.head_precision == "fp32"


def test_a_budget_of_device_seconds_gets_no_default_number_of_trials() -> None:
    spec = parse_spec(SMALL + "[search]\ndevice_seconds = 60.0\n", "spec.toml")
    assert spec.search.num_trials is None


def test_a_version_that_is_not_known_is_refused() -> None:
    newest = defaults.CURRENT_VERSION
    with pytest.raises(
        UserInputError, match=rf"defaults_version must be in 1..{newest}, but got {newest + 1}; .* newer"
    ):
        parse_spec(f"defaults_version = {newest + 1}\n{SMALL}", "spec.toml")
    with pytest.raises(UserInputError, match="search"):
        parse_spec(f"search = 3\n{SMALL}", "spec.toml")

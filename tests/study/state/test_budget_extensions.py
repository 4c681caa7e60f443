"""Extending a study: the file of a larger budget, and the extensions that are refused."""

from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.stages import stage
from study.state.budget_extensions import Extension, extended_spec, parse_extension, write_extension
from tests.study.command_line import run_cli
from tests.study.searched import simulate
from tests.study.simulated import make_spec
from trainables.damaged_files import DamagedFileError
from trainables.storage.store import Store


def test_without_an_extension_the_spec_applies(tmp_path: Path) -> None:
    spec = make_spec(num_trials=24)
    assert extended_spec(Store(tmp_path), spec) is spec


def test_the_last_extension_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for total in (30, 38):
        write_extension(store, Extension(kind="num_trials", total=total), 24)
    assert extended_spec(store, make_spec(num_trials=24)).search.num_trials == 38
    assert len(store.list_folder("extensions")) == 2


def test_a_budget_of_device_seconds_is_extended(tmp_path: Path) -> None:
    store, spec = Store(tmp_path), make_spec(num_trials=None, device_seconds=100.0)
    extension = parse_extension(None, "+50.5", spec)
    assert extension == Extension(kind="device_seconds", total=150.5)
    write_extension(store, extension, 3)
    extended = extended_spec(store, spec).search
    assert (extended.device_seconds, extended.num_trials) == (150.5, None)


@pytest.mark.parametrize(("text", "total"), [("+8", 32), ("40", 40), ("25", 25)])
def test_a_total_or_an_increase_is_accepted(text: str, total: int) -> None:
    assert parse_extension(text, None, make_spec(num_trials=24)) == Extension(kind="num_trials", total=total)


def test_without_an_option_there_is_no_extension() -> None:
    assert parse_extension(None, None, make_spec(num_trials=24)) is None


@pytest.mark.parametrize("text", ["24", "8", "+0", "-3", "many", "", "+", "1e3"])
def test_a_value_that_is_no_increase_is_refused(text: str) -> None:
    with pytest.raises(UserInputError, match="--num-trials"):
        parse_extension(text, None, make_spec(num_trials=24))


def test_a_budget_is_extended_only_in_its_own_kind() -> None:
    with pytest.raises(UserInputError, match=r"search.num_trials = 24; extend it with --num-trials"):
        parse_extension(None, "+60", make_spec(num_trials=24))
    with pytest.raises(UserInputError, match=r"search.device_seconds = 90; extend it with --device-seconds"):
        parse_extension("+8", None, make_spec(num_trials=None, device_seconds=90.0))


def test_a_resume_that_is_refused_writes_no_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user would correct the address, repeat the command, and extend the search twice."""

    def refuse(_: object) -> None:
        raise UserInputError("there is no cluster")

    study = simulate(tmp_path / "study", num_trials=24)
    monkeypatch.setattr(stage.Session, "prepare", lambda _: None)
    monkeypatch.setattr(stage, "connect_cluster", refuse)
    outcome = run_cli("resume", study.store.root, "--num-trials", "+8", "--address", "nowhere:1")
    assert (outcome.status, "there is no cluster" in outcome.errors) == (2, True)
    assert study.store.list_folder("extensions") == ()


def test_damaged_extension_is_named(tmp_path: Path) -> None:
    Store(tmp_path).write_text("extensions/0001.json", "{")
    with pytest.raises(DamagedFileError, match=r"0001\.json"):
        extended_spec(Store(tmp_path), make_spec())

"""Growing a study: the file that asks for more trials, and what it refuses."""

from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.extension import extended_spec, parse_num_trials, write_extension
from tests.study.simulated import make_spec
from trainables.record import DamagedFileError
from trainables.store import Store


def test_without_an_extension_the_spec_stands(tmp_path: Path) -> None:
    spec = make_spec(num_trials=24)
    assert extended_spec(Store(tmp_path), spec) is spec


def test_the_last_extension_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for total in (30, 38):
        write_extension(store, total)
    assert extended_spec(store, make_spec(num_trials=24)).search.num_trials == 38
    assert len(store.list_folder("extensions")) == 2


@pytest.mark.parametrize(("text", "total"), [("+8", 32), ("40", 40), ("25", 25)])
def test_a_total_or_a_growth_is_understood(text: str, total: int) -> None:
    assert parse_num_trials(text, make_spec(num_trials=24)) == total


@pytest.mark.parametrize("text", ["24", "8", "+0", "-3", "many", "", "+", "1e3"])
def test_what_is_no_growth_is_refused(text: str) -> None:
    with pytest.raises(UserInputError, match="--num-trials"):
        parse_num_trials(text, make_spec(num_trials=24))


def test_damaged_extension_is_named(tmp_path: Path) -> None:
    Store(tmp_path).write_text("extensions/0001.json", "{")
    with pytest.raises(DamagedFileError, match=r"0001\.json"):
        extended_spec(Store(tmp_path), make_spec())

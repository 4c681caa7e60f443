"""The form of a study's files has one number, and a finished study of this format opens, reports, compares and replays."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search_spaces.format import FORMAT
from study.state.sealed_files import write_sealed_toml
from tests.golden import make_golden
from tests.golden.make_golden import FINISHED, FORMS, describe_forms, strip_words
from tests.study.command_line import run_cli
from tests.study.replaying import replay_study
from trainables.records.record import TrialRecord
from trainables.storage.store import Store


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FINISHED, tmp_path / "finished"))


def test_a_changed_form_has_another_format_number() -> None:
    kept, now = strip_words(json.loads(FORMS.read_text())), json.loads(json.dumps(describe_forms()))
    assert now == kept, (
        "the form of a file has changed: raise FORMAT in search_spaces/format.py (once for a release), "
        "then run `python -m tests.golden.make_golden`"
    )


def test_a_new_field_is_a_changed_form_and_a_new_default_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Added(TrialRecord):
        added: int = 0

    class Defaulted(TrialRecord):
        attempts: int = 2

    def describe(record: type[TrialRecord]) -> dict[str, Any]:
        monkeypatch.setattr(make_golden, "MODELS", (record,))
        (schema,) = describe_forms()["schemas"].values()
        return schema

    assert describe(Defaulted) == describe(TrialRecord) != describe(Added)


def test_a_finished_study_opens_reports_and_replays(finished: Path) -> None:
    status = json.loads(run_cli("status", finished, "--json").output)
    assert status["state"] == "confirmed", "its report is not stored"
    table = finished / "findings" / "comparison.csv"
    before = table.read_text()
    for command in ("compare", "report"):
        outcome = run_cli(command, finished)
        assert outcome.status == 0, outcome.errors
    assert table.read_text() == before
    assert replay_study(Store(finished), Console(quiet=True)), "a new sampler and scheduler decide as the records say"


def test_every_value_of_the_launch_stands_in_the_spec(finished: Path) -> None:
    text = (finished / "spec.toml").read_text()
    for key in ("format", "batch_size", "precision", "margin", "sampler", "first_rung", "keep_weights", "start"):
        assert re.search(rf"^{key} = ", text, re.MULTILINE), key
    record = json.loads((finished / "trials" / "00000" / "record.json").read_text())
    assert record["format"] == FORMAT
    assert {"batch_size", "momentum", "accumulate", "ring_swap_probability"} <= set(record["config"]["fixed"])


@pytest.mark.parametrize("number", [FORMAT + 1, None])
@pytest.mark.parametrize("command", ["status", "resume", "report", "compare", "export", "verdicts"])
def test_a_study_of_another_format_is_refused_in_one_line(finished: Path, command: str, number: int | None) -> None:
    spec = finished / "spec.toml"
    lines = [
        line for line in spec.read_text().splitlines(keepends=True) if not line.startswith(("format = ", "# checksum"))
    ]
    text = "".join(lines) if number is None else f"format = {number}\n{''.join(lines)}"
    write_sealed_toml(Store(finished), "spec.toml", text)
    outcome = run_cli(command, finished)
    assert outcome.status == 2
    assert outcome.errors.count("\n") == 1
    assert f"reads format {FORMAT}" in outcome.errors
    assert ("has no format number" if number is None else f"has format {number}") in outcome.errors

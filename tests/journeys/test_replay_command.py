"""`study replay` where a Gaussian process suggests other values than the recorded ones."""

from pathlib import Path

import pytest

from study.inputs.provenance import describe_platform, list_arithmetic_changes, package_versions
from study.views import replaying
from study.views.replaying import Replay
from tests.study.command_line import run_cli

GOLDEN = Path(__file__).parents[1] / "golden" / "finished"
OTHER = Replay(num_suggestions=3, num_reports=9, num_stops=3, num_other_values=2, first_other_values="trial 00005: ...")


@pytest.mark.parametrize(("processor", "status"), [("", 0), (describe_platform()["processor"], 1)])
def test_other_values_pass_on_another_machine_alone(
    monkeypatch: pytest.MonkeyPatch, processor: str, status: int
) -> None:
    monkeypatch.setattr(replaying, "replay_search", lambda *_, **__: OTHER)
    passport = {"versions": package_versions(), "platform": {**describe_platform(), "processor": processor}}
    monkeypatch.setattr(replaying, "read_passport", lambda _: passport)
    replayed = run_cli("replay", GOLDEN)
    assert replayed.status == status, replayed.output
    assert "of the Gaussian process with other values: 2" in replayed.output
    assert ("was resumed on another machine" in replayed.output) == bool(status)
    assert ('processor: "" ->' in replayed.output) == (not status)


def test_versions_and_processor_are_what_changes_arithmetic() -> None:
    passport = {
        "versions": {**package_versions(), "optuna": "0.1", "pandas": "0.1"},
        "platform": describe_platform(),
        "code": "another",
    }
    (line,) = list_arithmetic_changes(passport)
    assert line.startswith('versions.optuna: "0.1" ->')

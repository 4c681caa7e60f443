"""The command line loads only what a command needs, and refuses options that have no effect."""

import subprocess
import sys

import pytest

from tests.study.command_line import run_cli

NOT_FOR_STATUS = ("ray", "optuna", "matplotlib")
HEAVY = ("torch", "ray", "optuna", "sklearn", "pandas", "matplotlib", "scipy")


def find_loaded(module: str, names: tuple[str, ...]) -> str:
    """Return which of these packages a new process loads with the module."""
    program = f"import sys, {module}; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_command_line_loads_no_heavy_package_before_a_command_needs_it() -> None:
    assert find_loaded("study.cli", HEAVY) == "[]"


def test_where_a_study_stands_is_told_without_ray() -> None:
    assert find_loaded("study.views.status", NOT_FOR_STATUS) == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "compare demo --margin 0.005 --alpha 0.1 --control x --to y",
            "`study compare demo` does not use --control, --margin, --alpha, --to; remove them",
        ),
        ("compare demo --spec demo --name x --set seed=1", "does not use --spec, --name, --set; remove them"),
        ("compare ./demo --storage y", "`study compare ./demo` does not use --storage; remove it"),
        (
            "compare --arms a b --spec demo --allow-changed --to x",
            "`study compare --arms` does not use --allow-changed",
        ),
        (
            "compare --predictions y --spec a --name b --set c=1 --address d --storage e --allow-changed",
            "does not use --spec, --name, --set, --storage, --address, --allow-changed; remove them",
        ),
        ("analyze demo --class-names a,b --group a=b", "`study analyze STUDY` does not use --class-names, --group"),
        ("analyze --predictions y --storage z", "`study analyze --predictions` does not use --storage; remove it"),
        ("reproduce demo --trial 00003 --arm x", "`study reproduce --trial ID` does not use --arm; remove it"),
        ("status ./demo --storage y", "'./demo' is a path or a URI; remove --storage"),
        ("resume --storage y s3://bucket/demo", "'s3://bucket/demo' is a path or a URI; remove --storage"),
    ],
)
def test_options_without_effect_are_refused_in_one_message(arguments: str, message: str) -> None:
    outcome = run_cli(*arguments.split())
    assert outcome.status == 2, outcome
    assert message in outcome.errors


def test_an_address_in_the_environment_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert "missing.parquet" in run_cli("compare", "--predictions", "missing.parquet").errors


def test_importing_the_command_line_does_not_change_the_garbage_collector() -> None:
    program = "import gc; before = gc.get_threshold(); import study.cli; print(gc.get_threshold() == before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"

"""The command line loads only what a command needs, and refuses options that have no effect."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.text import Text

from study import cli
from study.state.paths import PASSPORT
from study.state.sealed_files import write_sealed_json
from tests.study.command_line import run_cli
from tests.study.searched import simulate

REPORTING = ("matplotlib", "plotly", "pytorch_grad_cam", "tensorboard")
HEAVY = ("torch", "torchvision", "ray", "optuna", "sklearn", "pandas", "scipy", "safetensors", *REPORTING)


def say_at_end(expression: str, *arguments: object) -> str:
    """Return what an expression is at the end of a new process that calls the command line."""
    program = f"""
import atexit, gc, sys
from study import cli
atexit.register(lambda: print({expression}))
sys.argv = ["study", *{list(map(str, arguments))}]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def find_loaded(*arguments: object) -> set[str]:
    """Return which heavy packages a new process imports for one call of the command line."""
    return set(say_at_end(f'"loaded", *(name for name in {HEAVY} if name in sys.modules)', *arguments).split()[1:])


@pytest.mark.parametrize("command", [["--help"], ["status", "--help"], ["status"], ["status", "--json"], ["list"]])
def test_status_list_and_help_import_no_heavy_package(tmp_path: Path, command: list[str]) -> None:
    study = simulate(tmp_path / "demo", max_events=20)
    write_sealed_json(study.store, PASSPORT, {"num_devices": 2, "cluster": "local"})
    operands: list[object] = [study.store.root] if command[0] == "status" else []
    options: list[object] = ["--storage", tmp_path] if command == ["list"] else []
    assert find_loaded(*command, *operands, *options) == set()


def test_no_help_text_loses_words_to_markup() -> None:
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        helps = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        assert [one for one in helps if one and Text.from_markup(one).plain != one] == [], name


def test_a_launch_imports_nothing_that_only_reports_need(tmp_path: Path) -> None:
    loaded = find_loaded("launch", "demo", "--local", "--dry-run", "--storage", tmp_path)
    assert "torchvision" in loaded, "the check finds a heavy package"
    assert not loaded & set(REPORTING)


def test_no_garbage_is_collected_at_the_end() -> None:
    assert int(say_at_end("gc.get_freeze_count()", "models", "torchvision", "resnet18")) > 100_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("init --to x", "init needs FOLDER for its options"),
        ("compare ./demo --storage y", "'./demo' is a path or a URI; remove --storage"),
        ("compare demo --predictions x", "No such option: --predictions"),
        ("compare demo --margin 0.01", "No such option: --margin"),
        ("compare demo other", "unexpected extra argument"),
        ("analyze demo --to x", "No such option: --to"),
        ("judge x.npz --storage y", "No such option: --storage"),
        ("status ./demo --storage y", "'./demo' is a path or a URI; remove --storage"),
        ("resume --storage y s3://bucket/demo", "'s3://bucket/demo' is a path or a URI; remove --storage"),
    ],
)
def test_options_without_effect_are_refused(arguments: str, message: str) -> None:
    outcome = run_cli(*arguments.split())
    assert outcome.status == 2, outcome
    assert message in outcome.errors


def test_an_address_in_the_environment_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert "there is no study at" in run_cli("compare", "missing", "--local").errors


def test_importing_the_command_line_does_not_change_the_garbage_collector() -> None:
    program = "import gc; before = gc.get_threshold(); import study.cli; print(gc.get_threshold() == before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Outside of training too, where the library of the command line would end without a word."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.views.status.print_studies", interrupt)
    monkeypatch.setattr(sys, "argv", ["study", "list"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == cli.EXIT_STOPPED
    assert "study resume" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["analyze", "report"])
def test_a_command_that_comes_too_early_names_the_one_that_is_next(tmp_path: Path, command: str) -> None:
    simulate(tmp_path / "half", max_events=20)
    assert "run `study resume " in run_cli(command, tmp_path / "half", width=1000).errors
    simulate(tmp_path / "searched")
    assert "run `study compare " in run_cli(command, tmp_path / "searched", width=1000).errors

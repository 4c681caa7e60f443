"""What reads a study imports nothing that computes: torch and its like take seconds. And what it prints fits where it goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "finished"
HEAVY = {"torch", "torchvision", "scipy", "sklearn", "matplotlib", "plotly", "optuna", "ray"}
READERS = {
    "load": "study.load(GOLDEN)",
    "findings": "study.load(GOLDEN).findings()",
    "records": "study.load(GOLDEN).records()",
    "html": "study.load(GOLDEN)._repr_html_()",
    "mcp": "[Answers(storage=str(GOLDEN.parent)).__getattribute__(n)('finished') for n in ('status', 'findings', 'compare')]",
    **{f"study {command}": f"run('{command}', str(GOLDEN))" for command in ("status", "verdicts")},
    "study list": "run('list', '--storage', str(GOLDEN.parent))",
}
PROGRAM = """
import contextlib, sys
from pathlib import Path
import study
GOLDEN = Path({golden!r})
def run(*words):
    from study import cli
    sys.argv = ["study", *words]
    with contextlib.suppress(SystemExit):
        cli.main()
if "Answers" in {call!r}:
    from study.agents import Answers
{call}
print("heavy:", *sorted({heavy!r} & sys.modules.keys()))
"""


def run_python(*arguments: str, **environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, cwd=ROOT, env=own | environment, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8")


@pytest.mark.parametrize("reader", READERS)
def test_reading_imports_nothing_that_computes(reader: str) -> None:
    program = PROGRAM.format(golden=str(GOLDEN), call=READERS[reader], heavy=HEAVY)
    assert run_python("-c", program).splitlines()[-1].strip() == "heavy:"


NAMES = ("bilinear", "vs bicubic", "comparison", "parameters", "these models", "macro-F1, search")


@pytest.mark.parametrize("columns", [None, "60", "80", "120"])
def test_a_pipe_and_narrow_terminals_have_names_and_headers_whole(columns: str | None) -> None:
    text = run_python("-m", "study.cli", "verdicts", str(GOLDEN), **({} if columns is None else {"COLUMNS": columns}))
    assert "…" not in text
    flat = " ".join(text.split())
    for name in NAMES[:-1] if columns == "60" else NAMES:
        assert name in (text if name != "macro-F1, search" else flat), name
    sentences = (" | ", " is handed over: ", "beside macro-F1")
    tables = [line for line in text.splitlines() if not any(part in line for part in sentences)]
    assert max(map(len, tables)) <= int(columns or 1000)


def test_a_pipe_in_another_encoding_replaces_what_it_lacks() -> None:
    text = run_python("-m", "study.cli", "verdicts", str(GOLDEN), PYTHONIOENCODING="ascii")
    assert "bilinear vs bicubic | +3.86 pp" in text

"""Run `study` in the process of the test; return its output, errors and exit status."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from rich.console import Console

from study import cli


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one call of the command line."""

    status: int
    output: str
    errors: str


def run_cli(*arguments: str | Path, width: int = 120) -> Outcome:
    """Call the command line with `arguments`, in a terminal of so many characters."""
    output, errors = io.StringIO(), io.StringIO()
    argv = ["study", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(cli, "console", Console(file=output, width=width)),
        mock.patch.object(cli, "errors", Console(file=errors, width=120)),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Outcome(status, output.getvalue(), errors.getvalue())

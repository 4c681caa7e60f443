"""The command line answers at once: it loads what a command needs, and no more."""

import subprocess
import sys

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

"""The command line answers at once: it loads what a command needs, and no more."""

import subprocess
import sys

HEAVY = ("torch", "ray", "optuna", "sklearn", "pandas", "matplotlib", "scipy")


def test_the_command_line_loads_no_heavy_package_before_a_command_needs_it() -> None:
    program = f"import sys, study.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

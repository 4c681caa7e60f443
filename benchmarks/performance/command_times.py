"""P18: the wall time of commands that people type many times a day."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ratios import REPEATS, Ratio, measure_seconds

GOAL_SECONDS = 1
SPEC = """
name = "quick"
data = { source = "planted", num_images = 240 }
model = { weights = "none" }
train = { image_size = 16, batch_size = 32 }
[search]
factor = "interpolation"
num_trials = 2
max_epochs = 1
pruning = "none"
fixed = { class_weighting = "none", backbone = "resnet18" }
"""


def measure_commands() -> list[Ratio]:
    """P18: seconds of `study --help`, `study list` and `study status`, each after one call that does not count."""
    program = str(Path(sys.executable).with_name("study"))
    with tempfile.TemporaryDirectory(prefix="bench-commands-") as folder:
        spec = Path(folder, "quick.toml")
        spec.write_text(SPEC)
        _call([program, "launch", str(spec), "--storage", folder, "--local"])
        commands = {
            "study --help": ["--help"],
            "study list": ["list", "--storage", folder],
            "study status": ["status", str(Path(folder, "quick"))],
        }
        return [_measure(name, [program, *words]) for name, words in commands.items()]


def _measure(name: str, command: Sequence[str]) -> Ratio:
    _call(command)
    seconds = tuple(measure_seconds(lambda: _call(command)) for _ in range(REPEATS))
    return Ratio("P18", f"wall seconds of `{name}`", f"<= {GOAL_SECONDS}", seconds, "median of five")


def _call(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)

"""The kit for a GPU: it says what is missing and what it left out, and never measures on a CPU in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.performance import gpu_kit
from benchmarks.performance.gpu_kit import FROM_WHEELS, OF_MACHINE, STEPS, Step, install_missing, list_missing, run_step

ROOT = Path(__file__).parents[3]


def test_without_the_packages_it_names_them_and_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gpu_kit, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(gpu_kit, "OF_MACHINE", ())
    monkeypatch.setattr(gpu_kit, "FROM_WHEELS", {"no_such_module": "no-such-package"})
    with pytest.raises(SystemExit, match="no-such-package are not installed; run `make gpu-wheels`"):
        install_missing()
    monkeypatch.setattr(gpu_kit, "OF_MACHINE", ("no_such_torch",))
    with pytest.raises(SystemExit, match="the machine must have no_such_torch"):
        install_missing()


def test_it_starts_where_nothing_is_installed() -> None:
    """Python alone imports it: it must be able to say what is missing."""
    program = "import benchmarks.performance.gpu_kit as kit; print(kit.list_missing(('torch', 'os')))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, check=True
    )
    assert done.stdout.strip() == "['torch']"
    assert list_missing((*OF_MACHINE, *FROM_WHEELS)) == []


def test_a_step_says_where_it_ran_or_why_not() -> None:
    step = Step("a", ("-c", "import os; print('first'); print('{device}', os.environ['KIT_DEVICE'])"))
    assert run_step(step, "cpu", 60) == "on the CPU: cpu cpu"
    assert run_step(step, "cuda", 60) == "cuda cuda"
    assert run_step(step, "cuda", 0) == "left out: 8 minutes are over"
    assert run_step(Step("a", (), needs_gpu=True), "cpu", 60) == "left out: torch finds no CUDA device here"
    ratio = Step("a", ("-c", "print('P4  one\\nP4  two\\nRESULTS.md'); raise SystemExit(1)", "P4"))
    assert run_step(ratio, "cuda", 60) == "status 1: P4  one; P4  two"
    failing = Step("a", ("-c", "print('done'); raise SystemExit('why')"))
    assert run_step(failing, "cuda", 60) == "status 1: why"
    assert run_step(Step("a", ("-c", "import time; time.sleep(60)")), "cuda", 0.2) == "stopped: its time was over"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_modules_and_tests_of_its_steps_exist(step: Step) -> None:
    for word in step.arguments:
        if word.startswith("tests/"):
            assert (ROOT / word).exists()
    if "benchmarks.performance.gpu_kit" in step.arguments:
        assert step.arguments[-1] in gpu_kit.LOOKS
    assert os.fspath(gpu_kit.PAGE).endswith("benchmarks/GPU.md")

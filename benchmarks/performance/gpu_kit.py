"""The first minutes on a GPU: ``make gpu``, where nothing but torch and its usual companions is installed, and no network.

``make gpu-wheels`` fills the folder gpu-wheels beforehand, on a machine with a network and the same Python, with the few other
packages that are needed (under 40 MB); ``make gpu`` installs them from there into a folder of its own. It runs the tests marked
`gpu`, and looks at what cannot be seen on a CPU: whether augmentation waits for the device, whether a trial has the same bits
under a limit of memory, and what is raised where memory is missing; then ratios of the performance table as long as the time
lasts, which go to RESULTS-GPU.md too. Without a GPU each step says that it ran on the CPU, or why it was left out. Writes
benchmarks/GPU.md.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

WHEELS, INSTALLED = Path("gpu-wheels"), Path("gpu-wheels") / "installed"
PAGE = Path(__file__).parents[1] / "GPU.md"
BUDGET_SECONDS = 480.0
# Of one step at most, and images on which the bits are compared.
STEP_SECONDS = 150.0
NUM_TRAINED = 256
# Modules that the machine must have, and packages that may come from the folder of wheels, by their modules.
OF_MACHINE = ("torch", "torchvision", "timm", "sklearn", "scipy", "pandas", "numpy", "PIL")
FROM_WHEELS = {
    **{
        name: name
        for name in ("pydantic", "tenacity", "filelock", "rich", "typer", "safetensors", "threadpoolctl", "pytest")
    },
    **{"pytest_timeout": "pytest-timeout", "hypothesis": "hypothesis"},
}
TESTS = ("tests/trainables/test_devices.py", "tests/trainables/training", "tests/trainables/data/augmentation")


class Step(NamedTuple):
    """One step of the kit.

    Attributes:
        name: in words.
        arguments: of Python, in a process of its own; of them, {device} is replaced.
        needs_gpu: whether it says nothing on a CPU.
    """

    name: str
    arguments: Sequence[str]
    needs_gpu: bool = False


LOOK = ("-m", "benchmarks.performance.gpu_kit")
BENCH = ("-m", "benchmarks.performance.bench", "--device", "{device}")
STEPS = (
    Step("tests marked gpu", ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TESTS), needs_gpu=True),
    Step("augmentation waits for the device", (*LOOK, "waits"), needs_gpu=True),
    Step("bits of a trial, and under a limit of memory", (*LOOK, "bits")),
    Step("errors where memory is missing", (*LOOK, "memory"), needs_gpu=True),
    *(Step(f"{number} of the ratios", (*BENCH, number)) for number in ("P4", "P12", "P15", "P11", "P5", "P2")),
)


def list_missing(names: Sequence[str]) -> list[str]:
    """Return the modules that are not installed."""
    return [name for name in names if find_spec(name) is None]


def fill_wheels() -> None:
    """Download the wheels of `FROM_WHEELS` and of what they need, for this Python."""
    command = ("pip", "download", "--quiet", "--only-binary", ":all:", "--dest", WHEELS, *FROM_WHEELS.values())
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True)
    size = sum(file.stat().st_size for file in WHEELS.glob("*.whl"))
    print(
        f"{len(list(WHEELS.glob('*.whl')))} wheels, {size / 1e6:.0f} MB, in {WHEELS}/; copy the checkout with them to the GPU"
    )


def install_missing() -> None:
    """Install what the machine lacks from the folder of wheels; exit with a message if it is not there."""
    if lacking := list_missing(OF_MACHINE):
        sys.exit(f"the machine must have {', '.join(lacking)}; install torch with its usual companions")
    sys.path.insert(0, str(INSTALLED.resolve()))
    if missing := list_missing(tuple(FROM_WHEELS)):
        packages = [FROM_WHEELS[name] for name in missing]
        if not WHEELS.is_dir():
            sys.exit(f"{', '.join(packages)} are not installed; run `make gpu-wheels` where there is a network")
        print(f"from {WHEELS}/: {', '.join(packages)}")
        command = ("pip", "install", "--quiet", "--no-index", "--find-links", WHEELS, "--target", INSTALLED, *packages)
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True)
        invalidate_caches()


def run_step(step: Step, device: str, seconds: float) -> str:
    """Run a step; return its last line, the lines of a ratio, or why it did not end well."""
    if step.needs_gpu and device == "cpu":
        return "left out: torch finds no CUDA device here"
    if seconds <= 0:
        return f"left out: {BUDGET_SECONDS / 60:.0f} minutes are over"
    variables = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(INSTALLED.resolve())]), "KIT_DEVICE": device}
    words = [sys.executable, *(word.format(device=device) for word in step.arguments)]
    try:
        done = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "stopped: its time was over"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    where = "on the CPU: " if device == "cpu" else ""
    status = "" if done.returncode == 0 else f"status {done.returncode}: "
    of_ratio = [line for line in lines if line.startswith(f"{step.arguments[-1]}  ")]
    return f"{where}{status}{'; '.join(of_ratio or lines[-1:]) or 'no output'}"


def run_kit() -> None:
    """Run every step, print its line at once, and write the page."""
    install_missing()
    import torch

    from benchmarks.pages import Table, describe_machine, today, write_page

    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = describe_machine("torch", "torchvision", machine=torch.cuda.get_device_name() if device == "cuda" else "")
    print(f"{machine}; {'no GPU: every line says what ran on the CPU' if device == 'cpu' else 'GPU'}")
    until, rows = time.monotonic() + BUDGET_SECONDS, []
    for step in STEPS:
        started = time.monotonic()
        line = run_step(step, device, min(until - started, STEP_SECONDS))
        rows.append((step.name, line, f"{time.monotonic() - started:.0f} s"))
        print(f"{step.name}: {line}", flush=True)
    write_page(PAGE, [f"{today()}, {machine}.", Table("", ("step", "result", "time"), rows)])
    print(PAGE)


def look_at_waits() -> str:
    """Return the presets of augmentation that wait for the device."""
    import torch

    from benchmarks.performance.reference_recipe import make_config
    from search_spaces.settings import PRESETS
    from trainables.data.augmentation.pipeline import AugmentationSettings, augment_batch

    device, found = torch.device("cuda"), []
    images = torch.randint(0, 256, (128, 80, 80, 3), dtype=torch.uint8, device=device)
    labels, generator = torch.arange(128, device=device) % 10, torch.Generator(device)
    for name in PRESETS:
        settings = AugmentationSettings.from_config(make_config("resnet18", 64, augmentation=name))
        for mode in ("default", "error"):  # constants are copied once
            torch.cuda.set_sync_debug_mode(mode)
            try:
                augment_batch(images, labels, generator=generator, settings=settings, num_classes=10)
            except RuntimeError as error:
                found.append(f"{name} ({error})")
        torch.cuda.set_sync_debug_mode("default")
    return f"{len(found)} of {len(PRESETS)} presets wait: {', '.join(found) or 'none'}"


def look_at_bits() -> str:
    """Return whether two epochs of a trial have the same bits twice, and with a quarter of the memory."""
    import torch

    from benchmarks.performance.reference_recipe import make_config
    from benchmarks.performance.training_ratios import load_data
    from trainables.training.loop import TrainingRun
    from trainables.training.trial_data import limit_memory

    # A busy machine without a GPU would let threads wait for each other.
    torch.set_num_threads(1)
    device, data, losses = torch.device(os.environ["KIT_DEVICE"]), load_data(32), []
    data = replace(data, splits=replace(data.splits, train=data.splits.train[:NUM_TRAINED]))
    for share in (1.0, 1.0, 0.25):
        limit_memory(device, share)
        run = TrainingRun(make_config("resnet18", 32, max_epochs=2), data, device=device)
        losses.append(tuple(run.run_epoch().train_loss for _ in range(2)))
        del run
    words = ["the same bits" if own == losses[0] else "OTHER BITS" for own in losses[1:]]
    return f"{words[0]} in a second training; {words[1]} with a quarter of the memory"


def look_at_memory() -> str:
    """Return how many of the errors that a full GPU raises are known as such."""
    import torch

    from trainables.devices import is_out_of_memory

    kept: list[torch.Tensor] = []
    with_cublas = torch.randn(64, 64, device="cuda")
    provoke: dict[str, Callable[[], object]] = {
        "a tensor": lambda: torch.empty(2**42, dtype=torch.uint8, device="cuda"),
        "a product on another stream": lambda: with_cublas @ with_cublas,
        "a convolution": lambda: torch.nn.functional.conv2d(kept[0][: 2**20].view(1, 16, 256, 256).float(), kept[1]),
    }
    free = torch.cuda.mem_get_info()[0]
    kept.append(torch.empty(max(2**21, free - 2**26), dtype=torch.uint8, device="cuda"))
    kept.append(torch.randn(16, 16, 3, 3, device="cuda"))
    lines = []
    for name, function in provoke.items():
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                function()
            lines.append(f"{name}: no error")
        except RuntimeError as error:
            text = str(error).splitlines()[0]
            lines.append(
                f"{name}: {'known' if is_out_of_memory(error) else 'NOT KNOWN'} ({type(error).__name__}: {text[:60]})"
            )
    return "; ".join(lines)


LOOKS: dict[str, Callable[[], str]] = {"waits": look_at_waits, "bits": look_at_bits, "memory": look_at_memory}


def main() -> None:
    """Do what the command line names: the kit without a word, "wheels", or one of `LOOKS`."""
    if sys.argv[1:] == ["wheels"]:
        fill_wheels()
    elif len(sys.argv) > 1:
        print(LOOKS[sys.argv[1]]())
    else:
        run_kit()


if __name__ == "__main__":
    main()

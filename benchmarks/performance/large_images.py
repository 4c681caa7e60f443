"""A study on a folder of images that need more memory than they may take: ``python -m benchmarks.performance.large_images``.

The same small study runs on few images and on many, mapped from a file and streamed, and on many in memory, which shows that the
pixels would be seen; one trial at a time, so that the peak does not depend on when each of two processes reaches its own. Few are
as many as the audits take, so that what the many need more is due to their number alone, not to models or to decoding processes.
Memory is that of the study and Ray which the kernel cannot reclaim: anonymous and shared memory, shared pages counted once.
"""

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import typer
from PIL import Image

from benchmarks.pages import Table

SIDE = 128
NUM_CLASSES = 4
NUM_FEW = 2000
FEW_MEMORY, MUCH_MEMORY = 0.001, 8.0
MAPPED, STREAMED, IN_MEMORY = "mapped", "streamed", "in memory"
KEPT = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)
SPEC = """
name = "large"
data = {{ source = "folder", path = "{path}" }}
model = {{ weights = "none" }}
train = {{ image_size = 16, batch_size = 128 }}
search.factor = "interpolation"
search.num_trials = 2
search.max_epochs = 1
search.pruning = "none"
search.fixed = {{ class_weighting = "none", backbone = "resnet18" }}
confirm = {{ top_k = 1, looks = [2] }}
analyze = {{ num_panels = 2, num_audit_images = 200 }}
resources = {{ max_concurrent = 1, cpu = 2, images = "{images}", image_memory_gb = {memory}, image_folder = "{folder}" }}
"""


class Usage(NamedTuple):
    """Peak memory in bytes, wall seconds, exit status, and the last lines of the output."""

    peak: float
    seconds: float
    status: int
    tail: str


def write_images(root: Path, number: int) -> None:
    """Write `number` different JPEG images: stripes whose direction is that of their class."""
    generator = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    for label in range(NUM_CLASSES):
        folder = root / f"stripes-{label}"
        folder.mkdir(parents=True)
        angle = np.pi * label / NUM_CLASSES
        for index in range(number // NUM_CLASSES):
            phase, period = generator.uniform(0, 2 * np.pi), generator.uniform(14, 22)
            wave = np.sin(2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle)) / period + phase)
            tint = generator.uniform(0.5, 1, size=3)
            pixels = (wave[..., None] * 60 + 128) * tint
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:06d}.jpg", quality=90)


def run_study(folder: Path, images: Path, memory: float, name: str, *, streams: bool = False) -> Usage:
    """Run the study and watch its memory."""
    spec, log = folder / f"{name}.toml", folder / f"{name}.log"
    spec.write_text(
        SPEC.format(path=images, memory=memory, folder=folder / "kept", images="streamed" if streams else "stored")
    )
    program = Path(sys.executable).with_name("study")
    command = [str(program), "run", str(spec), "--storage", str(folder / "studies"), "--name", name]
    started, peak = time.monotonic(), 0.0
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, _measure(process.pid))
            time.sleep(0.5)
    tail = "\n".join(log.read_text().splitlines()[-12:])
    return Usage(peak, time.monotonic() - started, process.returncode, tail)


def _measure(pid: int) -> float:
    """Return the bytes that the process and its descendants hold."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += sum(int(kilobytes) * 1024 for kilobytes in KEPT.findall(rollup))
    return float(total)


def main(
    num_images: Annotated[int, typer.Option(help="Of the large folder.")] = 60_000,
    memory: Annotated[float, typer.Option(help="Memory budget of the images, in GB.")] = 0.29,
) -> None:
    """Print the peaks; exit with status 1 unless the mapped and the streamed study kept to their memory and ended normally."""
    size = num_images * SIDE * SIDE * 3 / 1e9
    with tempfile.TemporaryDirectory(prefix="bench-large-") as name:
        few, many = Path(name, "few"), Path(name, "many")
        write_images(few, NUM_FEW)
        write_images(many, num_images)
        studies = {
            ("few", MAPPED): (few, FEW_MEMORY), ("few", STREAMED): (few, FEW_MEMORY), ("many", MAPPED): (many, memory),
            ("many", STREAMED): (many, memory), ("many", IN_MEMORY): (many, MUCH_MEMORY),
        }  # fmt: skip
        used = {
            study: run_study(Path(name), images, budget, f"study-{number}", streams=study[1] == STREAMED)
            for number, (study, (images, budget)) in enumerate(studies.items())
        }
    more = {
        study: u.peak - used["few", study[1] if study[1] != IN_MEMORY else MAPPED].peak for study, u in used.items()
    }
    title = (
        f"{num_images} images, {size:.2f} GB decoded, against {NUM_FEW}; mapped or streamed they may take {memory:g} GB"
    )
    columns = ("study", "peak memory, GB", "more than with few, GB", "minutes", "exit status")
    rows = [
        (", ".join(study), f"{u.peak / 1e9:.2f}", f"{more[study] / 1e9:.2f}", f"{u.seconds / 60:.1f}", f"{u.status}")
        for study, u in used.items()
    ]
    Table(title, columns, rows).print()
    kept = {study: more[study] <= memory * 1e9 for study in used if study != ("many", IN_MEMORY)}
    missed = [study for study, u in used.items() if u.status or not kept.get(study, True)]
    for study in missed:
        print(f"MISSED: {', '.join(study)}\n{used[study].tail}")
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)

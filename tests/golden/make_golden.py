"""Write the golden studies of one commit: a finished study, and one whose driver was killed in the middle of its search.

    python tests/golden/make_golden.py --study OTHER_CHECKOUT/.venv/bin/study --to tests/golden/commits/COMMIT

The studies are small and stay so: weights, checkpoints, TensorBoard events and pages are removed, figures are shrunk.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

SPEC = Path(__file__).with_name("spec.toml")
REMOVED = ("*.safetensors", "events.out.tfevents.*", "report.html", "search.html", "lease")
FIGURE_SIDE = 160


def launch(study: Path, name: str, storage: Path) -> list[str]:
    """Return the command that launches a golden study."""
    command = "run" if name == "finished" else "launch"
    # One trial at a time, so that the killed study always has a running one.
    options = ["--set", "resources.max_concurrent=1"] if name == "killed" else []
    return [str(study), command, str(SPEC), "--name", name, "--storage", str(storage), *options]


def is_in_mid_search(folder: Path) -> bool:
    """Whether some of the study's trials have ended, and the running one has reported an epoch."""
    records = [json.loads(path.read_text()) for path in folder.glob("trials/*/record.json")]
    running = [record for record in records if record["state"] == "RUNNING"]
    return len(records) > 2 and any(record["epochs"] for record in running)


def kill_in_mid_search(command: list[str], folder: Path) -> None:
    """Run a study until `is_in_mid_search`; kill the driver and its processes."""
    driver = psutil.Popen(command)
    while not is_in_mid_search(folder):
        if driver.poll() is not None:
            raise SystemExit("the study ended before it could be killed")
        time.sleep(0.01)
    processes = [driver, *driver.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)


def shrink(folder: Path) -> None:
    """Remove what is large from a study, and shrink its figures."""
    for pattern in REMOVED:
        for path in folder.rglob(pattern):
            path.unlink()
    for path in folder.rglob("checkpoint"):
        shutil.rmtree(path)
    for path in folder.glob("findings/figures/*.png"):
        with Image.open(path) as image:
            image.thumbnail((FIGURE_SIDE, FIGURE_SIDE))
            image.convert("P", colors=32).save(path, optimize=True)


def main() -> None:
    """Read the command line and write both studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, required=True, help="the command `study` of the commit's own environment")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        root = Path(storage)
        subprocess.run(launch(options.study, "finished", root), check=True)
        kill_in_mid_search(launch(options.study, "killed", root), root / "killed")
        for name in ("finished", "killed"):
            shrink(root / name)
            shutil.copytree(root / name, options.to / name)


if __name__ == "__main__":
    main()

"""A study as a user runs it, through `study init`, `run` and `export`, and the model that it hands over."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import timm
import torch
from torchvision.transforms import v2

from benchmarks.quality.recipes import ImageFolder, Material, Predictor, compute_outputs

ROOT = Path(__file__).parents[2]
THIS_STUDY = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "study.cli"])
# A side that takes more than this many times its minutes has missed the cell.
TOLERANCE = 1.1
SECONDS_TO_STOP = 60


def run_study(material: Material, minutes: float, folder: Path, command: str = THIS_STUDY) -> Iterator[Predictor]:
    """Yield the predictor of the model that the study hands over.

    Args:
        material: Images and weights; the study draws splits of its own.
        minutes: Given to `study init`. After TOLERANCE times as many the study is stopped, and nothing is yielded.
        folder: For the study and all that it would cache elsewhere; emptied first.
        command: The command `study`, also of another checkout.

    Raises:
        RuntimeError: If a command fails.
    """
    deadline = time.monotonic() + TOLERANCE * 60 * minutes
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    init = shlex.join(["init", str(material.given), "--weights", str(material.weights), "--minutes", f"{minutes:g}"])
    # With folds the exported model trains on all images that were given; the other sides train on their part of them alone.
    one_split = " --set confirm.folds=0" if command == THIS_STUDY else ""
    run = f"run spec.toml{one_split} --name it --storage ."
    for step in (f"{init} --to spec.toml", run, "export it --storage . --to export"):
        cached = shlex.join(["env", f"XDG_CACHE_HOME={folder / 'cache'}"])
        if not finish_in_time(f"{cached} {command} {step}", folder, deadline):
            return
    yield load_winner(folder / "export")


def finish_in_time(command: str, folder: Path, deadline: float) -> bool:
    """Run a command in `folder`, with its output in log.txt; return whether it ended before `deadline`, else stop it.

    Raises:
        RuntimeError: If it fails.
    """
    with (folder / "log.txt").open("a") as log:
        process = psutil.Popen(shlex.split(command), cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except psutil.TimeoutExpired:
            family = [*process.children(recursive=True), process]
            process.send_signal(signal.SIGINT)
            for left in psutil.wait_procs(family, timeout=SECONDS_TO_STOP)[1]:
                left.kill()
            return False
    if status:
        raise RuntimeError(f"`{command}` ended with status {status}; {folder / 'log.txt'} says why")
    return True


def load_winner(export: Path) -> Predictor:
    """Return the predictor of the model that the study hands over. Images must be squares: nothing is cropped.

    Studies of commits that hand over none count with the exported arm whose test macro-F1 is the highest.
    """
    models = [(json.loads(file.read_text()), file.parent) for file in export.glob("*/study.json")]
    chosen = [model for model in models if model[0].get("handed_over")] or models
    described, folder = max(chosen, key=lambda model: model[0]["macro_f1"]["test"])
    steps, model = described["preprocessing"], timm.create_model(f"local-dir:{folder}", pretrained=True)
    resize = v2.Resize([steps["image_size"]] * 2, v2.InterpolationMode(steps["interpolation"]), antialias=True)
    stored = [
        v2.Resize(steps["stored_size"], v2.InterpolationMode.BICUBIC),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32),
    ]
    scale = [v2.Lambda(lambda pixels: pixels.clamp(0, 255) / 255), v2.Normalize(steps["mean"], steps["std"])]

    def predict(judging: Path) -> np.ndarray:
        images = ImageFolder(judging, v2.Compose([*stored, resize, *scale]))
        places = np.array([images.class_to_idx[name] for name in described["class_names"]])
        return places[compute_outputs(model, images)[0].argmax(axis=1)]

    return predict

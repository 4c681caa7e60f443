"""P11: Grad-CAM and the audit against the model's own limit, and the whole forensics of 5,000 images, two arms, three seeds.

The limit of the audit is the same forward pass on one fixed tensor; that of Grad-CAM is a forward pass, and a backward pass to
the layer of the maps, on one fixed tensor. The model is a ResNet18 at 64 px with random weights; the time does not depend on
them.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
import torch
import typer

from analysis.causes.confused_images import CauseModels, ConfusedClasses
from analysis.causes.root_cause import find_root_causes
from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.grad_cam import compute_cams, find_cam_layers
from analysis.heat_maps.validity_tests import CamModels, admit_cams
from analysis.shortcuts.frequency_audit import (
    bound_color_losses,
    judge_frequencies,
    measure_color_losses,
    measure_frequencies,
)
from analysis.shortcuts.ring_audit import bound_pulls, judge_ring, measure_pull, measure_rings
from analysis.shortcuts.swaps import Images, swap_ring
from analysis.statistics.metrics import FloatArray, IntArray
from benchmarks.pages import Table
from benchmarks.performance.reference_recipe import make_config
from benchmarks.ratios import Ratio, compare_sides, measure_seconds, synchronize
from benchmarks.validation.planted_models import to_audit_images
from trainables.data.augmentation.mixing import make_ring
from trainables.data.augmentation.pipeline import prepare_batch
from trainables.data.sources.planted_scenes import make_planted_scenes
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import fold_batch_norm
from trainables.training.evaluation import autocast, compute_logits

IMAGE_SIZE = 64
NUM_SEEDS = 3
BATCH_SIZE = 256
CAM_BATCH = 64
# Minutes for so many images; other numbers have no goal.
GOAL_MINUTES = {5000: 30, 500: 2}
NUM_COMPARED = 1024
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (0, 2))


def measure_limits(device: torch.device) -> list[Ratio]:
    """P11: the audit and Grad-CAM against passes of the same model over one fixed tensor."""
    num_images = NUM_COMPARED
    config = make_config("resnet18", IMAGE_SIZE)
    model = place_model(build_model(config, 10), config, device).eval()
    scenes = make_planted_scenes(seed=0, num_images=num_images, image_size=IMAGE_SIZE).image_set
    images, labels = np.asarray(scenes.images), scenes.labels
    ring = make_ring(IMAGE_SIZE, IMAGE_SIZE, 4 / 32)
    donors = np.roll(images, 1, axis=0)
    fixed = _prepare(images[:BATCH_SIZE]).to(device)
    network = CamNetwork(model=model, config=config)
    layer = find_cam_layers(network)[0][0]

    def audit() -> object:
        tensor = torch.from_numpy(swap_ring(images, donors, ring))
        return compute_logits(model, tensor, np.arange(num_images), config, device, BATCH_SIZE)

    def forward() -> None:
        with torch.no_grad():
            for _ in range(num_images // BATCH_SIZE):
                with autocast(config, device):
                    model(fixed)
        synchronize(device)

    def cams() -> object:
        return compute_cams(network, network.prepare(images), layer, labels)

    def both_ways() -> None:
        for _ in range(num_images // CAM_BATCH):
            with autocast(config, device):
                _forward_and_backward(model, fixed[:CAM_BATCH], layer)
        synchronize(device)

    def per_second(run: Callable[[], object]) -> float:
        return num_images / measure_seconds(run)

    compared = {"ring swaps / the forward pass": (audit, forward), "Grad-CAM / forward and backward": (cams, both_ways)}
    rows = []
    for pair, (ours, limit) in compared.items():
        sides = {"here": partial(per_second, ours), "limit": partial(per_second, limit)}
        name = f"images/s of {pair}, resnet18 at {IMAGE_SIZE} px"
        rows.append(compare_sides("P11", name, ">= 0.7", sides, "images/s"))
    return rows


def _forward_and_backward(model: torch.nn.Module, inputs: torch.Tensor, layer: str) -> None:
    """One forward pass, and a backward pass to the output of the layer, which a map needs."""
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(inputs))))  # type: ignore[operator]
        names = ("layer1", "layer2", "layer3", "layer4")
        for name in names[: names.index(layer) + 1]:
            x = getattr(model, name)(x)
    y = x.requires_grad_(True)
    for name in names[names.index(layer) + 1 :]:
        y = getattr(model, name)(y)
    logits = model.fc(model.avgpool(y).flatten(1))  # type: ignore[operator]
    torch.autograd.grad(logits[:, 0].sum(), x)


def _prepare(images: Images) -> torch.Tensor:
    return prepare_batch(torch.from_numpy(images), image_size=IMAGE_SIZE, interpolation="bicubic", channels_last=True)


def time_forensics(num_images: int) -> dict[str, float]:
    """Return the seconds that each part of one arm's forensics takes, with three seeds."""
    config = make_config("resnet18", IMAGE_SIZE)
    device = torch.device("cpu")
    scenes = make_planted_scenes(seed=0, num_images=num_images, image_size=IMAGE_SIZE).image_set
    audited = to_audit_images(scenes)
    built = (build_model(config.with_seed(seed), 10) for seed in range(2 * NUM_SEEDS))
    models = [place_model(fold_batch_norm(model, config), config, device).eval() for model in built]

    def compute(images: Images) -> FloatArray:
        tensor, indices = torch.from_numpy(images), np.arange(len(images))
        logits = [compute_logits(m, tensor, indices, config, device, BATCH_SIZE) for m in models[:NUM_SEEDS]]
        return np.stack(logits).astype(np.float64)

    def classify(images: Images) -> IntArray:
        return np.asarray(compute(images).argmax(axis=2), dtype=np.int64)

    # Fresh networks predict one class for every image, so predictions are made up: half of each class is confused with its pair.
    predicted = audited.labels.copy()
    partner = {a: b for pair in PAIRS[:5] for a, b in (pair, pair[::-1])}
    predicted[::2] = [partner[int(c)] for c in audited.labels[::2]]
    logits = np.eye(10)[None, predicted]
    cause_models = CauseModels(
        sample_ids=np.arange(num_images),
        selecting=logits,
        measuring=logits,
        compute_logits=compute,
        are_own_errors=False,
    )
    confusions = [ConfusedClasses(one=one, other=other) for one, other in PAIRS]
    networks = [CamNetwork(model=model, config=config) for model in models]
    cam_models = CamModels(trained=networks[:NUM_SEEDS], randomized=networks[NUM_SEEDS:])
    parts: dict[str, Callable[[], object]] = {
        "ring swaps": lambda: [judge_ring(found) for found in measure_rings(classify, audited)],
        "color": lambda: bound_color_losses(measure_color_losses(classify, audited)),
        "waves": lambda: judge_frequencies(measure_frequencies(classify, audited)),
        "pulls of six pairs": lambda: bound_pulls([measure_pull(classify, audited, *pair) for pair in PAIRS]),
        "causes of six pairs": lambda: find_root_causes(cause_models, audited, confusions),
        "heat maps and their tests": lambda: admit_cams(cam_models, audited),
    }
    return {name: measure_seconds(part) for name, part in parts.items()}


def main(num_images: Annotated[int, typer.Option(help="Audited images of each arm.")] = 5000) -> None:
    """Print the time of the whole forensics; exit with status 1 if it is over the goal for so many images."""
    seconds = time_forensics(num_images)
    title = f"Forensics of {num_images} images, {NUM_SEEDS} seeds, one arm, resnet18 at {IMAGE_SIZE} px"
    Table(title, ("part", "seconds"), [(name, f"{spent:.0f}") for name, spent in seconds.items()]).print()
    minutes = 2 * sum(seconds.values()) / 60
    goal = GOAL_MINUTES.get(num_images)
    is_missed = goal is not None and minutes >= goal
    judged = "" if goal is None else f" (goal {goal}); {'missed' if is_missed else 'met'}"
    print(f"two arms: {minutes:.1f} minutes{judged}")
    raise typer.Exit(int(is_missed))


if __name__ == "__main__":
    typer.run(main)

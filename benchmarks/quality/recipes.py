"""The recipes beside a study: a probe, PyTorch's transfer-learning tutorial, and fastai's `fine_tune`, in plain torch.

Each is a generator that yields, whenever it may have changed, the predictor that it would hand over now. All use ResNet18, the
same weights, the side of the image files, and as many training images as a spec of `study init` trains on; torchvision's
transforms draw from torch's global generator, which the caller seeds.
"""

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from trainables.data.stratified import choose_stratified
from trainables.models.weights import load_weights_file
from trainables.seeds import numpy_generator

ImageFolder = torchvision.datasets.ImageFolder
# Predicts (N,) labels of a folder of class folders, in the order of ImageFolder.
Predictor = Callable[[Path], np.ndarray]
# A spec of `study init` searches on .15 of the images, ranks on .15 and tests on .2.
TRAIN_FRACTION = 0.5
PROBE_STRENGTHS = 10.0 ** np.arange(-4, 0.5, 0.5)
TUTORIAL_EPOCHS, MOST_FASTAI_EPOCHS = 25, 50
# What fastai's epochs may take of its minutes, and what one takes at most in frozen ones, which lack the weights' gradients.
FASTAI_TIME_FRACTION, FROZEN_PER_EPOCH = 0.8, 1.5
NUM_WORKERS = 2
NORMALIZE = [
    v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
]


class Material(NamedTuple):
    """What a side is given: a folder of class folders, a folder of pretrained weights, and the seed of its own split."""

    given: Path
    weights: Path
    seed: int

    def open(self, *transforms: Any, training: bool) -> Subset[Any]:
        """Return the training or the validation images, with transforms before the normalization."""
        images = ImageFolder(self.given, v2.Compose([*transforms, *NORMALIZE]))
        generator = numpy_generator(self.seed, "equal-time-training")
        chosen = choose_stratified(np.array(images.targets), round(TRAIN_FRACTION * len(images)), generator)
        return Subset(images, chosen if training else np.setdiff1d(np.arange(len(images)), chosen))

    def load_backbone(self) -> tuple[nn.Module, int]:
        """Return ResNet18 without a head, images to (N, 512) features, and the number of classes."""
        model = torchvision.models.resnet18()
        model.fc = nn.Identity()
        model.load_state_dict(load_weights_file(self.weights / "resnet18.pt"))
        return model, len(ImageFolder(self.given).classes)


def run_probe(material: Material, _minutes: float) -> Iterator[Predictor]:
    """Yield a logistic regression on frozen, standardized features; C has the best macro-F1 on the validation images."""
    backbone, _ = material.load_backbone()
    (features, labels), (others, truth) = (compute_outputs(backbone, material.open(training=t)) for t in (True, False))
    heads = [LogisticRegression(C=c, class_weight="balanced", max_iter=1000) for c in PROBE_STRENGTHS]
    with threadpool_limits(1):  # Two threads on a busy core wait for each other.
        probes = [make_pipeline(StandardScaler(), head).fit(features, labels) for head in heads]
    best = max(probes, key=lambda probe: f1_score(truth, probe.predict(others), average="macro"))
    yield lambda folder: best.predict(compute_outputs(backbone, ImageFolder(folder, v2.Compose(NORMALIZE)))[0])


def run_tutorial(material: Material, _minutes: float) -> Iterator[Predictor]:
    """Yield, after each epoch of PyTorch's tutorial, the network with the best validation accuracy so far.

    https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html, at the images' own side instead of 224 px.
    """
    (backbone, num_classes), side, best = material.load_backbone(), ImageFolder(material.given)[0][0].size[0], -1.0
    train = material.open(v2.RandomResizedCrop(side), v2.RandomHorizontalFlip(), training=True)
    center = (v2.Resize(round(side * 256 / 224)), v2.CenterCrop(side))
    model = nn.Sequential(backbone, nn.Linear(512, num_classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    for _ in range(TUTORIAL_EPOCHS):
        train_epoch(model, DataLoader(train, 4, shuffle=True, num_workers=NUM_WORKERS), optimizer)
        scheduler.step()
        outputs, truth = compute_outputs(model, material.open(*center, training=False))
        if (accuracy := float((outputs.argmax(axis=1) == truth).mean())) > best:
            best, predictor = accuracy, make_predictor(model, *center)
        yield predictor


def run_fastai(material: Material, minutes: float) -> Iterator[Predictor]:
    """Yield the network after each epoch of fastai's `fine_tune(epochs)`, whose schedule ends within `minutes`.

    Learning rates, groups of layers, batches of 64, and augmentations are those of `vision_learner` and `aug_transforms`. Three
    differences: borders of turned images are black, not mirrored, because torchvision has no other; the head takes the mean of
    each channel without its maximum; biases and BatchNorm decay too. After the frozen epoch, as many epochs as fit into
    FASTAI_TIME_FRACTION of `minutes`, judged by the seconds of the frozen one; at most MOST_FASTAI_EPOCHS.
    """
    started, rate = time.perf_counter(), 2e-3
    steps = (v2.RandomAffine(10, scale=(1.0, 1.1)), v2.RandomPerspective(0.2, p=1.0), v2.ColorJitter(0.2, 0.2))
    train = material.open(v2.RandomHorizontalFlip(), *(v2.RandomApply([s], 0.75) for s in steps), training=True)
    loader = DataLoader(train, min(64, len(train)), shuffle=True, num_workers=NUM_WORKERS, drop_last=True)
    backbone, num_classes = material.load_backbone()
    layers, head = (
        [*backbone.children()],
        [nn.BatchNorm1d(512), nn.Dropout(0.25), nn.Linear(512, 512, bias=False), nn.ReLU()],
    )
    head += [nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, num_classes, bias=False)]
    deep = nn.Sequential(*layers[6:-1], nn.Flatten())
    model = nn.Sequential(nn.Sequential(*layers[:6]), deep, nn.Sequential(*head))
    for parameter in model[:2].parameters():
        parameter.requires_grad = parameter.ndim == 1  # BatchNorm
    frozen_seconds = -time.perf_counter()
    train_epoch(model, loader, *make_one_cycle(model, (rate / 10, rate / 10, rate), len(loader), 0.99, 25.0))
    frozen_seconds += time.perf_counter()
    yield make_predictor(model)
    left = FASTAI_TIME_FRACTION * 60 * minutes - (time.perf_counter() - started)
    num_epochs, rate = min(MOST_FASTAI_EPOCHS, max(1, int(left / (FROZEN_PER_EPOCH * frozen_seconds)))), rate / 2
    model.requires_grad_(True)
    cycle = make_one_cycle(model, (rate / 100, rate / 10, rate), num_epochs * len(loader), 0.3, 5.0)
    for _ in range(num_epochs):
        train_epoch(model, loader, *cycle)
        yield make_predictor(model)


def make_one_cycle(
    parts: nn.Sequential, rates: tuple[float, ...], num_steps: int, peak: float, div: float
) -> tuple[Any, Any]:
    """Return fastai's Adam and its schedule, with a highest rate for each part; it begins with 1 / `div` of the rates."""
    groups = [{"params": list(part.parameters())} for part in parts]
    optimizer = torch.optim.AdamW(groups, lr=rates[-1], betas=(0.95, 0.99), eps=1e-5, weight_decay=0.01)
    cycle = {"pct_start": peak, "div_factor": div, "final_div_factor": 1e5 / div}
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, list(rates), total_steps=num_steps + 1, **cycle)


def train_epoch(model: nn.Module, loader: Any, optimizer: torch.optim.Optimizer, schedule: Any = None) -> None:
    """Train one epoch; the schedule, if there is one, advances with every batch."""
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


@torch.inference_mode()
def compute_outputs(model: nn.Module, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs (N, D) of a network, and labels (N,)."""
    model.eval()
    found = [
        (model(batch).numpy(), labels.numpy()) for batch, labels in DataLoader(images, 64, num_workers=NUM_WORKERS)
    ]
    return np.concatenate([outputs for outputs, _ in found]), np.concatenate([labels for _, labels in found])


def make_predictor(model: nn.Module, *transforms: Any) -> Predictor:
    """Return the predictor of a network as it is now, with transforms before the normalization."""
    kept, transform = copy.deepcopy(model), v2.Compose([*transforms, *NORMALIZE])
    return lambda folder: compute_outputs(kept, ImageFolder(folder, transform))[0].argmax(axis=1)

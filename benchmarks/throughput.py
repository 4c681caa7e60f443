"""P2: images per second trained, against the torchvision reference recipe (DataLoader, PIL transforms, fp32).

Both sides train the same backbone from the same weights (none) on the same planted scenes with the same augmentation (flip,
brightness), batch size and number of threads, in turn, five times. Prints the table of medians and ranges.
"""

import platform
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from search_spaces.config import TrialConfig, Value
from trainables.loop import TrainingRun, TrialData
from trainables.sources import load_image_set
from trainables.splits import make_splits

BATCH_SIZE = 128
BRIGHTNESS_FRACTION = 0.2
GOAL = 1.8


class ReferenceDataset(Dataset[tuple[torch.Tensor, int]]):
    """The training images as PIL images through torchvision's transforms, as its reference scripts do."""

    def __init__(self, data: TrialData, image_size: int) -> None:
        self._images = data.images[data.splits.train]
        self._labels = data.labels[data.splits.train]
        self._transform = v2.Compose(
            [
                v2.Resize((image_size, image_size), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=BRIGHTNESS_FRACTION),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index])


def make_config(backbone: str, image_size: int, *, max_lr: float = 0.05, **changes: Value) -> TrialConfig:
    """Return the configuration that both sides train; `changes` replace fixed settings, for other benches."""
    return TrialConfig(
        arm=backbone,
        seed=0,
        hyperparameters={"backbone": backbone, "max_lr": max_lr, "backbone_lr_ratio": 1.0, "cutmix_probability": 0.0},
        fixed={
            "class_weighting": "none",
            "interpolation": "bicubic",
            "weight_decay": 1e-4,
            "label_smoothing": 0.0,
            "image_size": image_size,
            "batch_size": BATCH_SIZE,
            "max_epochs": 100,
            "weights": "none",
            "freeze": False,
            "precision": "bf16",
            "channels_last": True,
            "flip_probability": 0.5,
            "rotation_degrees": 0.0,
            "brightness_fraction": BRIGHTNESS_FRACTION,
            "lr_peak_fraction": 0.3,
            "weighted_group": "",
            "momentum": 0.9,
            **changes,
        },
    )


def make_reference(
    data: TrialData, backbone: str, image_size: int, device: torch.device, workers: int
) -> Callable[[], float]:
    """Return a function that trains one epoch by the reference recipe and returns images per second."""
    model = torchvision.models.get_model(backbone, weights=None, num_classes=len(data.class_names)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    loader = DataLoader(
        ReferenceDataset(data, image_size), batch_size=BATCH_SIZE, shuffle=True, drop_last=True, num_workers=workers
    )
    loss_function = nn.CrossEntropyLoss()

    def train_epoch() -> float:
        started, seen = time.perf_counter(), 0
        for images, labels in loader:
            loss = loss_function(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return seen / (time.perf_counter() - started)

    return train_epoch


def compare(
    backbone: str = "resnet18", image_size: int = 32, num_images: int = 2000, repeats: int = 5, workers: int = 0
) -> None:
    """Print images per second of both sides, and their ratio pair by pair."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    image_set = load_image_set("planted", num_images=num_images)
    splits = make_splits(image_set, seed=0, search_fraction=0.05, confirm_fraction=0.05, test_fraction=0.05)
    data = TrialData(images=image_set.images, labels=image_set.labels, splits=splits, class_names=image_set.class_names)
    run = TrainingRun(make_config(backbone, image_size), data, device=device)
    train_reference = make_reference(data, backbone, image_size, device, workers)
    run.run_epoch()
    train_reference()
    pairs = [(run.run_epoch().train_images_per_second, train_reference()) for _ in range(repeats)]
    ratios = [ours / theirs for ours, theirs in pairs]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    table = Table(
        title=f"P2 {backbone} at {image_size} px on {name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for column in ("", "median", "lowest", "highest"):
        table.add_column(column)
    rows = [
        ("images/s, this loop (bf16)", [ours for ours, _ in pairs]),
        ("images/s, reference (fp32, PIL)", [theirs for _, theirs in pairs]),
        ("ratio", ratios),
    ]
    for label, values in rows:
        table.add_row(label, *(f"{f(values):.2f}" for f in (statistics.median, min, max)))
    console = Console(width=110)
    console.print(table)
    met = "met" if statistics.median(ratios) >= GOAL else "missed"
    console.print(f"goal on a CPU at 32 px: >= {GOAL}x; {met}")


if __name__ == "__main__":
    typer.run(compare)

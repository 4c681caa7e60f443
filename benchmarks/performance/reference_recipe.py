"""The torchvision reference recipe (DataLoader, PIL transforms, fp32), and the configuration that is compared with it.

Both sides train the same backbone from the same weights (none) with the same augmentation (flip, brightness), batch size and
number of threads.
"""

import time
from collections.abc import Callable

import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.ratios import synchronize
from search_spaces.config import TrialConfig, Value
from trainables.training.trial_data import TrialData

BATCH_SIZE = 128
BRIGHTNESS_FRACTION = 0.2


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


def make_config(
    backbone: str, image_size: int, *, max_lr: float = 0.05, cutmix: float = 0.0, **changes: Value
) -> TrialConfig:
    """Return the configuration that both sides train; `changes` replace fixed settings."""
    hyperparameters = {"backbone": backbone, "max_lr": max_lr, "backbone_lr_ratio": 1.0, "cutmix_probability": cutmix}
    fixed = {
        "class_weighting": "none", "interpolation": "bicubic", "weight_decay": 1e-4, "label_smoothing": 0.0,
        "image_size": image_size, "batch_size": BATCH_SIZE, "max_epochs": 100, "weights": "none", "tuning": "full",
        "precision": "bf16", "channels_last": True, "flip_probability": 0.5, "rotation_degrees": 0.0,
        "brightness_fraction": BRIGHTNESS_FRACTION, "lr_peak_fraction": 0.3, "weighted_group": "", "momentum": 0.9,
    }  # fmt: skip
    return TrialConfig(arm=backbone, seed=0, hyperparameters=hyperparameters, fixed={**fixed, **changes})


def make_reference(
    data: TrialData, backbone: str, image_size: int, device: torch.device, workers: int
) -> Callable[[], float]:
    """Return a function that trains one epoch by the reference recipe and returns images per second."""
    model = torchvision.models.get_model(backbone, weights=None, num_classes=len(data.class_names)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    options = {"batch_size": BATCH_SIZE, "shuffle": True, "drop_last": True, "num_workers": workers}
    loader = DataLoader(ReferenceDataset(data, image_size), **options)
    loss_function = nn.CrossEntropyLoss()

    def train_epoch() -> float:
        started, seen = time.perf_counter(), 0
        for images, labels in loader:
            loss = loss_function(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
        synchronize(device)
        return seen / (time.perf_counter() - started)

    return train_epoch

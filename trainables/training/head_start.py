"""The head of a trial before its first step: random, or a linear probe on the frozen backbone (LP-FT)."""

import torch
from torch import nn

from search_spaces.config import TrialConfig
from trainables.data.splits import Splits
from trainables.models.heads import Head, find_head
from trainables.training.frozen_features import Features, FrozenBackbone, borrow_backbone
from trainables.training.linear_probe import MAX_IMAGES, LinearProbe, draw_sample, fit_linear_probe, measure_scale
from trainables.training.placed_images import PlacedImages
from trainables.training.trial_data import TrialData

PROBE = "probe"


def prepare_head(
    model: nn.Module,
    config: TrialConfig,
    data: TrialData,
    images: PlacedImages,
    device: torch.device,
    *,
    is_restored: bool,
) -> None:
    """Let the head standardize its inputs and start from a linear probe, where the configuration says so.

    With `head_init = "probe"`, head and frozen backbone together are the probe before the first step (Kumar et al. 2022,
    Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR). A head that is trained alone
    standardizes its inputs in any case, and divides them by the root of their number.

    Args:
        model: Placed model of `build_model`.
        config: Reads `tuning` and `head_init`, and what the features depend on.
        data: Images and splits.
        images: Those of `data`, placed.
        device: Of the model.
        is_restored: Whether a checkpoint replaces all values of the head.
    """
    if config["tuning"] != PROBE and config["head_init"] != PROBE:
        return
    _, head = find_head(model)
    if is_restored:
        head.standardize(torch.zeros(head.in_features), torch.ones(head.in_features))
        return
    # Features of norm 1 or so, with which the rates of a search fit a regularized regression to a head that is trained alone.
    factor = head.in_features**0.5 if config["tuning"] == PROBE else 1.0
    with borrow_backbone(model, config, device) as backbone:
        if config["head_init"] == PROBE:
            probe = measure_probe(backbone, data, images)
            mean, scale = probe.mean, probe.scale
            set_head(head, probe, factor)
        else:
            mean, scale = measure_scale(compute_split(backbone, data, images, "train"))
    head.standardize(torch.tensor(mean), factor * torch.tensor(scale))


def set_head(head: Head, probe: LinearProbe, factor: float = 1.0) -> None:
    """Give a head the weight of a probe, times `factor`, and its bias."""
    with torch.no_grad():
        head.weight.copy_(factor * torch.tensor(probe.weight))
        if head.bias is not None:
            head.bias.copy_(torch.tensor(probe.bias))


def measure_probe(
    backbone: FrozenBackbone, data: TrialData, images: PlacedImages, most: int = MAX_IMAGES
) -> LinearProbe:
    """Return the linear probe of a backbone, fitted on the training split or on a stratified sample of `most` of its images."""
    splits = data.splits
    train, search = (draw_sample(part, data.labels, most) for part in (splits.train, splits.search))
    digest = identify_images(data)
    return fit_linear_probe(
        backbone.compute_part(images, train, digest),
        data.labels[train],
        backbone.compute_part(images, search, digest),
        data.labels[search],
        len(data.class_names),
    )


def compute_split(
    backbone: FrozenBackbone, data: TrialData, images: PlacedImages, split: str, view: int = 0
) -> Features:
    """Return (N, D) features of a split, see `FrozenBackbone.compute_part`."""
    return backbone.compute_part(images, getattr(data.splits, split), identify_images(data), view=view)


def identify_images(data: TrialData) -> str:
    """Return what distinguishes the images of a study from others, for keys of the cache."""
    splits: Splits = data.splits
    return f"{splits.data_fingerprint} {data.images.shape}"

"""How images become squares: what a crop of the center cuts away, and which way lets a probe tell the classes apart best."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from analysis.images.probe import ProbeImages, choose_images, compute_probe_difference, fit_probe
from analysis.images.values import AspectChoice
from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError
from trainables.data.images import Aspect, ImageSet
from trainables.data.splits import Splits
from trainables.models.backbones import count_forward_flops
from trainables.training.frozen_features import FrozenBackbone, digest_images

ASPECTS: tuple[Aspect, ...] = get_args(Aspect)
# Two-sided confidence of an interval that reaches one standard error to either side.
ONE_STANDARD_ERROR = 0.6827
# Floating-point operations of the features under one aspect on a CPU: about 5 s of one core.
CPU_FLOPS = 5e11
MIN_IMAGES, MAX_IMAGES = 200, 1000
NUM_SHOWN = 3


def show_aspects(image_set: ImageSet, train: IntArray) -> Mapping[Aspect, NDArray[np.uint8]]:
    """Return (n, S, S, 3) of the training images whose sides differ most under each aspect; nothing where that is impossible."""
    origin = image_set.origin
    if origin is None or origin.decode_as is None:
        return {}
    width, height = origin.sizes[train].T
    ratio = np.minimum(width, height) / np.maximum(width, height)
    chosen = train[np.argsort(ratio, kind="stable")[: min(NUM_SHOWN, int((ratio < 1).sum()))]]
    try:
        return origin.decode_as(np.sort(chosen), ASPECTS) if len(chosen) else {}
    except UserInputError:  # Too long for one of them.
        return {}


def choose_aspect(
    backbone: FrozenBackbone, image_set: ImageSet, splits: Splits, current: Aspect, *, seed: int
) -> AspectChoice | None:
    """Return under which aspect a linear probe is best; the current one unless another is better by its standard error.

    Args:
        backbone: pretrained.
        image_set: the images, decoded under the current aspect.
        splits: of the images; those of the test split are left out.
        current: aspect that stays where none is better.
        seed: of the sample and the folds.

    Returns:
        The choice; None where fewer than two classes have two images, or the files cannot be decoded again.

    Raises:
        UserInputError: for an image that cannot be decoded under another aspect.
    """
    number = MAX_IMAGES
    if backbone.device.type == "cpu":
        flops = count_forward_flops(backbone.config, image_set.num_classes)
        number = int(np.clip(CPU_FLOPS / flops, MIN_IMAGES, MAX_IMAGES))
    candidates = np.concatenate([splits.train, splits.search, splits.confirm])
    chosen = choose_images(candidates, image_set.labels, image_set.units, num_images=number, seed=seed)
    if chosen is None or image_set.origin is None or image_set.origin.decode_as is None:
        return None
    others = [aspect for aspect in ASPECTS if aspect != current]
    images = {current: np.array(image_set.images[chosen.sample_ids])}
    images |= image_set.origin.decode_as(chosen.sample_ids, others)
    return _compare(backbone, chosen, images, current)


def _compare(
    backbone: FrozenBackbone, chosen: ProbeImages, images: Mapping[Aspect, NDArray[np.uint8]], current: Aspect
) -> AspectChoice:
    features = {aspect: backbone.compute(shown, digest_images(shown)) for aspect, shown in images.items()}
    probes = {aspect: fit_probe(found, chosen) for aspect, found in features.items()}
    gains = {
        aspect: compute_probe_difference(probe, probes[current], ONE_STANDARD_ERROR)
        for aspect, probe in probes.items()
        if aspect != current
    }
    better = [aspect for aspect, gain in gains.items() if gain.low > 0]
    return AspectChoice(
        aspect=max(better, key=lambda aspect: gains[aspect].estimate, default=current),
        current=current,
        backbone=backbone.config.word("backbone"),
        num_images=len(chosen.sample_ids),
        macro_f1={aspect: probes[aspect].macro_f1.estimate for aspect in ASPECTS},
        gains=gains,
    )

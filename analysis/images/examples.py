"""Examples of classes before and after augmentation."""

import numpy as np
import torch

from analysis.findings.image_findings import Examples
from trainables.data.augmentation.pipeline import AugmentationSettings, augment_batch
from trainables.data.images import ImageSet
from trainables.data.splits import Splits
from trainables.seeds import numpy_generator, torch_generator

MAX_CLASSES = 20
NUM_EXAMPLES = 4


def draw_examples(image_set: ImageSet, splits: Splits, settings: AugmentationSettings, seed: int) -> Examples:
    """Return random training images of the first `MAX_CLASSES` classes that have some, before and after augmentation.

    Args:
        image_set: the images.
        splits: of the images.
        settings: of the augmentation.
        seed: of the draws.
    """
    generator = numpy_generator(seed, "examples")
    labels = image_set.labels[splits.train]
    classes = [int(k) for k in np.unique(labels)[:MAX_CLASSES]]
    members = [splits.train[labels == k] for k in classes]
    chosen = [np.sort(generator.choice(m, size=min(NUM_EXAMPLES, len(m)), replace=False)) for m in members]
    ids = np.concatenate(chosen)
    images = np.array(image_set.images[ids])
    inputs, _ = augment_batch(
        torch.from_numpy(images),
        torch.from_numpy(np.array(image_set.labels[ids])),
        generator=torch_generator(seed, "examples"),
        settings=settings,
        num_classes=image_set.num_classes,
    )
    pixels = inputs.permute(0, 2, 3, 1).numpy() * np.array(settings.std) + np.array(settings.mean)
    augmented = np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
    ends = np.cumsum([len(c) for c in chosen])[:-1]
    return Examples(
        classes=tuple(classes),
        before=tuple(np.split(images, ends)),
        after=tuple(np.split(augmented, ends)),
        cutmix_probability=settings.cutmix_probability,
        mixup_fraction=(1 - settings.cutmix_probability) * settings.mixup_probability,
    )

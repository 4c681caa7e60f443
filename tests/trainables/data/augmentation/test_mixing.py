"""CutMix and MixUp: at most one of them for an image, with targets of the same shares as the pixels."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor
from torchvision.transforms import v2

from search_spaces.settings import AugmentationKeys
from tests.trainables.data.augmentation.changed_settings import change
from tests.trainables.data.augmentation.test_pipeline import OFF, SIZE, make_images, prepare
from trainables.data.augmentation.mixing import mix_images
from trainables.data.augmentation.pipeline import augment_batch

NUM_IMAGES = 4000


def mix_own_classes(num_images: int, size: int = 8, seed: int = 0, **changes: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the unmixed inputs, the mixed ones and their targets; every image has a class of its own."""
    images = make_images(num_images, size)
    settings = change(OFF, image_size=size, **changes)  # type: ignore[arg-type]
    inputs, targets = augment_batch(
        images,
        torch.arange(num_images),
        generator=torch.Generator().manual_seed(seed),
        settings=settings,
        num_classes=num_images,
    )
    return prepare(images, size), inputs, targets


@pytest.mark.parametrize("cutmix_probability", [0.0, 0.5])
def test_mixup_blends_pixels_and_targets_with_the_same_lambda(cutmix_probability: float) -> None:
    plain, inputs, targets = mix_own_classes(
        64, SIZE, mixup_probability=1.0, mixup_alpha=1.0, cutmix_probability=cutmix_probability
    )
    blended = torch.einsum("bk,kcij->bcij", targets, plain)
    is_mixup = torch.tensor([torch.allclose(a, b, atol=1e-5) for a, b in zip(inputs, blended, strict=True)])
    assert float(is_mixup.float().mean()) >= 0.9 * (1 - cutmix_probability)
    torch.testing.assert_close(targets.sum(1), torch.ones(64), rtol=0, atol=1e-6)
    for i in torch.nonzero(~is_mixup).flatten().tolist():
        assert cutmix_probability > 0
        partner = int(torch.where(torch.arange(64) == i, -1.0, targets[i]).argmax())
        own, other = inputs[i] == plain[i], inputs[i] == plain[partner]
        assert (own | other).all(), "an image with a box is not blended as well"


def test_mixup_equals_torchvisions_at_the_same_lambda_and_partner() -> None:
    """torchvision's MixUp takes the image before as partner and one lambda for the batch: here image by image."""
    plain, inputs, targets = mix_own_classes(12, SIZE, mixup_probability=1.0, mixup_alpha=1.0)
    published = v2.MixUp(num_classes=12)
    for i in range(12):
        own = float(targets[i, i])
        partner = int(torch.where(torch.arange(12) == i, -1.0, targets[i]).argmax())
        published.make_params = lambda _, own=own: {"lam": own}  # type: ignore[method-assign, misc]
        pair, labels = published(plain[[partner, i]], torch.tensor([partner, i]))
        torch.testing.assert_close(inputs[i], pair[1], rtol=0, atol=1e-5)
        torch.testing.assert_close(targets[i], labels[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lambda_follows_its_beta_distribution(alpha: float) -> None:
    _, _, targets = mix_own_classes(1000, mixup_probability=1.0, mixup_alpha=alpha)
    own = targets.diagonal().double().numpy()
    own = own[own < 1 - 1e-6]  # without the images that are their own partners, and lambdas that float32 rounds to 1
    assert kstest(own, lambda x: beta.cdf(x, alpha, alpha) / beta.cdf(1 - 1e-6, alpha, alpha)).pvalue > 0.01


def test_mixup_chooses_among_the_images_that_cutmix_leaves() -> None:
    """A quarter by CutMix, less the boxes without pixels, and 0.4 of the rest by MixUp, each with a partner of its own."""
    inputs = torch.arange(NUM_IMAGES, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 8, 8)
    draws = torch.rand((4, NUM_IMAGES), generator=torch.Generator().manual_seed(2))
    boxes = torch.arange(NUM_IMAGES).roll(1), draws, 0.25
    both, cutmix = (AugmentationKeys(mixup_probability=share, mixup_alpha=1.0) for share in (0.4, 0.0))
    mixed, alone = (mix_images(inputs.clone(), torch.ones(NUM_IMAGES, 1), boxes, s, 3)[0] for s in (both, cutmix))
    by_cutmix = draws[0] < 0.25
    assert torch.equal(mixed[by_cutmix], alone[by_cutmix])
    assert torch.equal(alone[~by_cutmix], inputs[~by_cutmix])
    by_mixup = (mixed != inputs).flatten(1).any(1) & ~by_cutmix
    assert float(by_mixup.float().mean()) == pytest.approx(0.75 * 0.4, abs=0.02)
    flat = mixed[by_mixup].flatten(1)
    assert torch.equal(flat.amin(1), flat.amax(1)), "MixUp blends whole images"


def test_the_partners_of_mixup_are_a_permutation_and_the_images_before_any_mixing() -> None:
    """Every image has weight in as many blends as it is a partner: once."""
    _, _, targets = mix_own_classes(200, mixup_probability=1.0, mixup_alpha=1.0)
    foreign = targets - torch.diag(targets.diagonal())
    partners = [int(row.argmax()) for row in foreign if row.max() > 0]
    assert len(partners) == len(set(partners))
    assert len(partners) >= 195
    assert np.std(np.subtract(partners, np.arange(len(partners)))) > 30, "not the neighbors"

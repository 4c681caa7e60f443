"""The choice and the validity tests of heat maps, on networks that read the object's color by construction."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from analysis.heat_maps import choice, validity_tests
from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.choice import divide_audit_images
from analysis.heat_maps.validity_tests import CamModels, admit_cams
from analysis.heat_maps.values import CamAdmission, CamTest
from analysis.shortcuts.swaps import AuditImages
from benchmarks.performance.reference_recipe import make_config
from benchmarks.validation.planted_maps import ForeignMaps, draw_scattered
from benchmarks.validation.planted_models import to_audit_images
from search_spaces.errors import UserInputError
from trainables.data.augmentation.pipeline import IMAGENET_MEAN, IMAGENET_STD
from trainables.data.image_array import PAD_COLOR
from trainables.data.sources.planted_scenes import make_planted_scenes
from trainables.seeds import torch_generator

CONFIG = make_config("resnet18", 16, precision="fp32", channels_last=False)
TESTS = ("empty maps", "parameter randomization", "ROAD", "agreement with swapped rings")


def make_stage() -> nn.Module:
    scale = nn.Conv2d(10, 10, 1, groups=10, bias=False)
    nn.init.ones_(scale.weight)
    return nn.Sequential(scale, nn.AvgPool2d(2))


class ColorReader(nn.Module):
    """Ten detectors of hues, averaged over the image, with the layers of a ResNet: 8x8, 4x4, 2x2 and 1x1 cells."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 1)
        self.relu = nn.ReLU()
        self.layer1, self.layer2, self.layer3, self.layer4 = (make_stage() for _ in range(4))
        self.flatten = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(10, 10)
        with torch.no_grad():
            if seed is None:
                self._read_color()
            else:
                generator = torch_generator(seed, "color reader")
                for parameter in self.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def _read_color(self) -> None:
        turns = 2 * np.pi * np.arange(10) / 10
        red, green, blue = np.eye(3)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        chroma = np.cos(turns)[:, None] * 0.564 * (blue - luma) + np.sin(turns)[:, None] * 0.713 * (red - luma)
        mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
        self.conv.weight.copy_(torch.from_numpy(255 * chroma * std)[:, :, None, None])
        self.conv.bias.copy_(torch.from_numpy(255 * chroma @ mean - 12))
        self.fc.weight.copy_(torch.eye(10) * 20 - 2)
        self.fc.bias.zero_()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.relu(self.conv(inputs)))
        logits: torch.Tensor = self.fc(self.flatten(self.layer4(self.layer3(self.layer2(x)))).flatten(1))
        return logits


def make_models(*models: nn.Module) -> CamModels:
    trained = [CamNetwork(model=model.eval(), config=CONFIG) for model in models]
    randomized = [CamNetwork(model=ColorReader(100 + i).eval(), config=CONFIG) for i in range(len(models))]
    return CamModels(trained=trained, randomized=randomized)


@pytest.fixture(scope="module", autouse=True)
def few_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "FIRST_IMAGES", 10)
        patch.setattr(choice, "CHOICE_IMAGES", 20)
        patch.setattr(validity_tests, "ROAD_IMAGES", 40)
        yield


@pytest.fixture(scope="module")
def audit_images() -> AuditImages:
    return to_audit_images(draw_scattered("object", 200, 5, 16))


def by_name(tests: Sequence[CamTest]) -> dict[str, CamTest]:
    return {test.name: test for test in tests}


@pytest.fixture(scope="module")
def admission(audit_images: AuditImages) -> CamAdmission:
    return admit_cams(make_models(ColorReader()), audit_images)


def test_a_network_that_reads_the_object_is_admitted(admission: CamAdmission, audit_images: AuditImages) -> None:
    network = make_models(ColorReader()).trained[0]
    predicted = network.compute_logits(network.prepare(audit_images.images)).argmax(axis=1)
    assert np.mean(predicted == audit_images.labels) > 0.8
    assert tuple(test.name for test in admission.tests) == TESTS
    assert admission.is_admitted, admission.tests
    assert admission.num_images == 100
    assert admission.object_focus is not None
    assert admission.object_focus.models.low > 0.1
    # One model: nothing is known about others.
    assert all(test.estimate.models is not None and test.estimate.recipe is None for test in admission.tests)


def test_partners_have_nearly_one_shape(audit_images: AuditImages) -> None:
    padded = audit_images.images.copy()
    heights = np.random.default_rng(0).permutation(np.repeat([4, 8, 12, 16], len(padded) // 4))
    for image, height in zip(padded, heights, strict=True):
        image[: (16 - height) // 2] = image[16 - (16 - height) // 2 :] = PAD_COLOR
    partners = choice.draw_cycle(padded, np.random.default_rng(1))
    assert sorted(partners.tolist()) == list(range(len(padded)))
    assert (heights[partners] != heights).sum() == 4
    plain = choice.draw_cycle(audit_images.images, np.random.default_rng(1))
    assert (heights[plain] != heights).mean() > 0.5


def test_the_ring_of_heat_maps_lies_in_the_content(audit_images: AuditImages, monkeypatch: pytest.MonkeyPatch) -> None:
    padded, seen = audit_images.images.copy(), []
    padded[:, :4] = padded[:, -4:] = PAD_COLOR
    share_inside = validity_tests._share_inside

    def share(cams: np.ndarray, regions: np.ndarray) -> np.ndarray:
        seen.append(regions)
        return share_inside(cams, regions)

    monkeypatch.setattr(validity_tests, "_share_inside", share)
    found = admit_cams(make_models(ColorReader()), replace(audit_images, images=padded))
    assert len(found.tests) == len(TESTS)
    rings = seen[0]
    assert len(rings) == found.num_images
    assert not rings[:, :4].any()
    assert not rings[:, 5:11, 2:14].any()
    assert rings[:, 4].all()
    assert rings[:, 4:12, :2].all()


def test_all_methods_and_layers_are_candidates(admission: CamAdmission) -> None:
    tried = admission.candidates
    assert {(c.layer, c.method) for c in tried} == {
        (layer, method) for layer in ("layer1", "layer2") for method in ("Grad-CAM", "HiResCAM", "LayerCAM")
    }
    assert [c.num_images for c in tried] == [20, 20, 20, 10, 10, 10]
    assert (tried[0].layer, tried[0].map_size, tried[0].method) == (
        admission.layer,
        admission.map_size,
        admission.method,
    )
    assert tried[0].road == max(c.road for c in tried[:3] if c.empty_share < 0.01 and c.similarity < 0.5)
    assert all(c.standard_error > 0 for c in tried)


def test_several_models_have_both_intervals(audit_images: AuditImages) -> None:
    other = ColorReader()
    with torch.no_grad():
        other.fc.weight.mul_(1.2)
    found = admit_cams(make_models(ColorReader(), other), audit_images)
    assert found.is_admitted
    assert all(test.estimate.recipe is not None for test in found.tests)


class GuardedNetwork(CamNetwork):
    """A network of a fold, which takes images whose corner has the color of that fold alone."""

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        assert set(images[:, 0, 0, 0].tolist()) <= {255 * self.config.seed}
        return super().prepare(images)


def test_with_folds_each_network_is_asked_about_images_of_its_fold_and_all_count_once(
    audit_images: AuditImages,
) -> None:
    folds = np.random.default_rng(0).integers(2, size=len(audit_images.labels))
    images = audit_images.images.copy()
    images[:, 0, 0] = 255 * folds[:, None]

    def guard(networks: Sequence[CamNetwork]) -> list[CamNetwork]:
        return [GuardedNetwork(model=n.model, config=n.config.with_seed(fold)) for fold, n in enumerate(networks)]

    models = make_models(ColorReader(), ColorReader())
    models = CamModels(trained=guard(models.trained), randomized=guard(models.randomized))
    found = admit_cams(models, replace(audit_images, images=images, folds=folds))
    assert found.is_admitted, found.tests
    assert 90 <= found.num_images <= 110
    assert all(test.estimate.recipe is None for test in found.tests), "together they are one model"
    assert found.object_focus is not None
    assert found.object_focus.estimate > 0.1


def test_an_untrained_network_is_refused(audit_images: AuditImages) -> None:
    """Its maps are faithful, and gain a little, but not materially."""
    with torch.no_grad():
        untrained = ColorReader(7)
        untrained.fc.weight.mul_(0.05)
    found = admit_cams(make_models(untrained), audit_images)
    assert not found.is_admitted
    assert not by_name(found.tests)["ROAD"].is_passed


def test_maps_of_another_network_are_refused(audit_images: AuditImages) -> None:
    found = admit_cams(make_models(ForeignMaps(ColorReader(), ColorReader(8))), audit_images)
    assert not found.is_admitted


def test_images_without_an_object_have_no_share_of_energy_on_it(audit_images: AuditImages) -> None:
    assert audit_images.masks is not None
    masks = audit_images.masks.copy()
    masks[::2] = False
    found = admit_cams(make_models(ColorReader()), replace(audit_images, masks=masks)).object_focus
    assert found is not None
    assert found.estimate > 0.1, "as of images with objects alone"
    masks[:] = False
    assert admit_cams(make_models(ColorReader()), replace(audit_images, masks=masks)).object_focus is None


def test_maps_that_do_not_depend_on_the_parameters_are_refused(audit_images: AuditImages) -> None:
    models = make_models(ColorReader())
    found = admit_cams(replace(models, randomized=models.trained), audit_images)
    assert not found.is_admitted
    assert by_name(found.tests)["parameter randomization"].estimate.estimate == pytest.approx(1.0)


def test_maps_of_a_network_with_constant_output_are_empty(audit_images: AuditImages) -> None:
    constant = ColorReader()
    with torch.no_grad():
        constant.fc.weight.zero_()
    found = admit_cams(make_models(constant), audit_images)
    assert by_name(found.tests)["empty maps"].estimate.estimate == 1.0
    assert not any(test.is_passed for test in found.tests)
    assert not found.is_admitted
    assert found.object_focus is not None
    assert found.object_focus.estimate == 0.0


def test_the_ring_test_applies_only_where_the_ring_matters() -> None:
    options = {"seed": 5, "num_images": 200, "image_size": 24, "num_distractors": 0}
    # The color of the object, which lies in the center, or of a frame.
    centered = make_planted_scenes(**options, cue_correlation={"color": 1.0}).image_set
    framed = make_planted_scenes(**options, cue_correlation={"color": 0.0}, shortcuts={"frame": 1.0}).image_set
    for scenes, applies in ((centered, False), (framed, True)):
        found = admit_cams(make_models(ColorReader()), to_audit_images(scenes))
        assert by_name(found.tests)["agreement with swapped rings"].applies == applies


def test_a_test_that_does_not_apply_does_not_block_admission(
    audit_images: AuditImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validity_tests, "_rank_correlation", lambda _, lost: (0.0, np.zeros(len(lost))))
    for limit, applies in ((0.5, False), (0.0, True)):
        monkeypatch.setattr(validity_tests, "MIN_RING_INFLUENCE", limit)
        found = admit_cams(make_models(ColorReader()), audit_images)
        ring = by_name(found.tests)["agreement with swapped rings"]
        assert (ring.applies, ring.is_passed, found.is_admitted) == (applies, False, not applies)


def test_choice_and_tests_use_different_images(audit_images: AuditImages) -> None:
    labels = audit_images.labels.copy()
    few = np.flatnonzero(labels == 3)[:3]
    audit_images = audit_images.take(np.sort(np.concatenate([np.flatnonzero(labels != 3), few])))
    one, other = divide_audit_images(audit_images)
    both = np.concatenate([one.images, other.images]).reshape(180, -1)
    assert len(np.unique(both, axis=0)) == 180
    assert np.array_equal(np.bincount(one.labels), np.bincount(other.labels))
    assert 3 not in one.labels


def test_too_few_images_are_refused(audit_images: AuditImages) -> None:
    with pytest.raises(UserInputError, match="four images"):
        admit_cams(make_models(ColorReader()), audit_images.take(np.array([0, 1, 2])))

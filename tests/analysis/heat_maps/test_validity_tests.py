"""The four validity tests of heat maps, on trained and on untrained networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from analysis.audits.swap_effects import AuditImages
from analysis.findings.forensic_findings import CamTest
from analysis.heat_maps.grad_cam import choose_cam_layer, compute_cams, compute_road
from analysis.heat_maps.validity_tests import CamModels, admit_cams
from benchmarks.validation.planted_models import train_runs
from search_spaces.errors import UserInputError
from trainables.data.augmentation import prepare_batch
from trainables.data.sources.planted import make_planted_scenes
from trainables.models.backbones import build_model

CORRELATION = {"shape": 0.9, "texture": 0.5, "colour": 0.9, "background": 0.0}


@pytest.fixture(scope="module")
def audit_images() -> AuditImages:
    scenes = make_planted_scenes(seed=5, num_images=200, cue_correlation=CORRELATION).image_set
    return AuditImages(images=scenes.images, labels=scenes.labels, class_names=scenes.class_names, masks=scenes.masks)


@pytest.fixture(scope="module")
def models() -> CamModels:
    runs = train_runs(
        make_planted_scenes(seed=4, num_images=1200, cue_correlation=CORRELATION).image_set, 2, max_epochs=3
    )
    trained = [run.model.eval() for run in runs]
    fresh = [build_model(run.config.with_seed(77 + i), 10, weights="none").eval() for i, run in enumerate(runs)]

    def prepare(images: np.ndarray) -> torch.Tensor:
        return prepare_batch(torch.from_numpy(images), image_size=32, interpolation="bicubic", channels_last=False)

    return CamModels(trained=trained, randomized=fresh, prepare=prepare, layer=choose_cam_layer(trained[0], 32))


def by_name(tests: tuple[CamTest, ...]) -> dict[str, CamTest]:
    return {test.name: test for test in tests}


def test_trained_and_untrained_networks_are_distinguished(models: CamModels, audit_images: AuditImages) -> None:
    trained = admit_cams(models, audit_images)
    tests = by_name(trained.tests)
    assert set(tests) == {"empty maps", "parameter randomization", "ROAD", "agreement with swapped rings"}
    assert tests["parameter randomization"].estimate.estimate < 0.5
    assert trained.is_admitted == all(test.is_passed for test in trained.tests)
    assert trained.object_focus is not None
    assert trained.object_focus.estimate > 0
    untrained = admit_cams(replace(models, trained=models.randomized), audit_images)
    assert not by_name(untrained.tests)["parameter randomization"].is_passed
    assert by_name(untrained.tests)["parameter randomization"].estimate.estimate == pytest.approx(1.0)
    assert not untrained.is_admitted


def test_maps_of_a_network_with_constant_output_are_empty(models: CamModels, audit_images: AuditImages) -> None:
    constant = [build_constant(network) for network in models.randomized]
    found = admit_cams(replace(models, trained=constant), audit_images)
    tests = by_name(found.tests)
    assert tests["empty maps"].estimate.estimate == 1.0
    assert not any(test.is_passed for test in found.tests)
    assert found.object_focus is not None
    assert found.object_focus.estimate == 0.0


def build_constant(network: nn.Module) -> nn.Module:
    """Return a copy whose head ignores the image."""
    constant = build_like(network)
    with torch.no_grad():
        constant.fc.weight.zero_()
    return constant


def build_like(network: nn.Module) -> nn.Module:
    copy = resnet18(num_classes=10).eval()
    copy.load_state_dict(network.state_dict())
    return copy


def test_one_seed_is_refused(models: CamModels, audit_images: AuditImages) -> None:
    with pytest.raises(UserInputError, match="one seed only"):
        admit_cams(replace(models, trained=models.trained[:1], randomized=models.randomized[:1]), audit_images)


def test_road_prefers_the_map_to_its_inverse_and_restores_the_global_random_state(
    models: CamModels, audit_images: AuditImages
) -> None:
    inputs = models.prepare(audit_images.images[:20])
    network = models.trained[0]
    cams = compute_cams(network, inputs, audit_images.labels[:20], models.layer.name)
    state = torch.random.get_rng_state()
    right = compute_road(network, inputs, cams, audit_images.labels[:20], seed=1)
    wrong = compute_road(network, inputs, cams.max(axis=(1, 2), keepdims=True) - cams, audit_images.labels[:20], seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert right.mean() > wrong.mean()
    assert np.array_equal(right, compute_road(network, inputs, cams, audit_images.labels[:20], seed=1))

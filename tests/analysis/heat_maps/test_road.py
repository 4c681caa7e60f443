"""ROAD against the library's, and without any global random state."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import nn

from analysis.heat_maps import road
from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.grad_cam import enlarge
from analysis.heat_maps.road import KEPT_FRACTIONS, compute_road_gain, impute
from benchmarks.performance.reference_recipe import make_config
from trainables.seeds import numpy_generator

NUM_IMAGES = 4
# The library converts tensors to arrays in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def network() -> CamNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        model[4].weight.mul_(30)
    return CamNetwork(model=model, config=make_config("resnet18", 16, precision="fp32", channels_last=False))


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.from_numpy(numpy_generator(1, "road test").standard_normal((NUM_IMAGES, 3, 16, 16), dtype=np.float32))


CAMS = numpy_generator(2, "road test").random((NUM_IMAGES, 4, 4), dtype=np.float32)
CLASSES = np.array([0, 1, 2, 0])
PARTNERS = np.array([1, 2, 3, 0])


def test_gains_equal_the_difference_of_the_librarys_scores(network: CamNetwork, inputs: torch.Tensor) -> None:
    combined = ROADCombined(percentiles=[100 * fraction for fraction in KEPT_FRACTIONS])
    large = enlarge(CAMS, (16, 16))
    # The library compares values with a percentile, which ranks make exact.
    ranks = (np.argsort(np.argsort(large.reshape(NUM_IMAGES, -1))) + 0.5).reshape(large.shape) / 256
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in CLASSES]
    own, foreign = (
        combined(inputs, maps.astype(np.float32), targets, network.model) for maps in (ranks, ranks[PARTNERS])
    )
    found = compute_road_gain(network, inputs, CAMS, CLASSES, PARTNERS, seed=0)
    assert np.abs(found).max() > 0.01
    # The noise on imputed pixels is another one.
    np.testing.assert_allclose(found, own - foreign, atol=0.003)


@pytest.mark.parametrize("width", [16, 7, 2])
def test_imputed_pixels_equal_the_librarys(inputs: torch.Tensor, width: int) -> None:
    pixels = inputs[:, :, :, :width]
    kept = torch.from_numpy(enlarge(CAMS, (16, width)) < 0.5)
    expected = torch.stack([NoisyLinearImputer(noise=0.0)(*pair) for pair in zip(pixels, kept.float(), strict=True)])
    torch.testing.assert_close(impute(pixels, kept), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "solved"), [(64, 32), (130, 64)])
def test_large_images_are_imputed_at_a_lower_resolution(
    side: int, solved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    pixels = torch.from_numpy(np.stack([x, y, x + y]))
    kept = torch.ones((side, side), dtype=torch.bool)
    kept[side // 3 : 2 * side // 3, side // 4 : 5 * side // 8] = False
    sizes = []
    solve = road._solve

    def note(pixels: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(kept.shape))
        return solve(pixels, kept)

    monkeypatch.setattr(road, "_solve", note)
    found = impute(pixels[None], kept[None])[0]
    assert sizes == [(solved, solved)]
    assert torch.equal(found[:, kept], pixels[:, kept])
    # Linear ramps are their own interpolation.
    torch.testing.assert_close(found, pixels, rtol=0, atol=0.02)


def test_no_global_generator_is_used(
    network: CamNetwork, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a global generator was seeded")

    for module in (torch, torch.cuda):
        for name in ("manual_seed", "manual_seed_all"):
            monkeypatch.setattr(module, name, refuse, raising=False)
    state = torch.random.get_rng_state()
    first = compute_road_gain(network, inputs, CAMS, CLASSES, PARTNERS, seed=1)
    assert np.array_equal(first, compute_road_gain(network, inputs, CAMS, CLASSES, PARTNERS, seed=1))
    assert torch.equal(state, torch.random.get_rng_state())

"""Raw maps against hand-written ones, from the same network as the study's predictions; the model is left unchanged."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.models import resnet18, resnet50

from analysis.heat_maps import cam_layers as cam_network
from analysis.heat_maps import grad_cam
from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.grad_cam import CamMethod, Cams, compute_cams, find_cam_layers, is_degenerate
from analysis.heat_maps.panels import compute_arm_cams
from analysis.heat_maps.values import CamSource
from benchmarks.performance.reference_recipe import make_config
from search_spaces.config import Value
from search_spaces.errors import UserInputError
from trainables.models.backbones import build_model, place_model
from trainables.seeds import numpy_generator, torch_generator
from trainables.training.evaluation import compute_logits

NUM_CLASSES = 3


@pytest.fixture(scope="module")
def model() -> nn.Module:
    network: nn.Module = resnet18(num_classes=NUM_CLASSES)
    generator = torch_generator(7, "grad-cam test")
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return network.eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(5, 3, 64, 64, generator=torch_generator(8, "grad-cam test"))


CAM_LAYERS = ("layer4", "layer3", "layer2", "layer1")
TARGETS = np.array([0, 1, 2, 0, 1])
PLAIN: dict[str, Value] = {"precision": "fp32", "channels_last": False}


def make_network(model: nn.Module, image_size: int = 64) -> CamNetwork:
    return CamNetwork(model=model, config=make_config("resnet18", image_size, **PLAIN))


def compute_maps(
    model: nn.Module, inputs: torch.Tensor, targets: object, layer: str, method: CamMethod = CamMethod.GRAD_CAM
) -> Cams:
    return compute_cams(make_network(model), inputs, layer, targets).maps[method]  # type: ignore[arg-type]


def hand_written_cams(model: nn.Module, inputs: torch.Tensor, layer: str, method: CamMethod) -> NDArray[np.float32]:
    """Run the network in two halves and differentiate the target logit by the layer's output."""
    head = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    names = ("layer1", "layer2", "layer3", "layer4")
    cut = names.index(layer) + 1
    with torch.no_grad():
        activation = nn.Sequential(head, *(getattr(model, n) for n in names[:cut]))(inputs)
    activation.requires_grad_(True)
    rest = nn.Sequential(*(getattr(model, n) for n in names[cut:]), model.avgpool, nn.Flatten(), model.fc)
    logits = rest(activation)
    maps = []
    for i, target in enumerate(TARGETS):
        (gradient,) = torch.autograd.grad(logits[i, int(target)], activation, retain_graph=True)
        match method:
            case CamMethod.GRAD_CAM:
                weights = gradient[i].mean(dim=(1, 2), keepdim=True)
            case CamMethod.HIRES_CAM:
                weights = gradient[i]
            case CamMethod.LAYER_CAM:
                weights = torch.relu(gradient[i])
        maps.append(torch.relu((weights * activation[i]).sum(dim=0)).detach().numpy())
    return np.stack(maps)


@pytest.mark.parametrize(
    ("image_size", "expected"), [(32, ("layer2", 4)), (64, ("layer3", 4)), (128, ("layer4", 4)), (224, ("layer4", 7))]
)
@pytest.mark.parametrize("build", [resnet18, resnet50])
def test_the_deepest_layer_with_four_cells_is_first(build, image_size: int, expected) -> None:
    layers = find_cam_layers(make_network(build(num_classes=2), image_size))
    assert layers[0] == (expected[0], (expected[1], expected[1]))
    assert [name for name, _ in layers] == list(CAM_LAYERS[CAM_LAYERS.index(expected[0]) :])


def test_choice_leaves_the_model_unchanged() -> None:
    network = resnet18(num_classes=2)
    network.layer1.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    find_cam_layers(make_network(network))
    assert network.training
    assert not network.layer1.training
    assert network.layer4.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_no_layer_is_large_enough() -> None:
    with pytest.raises(UserInputError, match=r"at least 4x4.*12 px.*3x3"):
        find_cam_layers(make_network(resnet18(num_classes=2), 12))


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"no layer 'layer5'.*did you mean 'layer"):
        compute_cams(make_network(resnet18(num_classes=2)), torch.zeros(1, 3, 32, 32), "layer5")


@pytest.mark.parametrize("layer", CAM_LAYERS)
@pytest.mark.parametrize("method", CamMethod)
def test_raw_maps_equal_hand_written_ones(
    model: nn.Module, inputs: torch.Tensor, layer: str, method: CamMethod
) -> None:
    expected = hand_written_cams(model, inputs, layer, method)
    cams = compute_maps(model, inputs, TARGETS, layer, method)
    assert cams.dtype == np.float32
    assert cams.shape == expected.shape
    assert cams.max() > 0
    np.testing.assert_allclose(cams, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_one_pass_gives_the_logits_and_their_maps(model: nn.Module, inputs: torch.Tensor) -> None:
    found = compute_cams(make_network(model), inputs, "layer3")
    np.testing.assert_array_equal(found.logits, make_network(model).compute_logits(inputs))
    expected = compute_cams(make_network(model), inputs, "layer3", found.logits.argmax(axis=1))
    for method in CamMethod:
        np.testing.assert_array_equal(found.maps[method], expected.maps[method])


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_maps_come_from_the_network_that_predicted(precision: str) -> None:
    config = make_config("resnet18", 32, precision=precision)
    device = torch.device("cpu")
    network = CamNetwork(model=place_model(build_model(config, NUM_CLASSES), config, device), config=config)
    images = numpy_generator(3, "grad-cam test").integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    expected = compute_logits(
        network.model, torch.from_numpy(images), np.arange(70), config, device, cam_network.BATCH_SIZE
    )
    inputs = network.prepare(images)
    for logits in (compute_cams(network, inputs, "layer2").logits, network.compute_logits(inputs)):
        np.testing.assert_array_equal(logits, expected)


def test_energy_is_raw(model: nn.Module, inputs: torch.Tensor) -> None:
    """Doubling the head doubles every map: nothing rescales them."""
    single = compute_maps(model, inputs, TARGETS, "layer3")
    with torch.no_grad():
        model.fc.weight.mul_(2)
    try:
        double = compute_maps(model, inputs, TARGETS, "layer3")
    finally:
        with torch.no_grad():
            model.fc.weight.div_(2)
    np.testing.assert_allclose(double, 2 * single, rtol=1e-4, atol=1e-6)
    assert len({float(m) for m in single.max(axis=(1, 2))}) > 1


def test_maps_are_reproducible_for_any_batch_size(
    model: nn.Module, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compute_maps(model, inputs, TARGETS, "layer3")
    assert np.array_equal(first, compute_maps(model, inputs, torch.from_numpy(TARGETS), "layer3"))
    monkeypatch.setattr(grad_cam, "BATCH_SIZE", 2)
    small = compute_maps(model, inputs, TARGETS, "layer3")
    np.testing.assert_allclose(small, first, rtol=1e-4, atol=1e-5 * first.max())
    assert compute_maps(model, inputs[:0], [], "layer3").shape == (0, 0, 0)


def test_maps_depend_on_the_target(model: nn.Module, inputs: torch.Tensor) -> None:
    cams = [compute_maps(model, inputs, [k] * 5, "layer3") for k in range(NUM_CLASSES)]
    assert not np.allclose(cams[0], cams[1])
    assert not np.allclose(cams[1], cams[2])


def test_the_state_of_the_model_is_restored(inputs: torch.Tensor) -> None:
    network = resnet18(num_classes=NUM_CLASSES)
    network.layer2.eval()
    for parameter in network.layer1.parameters():
        parameter.requires_grad_(False)
    network.fc.bias.grad = torch.full((NUM_CLASSES,), 3.0)
    modes = [m.training for m in network.modules()]
    wanted = [p.requires_grad for p in network.parameters()]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.no_grad():
        compute_maps(network, inputs, TARGETS, "layer3")
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == wanted
    assert torch.equal(network.fc.bias.grad, torch.full((NUM_CLASSES,), 3.0))
    assert network.conv1.weight.grad is None
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert not inputs.requires_grad


def test_hooks_and_modes_are_restored_after_an_error(model: nn.Module, inputs: torch.Tensor) -> None:
    with pytest.raises(IndexError):
        compute_maps(model, inputs, [NUM_CLASSES] * 5, "layer3")
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_inputs_and_targets_must_fit(model: nn.Module, inputs: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="need N classes"):
        compute_maps(model, inputs, [0], "layer3")
    with pytest.raises(UserInputError, match="did you mean 'layer3'"):
        compute_cams(make_network(model), inputs, "layer33", TARGETS)


def test_maps_of_a_zeroed_head_are_degenerate(model: nn.Module, inputs: torch.Tensor) -> None:
    network = resnet18(num_classes=NUM_CLASSES)
    with torch.no_grad():
        network.fc.weight.zero_()
    assert all(is_degenerate(cam) for cam in compute_maps(network, inputs, TARGETS, "layer3"))
    assert not any(is_degenerate(cam) for cam in compute_maps(model, inputs, TARGETS, "layer3"))


def test_maps_without_energy_or_with_one_value_are_degenerate() -> None:
    peak = np.zeros((4, 4), dtype=np.float32)
    peak[1, 2] = 1e-6
    assert not is_degenerate(peak)
    assert is_degenerate(np.zeros((4, 4), dtype=np.float32))
    assert is_degenerate(np.full((4, 4), 0.5, dtype=np.float32))
    assert is_degenerate(np.ones((1, 1), dtype=np.float32))
    assert is_degenerate(np.full((4, 4), np.nan, dtype=np.float32))


def test_views_show_the_stored_prediction(model: nn.Module) -> None:
    network = make_network(model)
    images = numpy_generator(4, "grad-cam test").integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    inputs = network.prepare(images)
    # Another device may round to another class than the one that was stored.
    stored = network.compute_logits(inputs)
    stored[0] = np.roll(stored[0], 1)
    layer, size = find_cam_layers(network)[0]
    source = CamSource(layer=layer, map_size=size, method=CamMethod.HIRES_CAM)
    names = ("ant", "bee", "cat")
    cams = compute_arm_cams(network, images, TARGETS, stored, source, arm="resnet18", class_names=names)
    probabilities = torch.softmax(torch.from_numpy(stored), dim=1).numpy()
    predicted = stored.argmax(axis=1)
    expected = compute_cams(network, inputs, source.layer, predicted).maps[source.method]
    assert len(cams) == 5
    for i, cam in enumerate(cams):
        assert cam.view.predicted_class == names[predicted[i]]
        assert cam.view.predicted_probability == pytest.approx(probabilities[i].max(), abs=1e-6)
        assert cam.view.true_probability == pytest.approx(probabilities[i, TARGETS[i]], abs=1e-6)
        assert cam.view.map_size == cam.true_cam.shape == (4, 4)
        assert cam.view.method == "HiResCAM"
        assert np.array_equal(cam.predicted_cam, expected[i])
        assert np.array_equal(cam.predicted_cam, cam.true_cam) == (predicted[i] == TARGETS[i])
        assert not cam.view.degenerate
    assert not compute_arm_cams(network, images[:0], TARGETS[:0], stored[:0], source, arm="a", class_names=names)


class _ChangesInPlace(nn.Module):
    """A network that goes on with the output of its last stage in place, as DenseNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, NUM_CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.relu(self.features(inputs), inplace=True)
        return self.fc(maps.mean(dim=(2, 3)))


def test_a_layer_whose_output_is_changed_in_place_has_the_maps_of_the_output(inputs: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = _ChangesInPlace().eval()
    found = compute_cams(make_network(model), inputs, "features", TARGETS).maps[CamMethod.GRAD_CAM]
    with torch.no_grad():
        kept = model.features(inputs)
        weights = model.fc.weight[TARGETS][:, :, None, None] * (kept > 0) / kept[0, 0].numel()
        expected = (weights.mean(dim=(2, 3), keepdim=True) * kept).sum(dim=1).relu()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert found.max() > 0

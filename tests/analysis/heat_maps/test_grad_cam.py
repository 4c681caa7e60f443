"""Raw Grad-CAM against a hand-written one; the model is left unchanged."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.models import resnet18, resnet50

from analysis.heat_maps import grad_cam
from analysis.heat_maps.grad_cam import (
    CAM_LAYERS,
    CamLayer,
    choose_cam_layer,
    compute_arm_cams,
    compute_cams,
    compute_logits_and_cams,
    compute_model_logits,
    is_degenerate,
)
from search_spaces.errors import UserInputError
from trainables.seeds import torch_generator

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


TARGETS = np.array([0, 1, 2, 0, 1])


def hand_written_cams(model: nn.Module, inputs: torch.Tensor, layer: str) -> NDArray[np.float32]:
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
        weights = gradient[i].mean(dim=(1, 2), keepdim=True)
        maps.append(torch.relu((weights * activation[i]).sum(dim=0)).detach().numpy())
    return np.stack(maps)


@pytest.mark.parametrize(
    ("image_size", "expected"), [(32, ("layer2", 4)), (64, ("layer3", 4)), (128, ("layer4", 4)), (224, ("layer4", 7))]
)
@pytest.mark.parametrize("build", [resnet18, resnet50])
def test_the_deepest_layer_with_four_cells_is_chosen(build, image_size: int, expected) -> None:
    layer = choose_cam_layer(build(num_classes=2), image_size)
    assert layer == CamLayer(name=expected[0], size=(expected[1], expected[1]))


def test_choice_leaves_the_model_unchanged() -> None:
    network = resnet18(num_classes=2)
    network.layer1.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    choose_cam_layer(network, 64)
    assert network.training
    assert not network.layer1.training
    assert network.layer4.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_no_layer_is_large_enough() -> None:
    with pytest.raises(UserInputError, match=r"at least 4x4.*12 px.*3x3"):
        choose_cam_layer(resnet18(num_classes=2), 12)


def test_not_a_resnet_is_refused() -> None:
    with pytest.raises(UserInputError, match="Sequential has no layer4"):
        choose_cam_layer(nn.Sequential(nn.Conv2d(3, 2, 1)), 32)


@pytest.mark.parametrize("layer", CAM_LAYERS)
def test_raw_maps_equal_a_hand_written_grad_cam(model: nn.Module, inputs: torch.Tensor, layer: str) -> None:
    expected = hand_written_cams(model, inputs, layer)
    cams = compute_cams(model, inputs, TARGETS, layer)
    assert cams.dtype == np.float32
    assert cams.shape == expected.shape
    assert cams.max() > 0
    np.testing.assert_allclose(cams, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_one_pass_gives_the_logits_and_their_maps(
    model: nn.Module, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grad_cam, "BATCH_SIZE", 2)
    logits, cams = compute_logits_and_cams(model, inputs, "layer3")
    np.testing.assert_array_equal(
        logits, np.concatenate([compute_model_logits(model, inputs[i : i + 2]) for i in (0, 2, 4)])
    )
    expected = compute_cams(model, inputs, logits.argmax(axis=1), "layer3")
    np.testing.assert_array_equal(cams, expected)


def test_energy_is_raw(model: nn.Module, inputs: torch.Tensor) -> None:
    """Doubling the head doubles every map: nothing rescales them."""
    single = compute_cams(model, inputs, TARGETS, "layer3")
    with torch.no_grad():
        model.fc.weight.mul_(2)
    try:
        double = compute_cams(model, inputs, TARGETS, "layer3")
    finally:
        with torch.no_grad():
            model.fc.weight.div_(2)
    np.testing.assert_allclose(double, 2 * single, rtol=1e-4, atol=1e-6)
    assert len({float(m) for m in single.max(axis=(1, 2))}) > 1


def test_maps_are_reproducible_for_any_batch_size(
    model: nn.Module, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compute_cams(model, inputs, TARGETS, "layer3")
    assert np.array_equal(first, compute_cams(model, inputs, torch.from_numpy(TARGETS), "layer3"))
    monkeypatch.setattr(grad_cam, "BATCH_SIZE", 2)
    small = compute_cams(model, inputs, TARGETS, "layer3")
    np.testing.assert_allclose(small, first, rtol=1e-4, atol=1e-5 * first.max())
    assert compute_cams(model, inputs[:0], [], "layer3").shape == (0, 0, 0)


def test_maps_depend_on_the_target(model: nn.Module, inputs: torch.Tensor) -> None:
    cams = [compute_cams(model, inputs, [k] * 5, "layer3") for k in range(NUM_CLASSES)]
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
        compute_cams(network, inputs, TARGETS, "layer3")
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == wanted
    assert torch.equal(network.fc.bias.grad, torch.full((NUM_CLASSES,), 3.0))
    assert network.conv1.weight.grad is None
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert not inputs.requires_grad


def test_hooks_and_modes_are_restored_after_an_error(model: nn.Module, inputs: torch.Tensor) -> None:
    with pytest.raises(IndexError):
        compute_cams(model, inputs, [NUM_CLASSES] * 5, "layer3")
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_inputs_and_targets_must_fit(model: nn.Module, inputs: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="need N targets"):
        compute_cams(model, inputs, [0], "layer3")
    with pytest.raises(UserInputError, match="did you mean 'layer3'"):
        compute_cams(model, inputs, TARGETS, "layer33")


def test_maps_of_a_zeroed_head_are_degenerate(model: nn.Module, inputs: torch.Tensor) -> None:
    network = resnet18(num_classes=NUM_CLASSES)
    with torch.no_grad():
        network.fc.weight.zero_()
    assert all(is_degenerate(cam) for cam in compute_cams(network, inputs, TARGETS, "layer3"))
    assert not any(is_degenerate(cam) for cam in compute_cams(model, inputs, TARGETS, "layer3"))


def test_maps_without_energy_or_with_one_value_are_degenerate() -> None:
    peak = np.zeros((4, 4), dtype=np.float32)
    peak[1, 2] = 1e-6
    assert not is_degenerate(peak)
    assert is_degenerate(np.zeros((4, 4), dtype=np.float32))
    assert is_degenerate(np.full((4, 4), 0.5, dtype=np.float32))
    assert is_degenerate(np.ones((1, 1), dtype=np.float32))
    assert is_degenerate(np.full((4, 4), np.nan, dtype=np.float32))


def test_views_describe_the_maps(model: nn.Module, inputs: torch.Tensor) -> None:
    layer = choose_cam_layer(model, 64)
    cams = compute_arm_cams(model, inputs, TARGETS, arm="resnet18", class_names=("ant", "bee", "cat"), layer=layer)
    with torch.no_grad():
        probabilities = torch.softmax(model(inputs).double(), dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    expected = compute_cams(model, inputs, predicted, layer.name)
    assert len(cams) == 5
    for i, cam in enumerate(cams):
        assert cam.view.predicted_class == ("ant", "bee", "cat")[predicted[i]]
        assert cam.view.predicted_probability == pytest.approx(probabilities[i].max(), abs=1e-6)
        assert cam.view.true_probability == pytest.approx(probabilities[i, TARGETS[i]], abs=1e-6)
        assert cam.view.map_size == cam.true_cam.shape == (4, 4)
        assert np.array_equal(cam.predicted_cam, expected[i])
        assert np.array_equal(cam.predicted_cam, cam.true_cam) == (predicted[i] == TARGETS[i])
        assert not cam.view.degenerate
    assert compute_arm_cams(model, inputs[:0], TARGETS[:0], arm="a", class_names=("x",), layer=layer) == ()

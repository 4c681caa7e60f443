"""Convolutions over small maps give the results of torch's own."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainables.models.test_backbones import CONFIG, change
from trainables.models.backbones import build_model, place_model
from trainables.models.catalog import RESNETS
from trainables.models.convolutions import SmallMapConv2d, use_small_map_convolutions
from trainables.models.heads import find_head


def compute(module: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the output and the gradients of the input and of all parameters."""
    inputs = inputs.clone().requires_grad_()
    output = module(inputs)
    slope = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return output, *torch.autograd.grad((output * slope).sum(), [inputs, *module.parameters()])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side", "is_product"),
    [
        *((*shape, True) for shape in [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 1, 2), (3, 2, 1, 2), (1, 1, 0, 1)]),
        *((*shape, True) for shape in [(1, 2, 0, 2), (2, 1, 0, 2), (7, 2, 3, 4)]),
        *((*shape, False) for shape in [(3, 2, 1, 3), (3, 1, 1, 3), (1, 1, 0, 2), (3, 1, 0, 4), (1, 1, 1, 1)]),
    ],
)
def test_a_convolution_over_a_small_map_equals_torchs(
    kernel: int, stride: int, padding: int, side: int, is_product: bool, layout: torch.memory_format
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = nn.Conv2d(5, 7, kernel, stride, padding, bias=False).double().to(memory_format=layout)
        inputs = torch.randn(4, 5, side, side, dtype=torch.float64).contiguous(memory_format=layout)
    small = nn.Sequential(copy.deepcopy(plain))
    use_small_map_convolutions(small)
    assert isinstance(small[0], SmallMapConv2d)
    assert bool(small[0]._find_windows(side, side)[1]) == is_product
    for ours, theirs in zip(compute(small, inputs), compute(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_map_that_is_not_square_is_left_to_torch() -> None:
    small = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False))
    plain = copy.deepcopy(small)
    use_small_map_convolutions(small)
    inputs = torch.ones(2, 3, 1, 2)
    assert torch.equal(small(inputs), plain(inputs))


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(4, 4, 3, padding="same", bias=False),
        nn.Conv2d(4, 4, (1, 3), padding=(0, 1), bias=False),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", bias=False),
    ],
)
def test_other_convolutions_are_not_replaced(convolution: nn.Conv2d) -> None:
    model = nn.Sequential(convolution)
    use_small_map_convolutions(model)
    assert model[0] is convolution


@pytest.mark.parametrize("backbone", RESNETS)
@pytest.mark.parametrize("image_size", [8, 32, 64])
def test_a_placed_model_has_the_gradients_of_the_plain_one(backbone: str, image_size: int) -> None:
    config = change(backbone=backbone, channels_last=True)
    inputs = torch.randn(4, 3, image_size, image_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, built = build_model(config, 7), build_model(config, 7)
    for model in (plain, built):
        name, head = find_head(model)  # which computes in float32
        model.set_submodule(name, nn.Linear(head.in_features, head.out_features))
        model.get_submodule(name).load_state_dict(head.state_dict())
    plain, placed = plain.double(), place_model(built, config, torch.device("cpu")).double()
    assert list(plain.state_dict()) == list(placed.state_dict())
    for ours, theirs in zip(compute(placed, inputs), compute(plain, inputs), strict=True):
        # BatchNorm over four images of one pixel magnifies the last bits.
        assert float((ours - theirs).detach().norm()) <= 1e-7 * float(theirs.detach().norm())


def test_placing_draws_no_numbers_keeps_the_parameters_and_may_be_repeated() -> None:
    model = build_model(CONFIG, 7)
    before, parameters = torch.get_rng_state(), dict(model.named_parameters())
    config = change(channels_last=False)
    placed = place_model(place_model(model, config, torch.device("cpu")), config, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameters[name] is parameter for name, parameter in placed.named_parameters())
    kinds = {type(module) for module in placed.modules() if isinstance(module, nn.Conv2d)}
    assert kinds == {SmallMapConv2d}


@pytest.mark.parametrize("backbone", RESNETS)
@pytest.mark.parametrize("image_size", [8, 16, 32])
def test_in_bfloat16_weights_that_only_meet_padding_get_the_gradient_zero(backbone: str, image_size: int) -> None:
    """oneDNN (torch 2.13) leaves them unwritten if the input of a strided convolution is one pixel."""
    config = change(backbone=backbone, channels_last=True)
    model = place_model(build_model(config, 7), config, torch.device("cpu"))
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(16, 3, image_size, image_size)).astype(np.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(inputs).float().square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    blind = torch.ones(3, 3, dtype=torch.bool)
    blind[1:, 1:] = False
    if image_size < 32:
        blind[:] = True
    blind[1, 1] = False
    name = "layer4.0.conv1.weight" if backbone == "resnet18" else "layer4.0.conv2.weight"
    gradient = model.get_parameter(name).grad
    assert gradient is not None
    assert (gradient[:, :, blind] == 0).all()
    assert (gradient[:, :, ~blind] != 0).any()


@pytest.mark.parametrize("change_weights", ["step", "load", "mode"])
def test_a_kept_matrix_is_made_anew_when_the_weights_change(change_weights: str) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        plain = nn.Conv2d(5, 7, 3, padding=1, bias=False)
    small = nn.Sequential(copy.deepcopy(plain)).eval()
    use_small_map_convolutions(small)
    inputs = torch.randn((4, 5, 2, 2), generator=generator)

    def check() -> Tensor:
        with torch.inference_mode():
            found = small(inputs)
            assert torch.equal(small(inputs), found)
        torch.testing.assert_close(found, small(inputs).detach(), rtol=0, atol=0)
        return found

    before = check()
    kept = small[0]._kept
    assert kept is not None
    if change_weights == "step":
        optimizer = torch.optim.SGD(small.parameters(), lr=0.5, fused=True)
        small.train()
        small(inputs).square().sum().backward()
        optimizer.step()
        small.eval()
    elif change_weights == "load":
        small.load_state_dict({name: 2 * value for name, value in small.state_dict().items()})
    else:
        with torch.no_grad():
            small[0].weight.data = 2 * small[0].weight.data  # Another tensor.
        assert small.eval()[0]._kept is kept
        assert small.train()[0]._kept is None
        small.eval()
    assert not torch.equal(check(), before)

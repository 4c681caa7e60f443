"""Layers for heat maps, found by measuring: stages of CNNs, blocks of transformers, channels first or last."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from analysis.heat_maps.cam_layers import CamNetwork, find_map_layers, to_map
from analysis.heat_maps.grad_cam import CamMethod, compute_cams, find_cam_layers
from benchmarks.performance.reference_recipe import make_config


def measure(model: nn.Module, side: int) -> list[tuple[str, tuple[int, int]]]:
    with torch.no_grad():
        return find_map_layers(model.eval(), lambda: model(torch.zeros(1, 3, side, side)))


def make_vit(depth: int = 8) -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, depth, 2, 16, 32, num_classes=5)


def test_stages_of_cnns_are_found_by_their_sizes() -> None:
    assert measure(torchvision.models.resnet18(), 64) == [
        ("layer4", (2, 2)),
        ("layer3", (4, 4)),
        ("layer2", (8, 8)),
        ("layer1", (16, 16)),
    ]
    mobile = dict(measure(torchvision.models.mobilenet_v3_small(), 64))
    assert mobile["features.8"] == (4, 4)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert measure(plain, 16) == [("0", (8, 8))]


def test_channels_may_come_last() -> None:
    layers = dict(measure(torchvision.models.swin_t(), 64))
    assert layers["features.5"] == (4, 4)
    assert layers["features.3"] == (8, 8)


def test_blocks_of_a_transformer_end_before_the_last_one() -> None:
    names = [name for name, _ in measure(make_vit(), 32)]
    assert names == [f"encoder.layers.encoder_layer_{k}" for k in (6, 5, 3, 1)]
    assert len(measure(make_vit(2), 32)) == 1


def test_tokens_and_channels_last_become_maps() -> None:
    cells = torch.arange(2 * 9 * 4, dtype=torch.float32).view(2, 9, 4)
    tokens = torch.cat([torch.full((2, 1, 4), -1.0), cells], dim=1)
    assert torch.equal(to_map(tokens), cells.transpose(1, 2).reshape(2, 4, 3, 3))
    assert torch.equal(to_map(cells), to_map(tokens))
    last = torch.rand(2, 5, 5, 7)
    assert torch.equal(to_map(last), last.permute(0, 3, 1, 2))
    first = torch.rand(2, 7, 5, 5)
    assert to_map(first) is first


@pytest.mark.parametrize("method", CamMethod)
def test_a_transformers_maps_equal_hand_written_ones(method: CamMethod) -> None:
    torch.manual_seed(0)
    model = make_vit(3)
    nn.init.normal_(model.heads.head.weight)
    network = CamNetwork(model=model, config=make_config("resnet18", 32, precision="fp32", channels_last=False))
    layer, size = find_cam_layers(network)[0]
    assert (layer, size) == ("encoder.layers.encoder_layer_1", (4, 4))
    inputs, classes = torch.randn(3, 3, 32, 32), np.array([0, 3, 4])
    found = compute_cams(network, inputs, layer, classes)
    captured = {}
    block = model.encoder.layers.encoder_layer_1
    handle = block.register_forward_hook(lambda _m, _i, output: captured.setdefault("output", output))
    logits = model.eval()(inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[torch.arange(3), torch.from_numpy(classes)].sum(), captured["output"])
    gradient, activation = to_map(gradient), to_map(captured["output"].detach())
    weights = {
        CamMethod.GRAD_CAM: gradient.mean(dim=(2, 3), keepdim=True),
        CamMethod.HIRES_CAM: gradient,
        CamMethod.LAYER_CAM: gradient.relu(),
    }[method]
    expected = (weights * activation).sum(dim=1).relu().numpy()
    # HiResCAM adds up terms that nearly cancel here: layer norms ignore the scale of their inputs.
    terms = (weights * activation).abs().sum(dim=1).max()
    np.testing.assert_allclose(found.maps[method], expected, rtol=1e-4, atol=1e-5 * float(terms))
    assert expected.max() > 0


class _MapsBeforeTokens(nn.Module):
    """A transformer whose patch embedding has parts of its own and returns a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU())
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(inputs).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(dim=1))


def test_blocks_are_chosen_where_the_patch_embedding_has_maps_too() -> None:
    # Without gradients, torch runs an encoder layer as one operation.
    model = _MapsBeforeTokens().eval()
    found = find_map_layers(model, lambda: model(torch.zeros(1, 3, 32, 32)))
    assert found == [("blocks.2", (8, 8)), ("blocks.1", (8, 8)), ("blocks.0", (8, 8))]

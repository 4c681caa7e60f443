"""The networks of the planted heat maps."""

import torch
from torch import nn

from benchmarks.validation.planted_maps import ForeignMaps


def make_network(seed: int) -> nn.Module:
    """Return a small network with batch statistics that one image cannot give."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)
        )
        network(torch.rand(8, 3, 6, 6))
    return network


def test_network_with_foreign_maps_has_the_logits_of_one_and_the_layers_of_the_other() -> None:
    network, mapped = make_network(0), make_network(1)
    image = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    foreign = ForeignMaps(network, mapped).eval()
    with torch.no_grad():
        assert torch.allclose(foreign(image), network.eval()(image))
        assert not torch.allclose(foreign(image), mapped(image))
    assert [m for m in foreign.modules() if isinstance(m, nn.Conv2d)] == [
        m for m in mapped.modules() if isinstance(m, nn.Conv2d)
    ]

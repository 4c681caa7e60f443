"""`[model.arguments]`: tables of backbones that the study does not have would do nothing, and are refused."""

import pytest

from search_spaces.errors import UserInputError
from study.inputs.preparation import prepare
from study.spec.reading import parse_spec

SPEC = """
name = "small"
[data]
source = "planted"
num_images = 200
[model]
weights = "none"
[model.arguments."{name}"]
num_layers = 2
[train]
image_size = 32
"""


def test_a_table_of_another_backbone_is_refused() -> None:
    with pytest.raises(
        UserInputError, match=r"tables of torchvision:vit_b_61, but the backbones .* resnet18, resnet50"
    ):
        prepare(parse_spec(SPEC.format(name="torchvision:vit_b_61"), "test"))

"""An exported model loads in timm, torchvision or its own package, and computes the same logits there."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.performance.reference_recipe import make_config
from search_spaces.config import TrialConfig
from study.views.exported_model import _describe_preprocessing, explain_loading, write_model
from trainables.data.decoding.image_decoder import Shape, decode_image
from trainables.models.backbones import build_model

pytestmark = pytest.mark.usefixtures("trusted")

OWN = "tests.trainables.models.own_backbones:build"
CASES = {
    "resnet18": {},
    "timm:convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
    "timm:vit_tiny_patch16_224": {"depth": 2, "embed_dim": 24, "num_heads": 2},
    "torchvision:vit_b_16": {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:googlenet": {},
    OWN: {"width": 5},
    "tests.trainables.models.own_backbones:half": {},
}


def configure(name: str) -> TrialConfig:
    config = make_config("resnet18", 64)
    fixed = dict(config.fixed) | {"model_arguments": json.dumps({name: CASES[name]} if CASES[name] else {})}
    return replace(config, hyperparameters=dict(config.hyperparameters) | {"backbone": name}, fixed=fixed)


@pytest.mark.parametrize("name", CASES)
def test_a_model_loads_elsewhere_with_the_same_logits(name: str, tmp_path: Path) -> None:
    config = configure(name)
    model = build_model(config, 3, weights="none").eval()
    write_model(tmp_path / "arm", config, save(model.state_dict()), ("a", "b", "c"), "crop")
    code = explain_loading(config, 3).replace("FOLDER", str(tmp_path / "arm"))
    names: dict[str, torch.nn.Module] = {}
    exec(code, names)
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(names["model"](inputs), model(inputs))
    described = json.loads((tmp_path / "arm" / "config.json").read_text())
    assert described["label_names"] == ["a", "b", "c"]
    assert described["pretrained_cfg"]["input_size"] == [3, 64, 64]


def test_timm_reads_the_preprocessing(tmp_path: Path) -> None:
    config = configure("timm:vit_tiny_patch16_224")
    weights = save(build_model(config, 3, weights="none").state_dict())
    write_model(tmp_path / "arm", config, weights, ("a", "b", "c"), "squash")
    model = timm.create_model(f"local-dir:{tmp_path / 'arm'}", pretrained=True)
    settings = timm.data.resolve_model_data_config(model)  # type: ignore[attr-defined]
    assert tuple(settings["input_size"]) == (3, 64, 64)
    assert tuple(settings["mean"]) == (0.5, 0.5, 0.5)
    assert (settings["crop_mode"], settings["crop_pct"]) == ("squash", 1.0)


def test_timm_pads_as_the_study_does(tmp_path: Path) -> None:
    config = configure("resnet18")
    weights = save(build_model(config, 3, weights="none").state_dict())
    write_model(tmp_path / "arm", config, weights, ("a", "b", "c"), "pad")
    model = timm.create_model(f"local-dir:{tmp_path / 'arm'}", pretrained=True)
    settings = timm.data.resolve_model_data_config(model)  # type: ignore[attr-defined]
    transform = timm.data.create_transform(**settings, is_training=False, normalize=False)  # type: ignore[attr-defined]
    pixels = np.random.default_rng(0).integers(0, 256, (50, 131, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    stored, _ = decode_image(buffer.getvalue(), Shape(64, "pad"))
    np.testing.assert_array_equal(np.asarray(transform(Image.fromarray(pixels))).transpose(1, 2, 0), stored)


def test_the_description_says_where_timm_pads_otherwise() -> None:
    steps = [
        _describe_preprocessing(configure(name), "pad", (73, 73)) for name in ("resnet18", "timm:vit_tiny_patch16_224")
    ]
    assert all("padded with (124, 116, 104) on both sides alike to 73 x 73" in found["stored"] for found in steps)
    assert steps[0]["resize"].startswith("the longer side to image_size, then padded with (124, 116, 104)")
    assert "timm" not in steps[0]["resize"]
    assert "(124, 116, 104) (but by timm, as config.json cannot say that, with (128, 128, 128))" in steps[1]["resize"]

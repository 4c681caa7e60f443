"""An exported model loads in timm, torchvision or its own package, and computes the same logits there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from benchmarks.performance.reference_recipe import make_config
from search_spaces.config import TrialConfig
from study.views.exported_model import explain_loading, write_model
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

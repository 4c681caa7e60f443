"""An exported model loads in timm, torchvision or its own package, and computes the same logits there."""

import io
import json
import sys
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
from search_spaces.errors import UserInputError
from study.open_study import OpenStudy
from study.state.record_book import open_trial_files
from study.views import exported_model as onnx_export
from study.views.export import choose_exported_trial, export_study
from study.views.exported_model import _describe_preprocessing, check_packages, explain_loading, write_model, write_onnx
from tests.study.command_line import run_cli
from tests.study.searched import simulate
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


runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


ONNX_CASES = {
    "resnet18": {},
    "torchvision:vit_b_16": {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
    OWN: {"width": 5},
}


def configure_onnx(name: str) -> TrialConfig:
    config = make_config("resnet18", 32)
    fixed = dict(config.fixed) | {"model_arguments": json.dumps({name: ONNX_CASES[name]} if ONNX_CASES[name] else {})}
    return replace(config, hyperparameters=dict(config.hyperparameters) | {"backbone": name}, fixed=fixed)


def compute(path: Path, images: torch.Tensor) -> np.ndarray:
    """Return ONNX Runtime's logits."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": images.numpy()})[0]


@pytest.mark.parametrize("name", ONNX_CASES)
def test_the_file_computes_the_logits_of_torch_for_any_number_of_images(name: str, tmp_path: Path) -> None:
    config = configure_onnx(name)
    model = build_model(config.with_seed(1), 3, weights="none")
    images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model.train()(images)  # statistics of BatchNorm that differ from the initial ones
    model.eval()
    found = write_onnx(tmp_path, config, save(model.state_dict()), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    for n in (1, 7):
        with torch.no_grad():
            expected = model(images[:n]).numpy()
        np.testing.assert_allclose(compute(tmp_path / "model.onnx", images[:n]), expected, rtol=0, atol=1e-4)
    assert found["input"] == {"name": "input", "shape": ["N", 3, 32, 32], "dtype": "float32"}
    parity = found["parity"]
    assert 0 <= parity["max_difference"] <= parity["allowed"] == pytest.approx(1e-4 * max(1, parity["max_logit"]))
    assert parity["num_images"] == 8


def test_weights_beyond_the_limit_of_a_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 0)
    config = configure_onnx(OWN)
    write_onnx(tmp_path, config, save(build_model(config, 3, weights="none").state_dict()), 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    (tmp_path / "moved").mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert compute(tmp_path / "moved" / "model.onnx", torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def search_with_weights(folder: Path) -> OpenStudy:
    """Return a pooled search with one small backbone, whose best trial has weights."""
    study = simulate(folder, allocation="pooled", fixed={"backbone": OWN}, num_trials=3)
    best = choose_exported_trial(study, "all")
    assert best is not None
    digests = open_trial_files(study.store, best).write_weights(
        build_model(best.config, 2, weights="none").state_dict(), best.attempts
    )
    study.book.save(best.updated(digests=best.digests | digests))
    return study


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return search_with_weights(tmp_path_factory.mktemp("searched"))


def test_the_option_writes_a_file_and_what_was_measured(searched: OpenStudy, tmp_path: Path) -> None:
    done = run_cli("export", searched.store.root, "--to", tmp_path / "out", "--onnx", "--trust-code")
    assert done.status == 0, done.errors
    assert "out/all/model.onnx" in done.output
    described = json.loads((tmp_path / "out" / "all" / "study.json").read_text())["onnx"]
    assert described["output"] == {"name": "logits", "shape": ["N", 2], "dtype": "float32"}
    assert set(described["versions"]) == {"onnx", "onnxscript", "onnxruntime", "torch"}
    card = (tmp_path / "out" / "all" / "README.md").read_text()
    assert f"differ from torch's float32 logits by at most {described['parity']['max_difference']:.2g}" in card


def test_without_the_option_nothing_speaks_of_onnx(searched: OpenStudy, tmp_path: Path) -> None:
    folder = export_study(searched, str(tmp_path / "out")).folder / "all"
    assert "onnx" not in json.loads((folder / "study.json").read_text())
    assert "ONNX" not in (folder / "README.md").read_text()
    assert not (folder / "model.onnx").exists()


def test_other_logits_are_refused_and_nothing_is_left(
    searched: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(UserInputError, match=r"the ONNX model of .*:build differs from torch by .* leave out --onnx"):
        export_study(searched, str(tmp_path / "out"), onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_one_message_says_what_to_install(
    searched: OpenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run_cli("export", searched.store.root, "--to", tmp_path / "out", "--onnx", "--trust-code")
    assert done.status == 2
    words = " ".join(done.errors.split())
    assert '--onnx needs onnxscript, onnxruntime, not installed here; run `pip install "abstudy[onnx]"`' in words
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    check_packages()


def test_a_model_that_cannot_be_exported_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Branching(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return super().forward(input.mean((2, 3)) if float(input.sum()) > 0 else input.amax((2, 3)))

    monkeypatch.setattr(onnx_export, "build_model", lambda *_, **__: Branching(3, 2))
    with pytest.raises(UserInputError, match=r"resnet18 cannot be exported to ONNX: .*leave out --onnx") as refused:
        write_onnx(tmp_path, configure_onnx("resnet18"), save(Branching(3, 2).state_dict()), 2)
    assert "\n" not in str(refused.value)

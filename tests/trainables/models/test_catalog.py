"""Backbones by name, and what every backbone must do: the conformance suite."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.grad_cam import compute_cams, find_cam_layers
from benchmarks.performance.reference_recipe import make_config
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from tests.trainables.models import own_backbones
from trainables.data.augmentation.pipeline import IMAGENET_MEAN
from trainables.data.splits import Splits
from trainables.models.backbones import (
    build_model,
    check_input_size,
    count_forward_flops,
    prepare_inputs,
    set_training_mode,
)
from trainables.models.catalog import find_backbone, read_backbone
from trainables.models.heads import find_head
from trainables.models.parameter_groups import find_depths, find_spared, group_parameters
from trainables.training.checkpoint import Checkpoint
from trainables.training.loop import TrainingRun
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import EpochInterrupted

pytestmark = pytest.mark.usefixtures("trusted")

OWN = "tests.trainables.models.own_backbones"
SMALL_VIT = {"patch_size": 16, "num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "dropout": 0.1}
SMALL_CONVNEXT = {"stochastic_depth_prob": 0.3}
SMALL_TIMM_VIT = {"depth": 3, "embed_dim": 24, "num_heads": 2, "drop_path_rate": 0.2}
# Of every run: a ResNet, a CNN of timm, a transformer, and a custom one. `pytest -m all_models` takes the rest.
SOME = {
    "resnet18": {},
    "timm:convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "drop_path_rate": 0.2},
    "torchvision:vit_b_16": {"num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "dropout": 0.1},
    f"{OWN}:build": {"width": 6},
}
REST = {
    "resnet50": {},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:convnext_tiny": SMALL_CONVNEXT,
    "torchvision:swin_t": {},
    "torchvision:regnet_y_400mf": {},
    "torchvision:densenet121": {},
    "timm:convnext_atto.d2_in1k": {},
    "timm:vit_tiny_patch16_224": SMALL_TIMM_VIT,
    "timm:efficientnet_b0": {},
    "timm:swin_tiny_patch4_window7_224": {},
}
ALL = [*SOME, *(pytest.param(name, marks=pytest.mark.all_models) for name in REST)]
SIDE, NUM_CLASSES = 64, 3


def configure(name: str, **changes: object) -> TrialConfig:
    arguments = {**SOME, **REST}.get(name, {})
    config = make_config("resnet18", SIDE, max_epochs=2, batch_size=8, precision="fp32", channels_last=False)
    fixed = dict(config.fixed) | {"model_arguments": json.dumps({name: arguments}) if arguments else "{}"}
    hyperparameters = dict(config.hyperparameters)
    for key, value in {"backbone": name, "max_lr": 0.01, "backbone_lr_ratio": 0.25, **changes}.items():
        (hyperparameters if key in hyperparameters else fixed)[key] = value
    return replace(config, hyperparameters=hyperparameters, fixed=fixed, seed=5)


def make_data() -> TrialData:
    generator = np.random.default_rng(0)
    labels = np.arange(36) % NUM_CLASSES
    images = generator.integers(0, 256, (36, 32, 32, 3), dtype=np.uint8)
    images[..., 0] = 80 * labels[:, None, None]
    parts = np.split(np.arange(36), [18, 24, 30])
    return TrialData(
        images=images,
        labels=labels.astype(np.int64),
        splits=Splits(train=parts[0], search=parts[1], confirm=parts[2], test=parts[3], data_fingerprint="x"),
        class_names=("a", "b", "c"),
    )


def make_run(config: TrialConfig, checkpoint: Checkpoint | None = None) -> TrainingRun:
    return TrainingRun(config, make_data(), device=torch.device("cpu"), weights="none", checkpoint=checkpoint)


@pytest.mark.parametrize("name", ALL)
def test_every_backbone_conforms(name: str) -> None:
    config = configure(name)
    run = make_run(config)
    check_parameters(run.model)
    before = run.state_dict()
    global_state = torch.get_rng_state()
    run.run_epoch()
    assert torch.equal(torch.get_rng_state(), global_state)
    after = run.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before if before[key].is_floating_point())
    check_resume(config, after)
    check_predictions(run, config)
    network = CamNetwork(model=run.model, config=config)
    layer, size = find_cam_layers(network)[0]
    assert min(size) >= 4
    inputs = network.prepare(make_data().images[:4])
    assert compute_cams(network, inputs, layer).maps["Grad-CAM"].shape == (4, *size)
    assert count_forward_flops(config, NUM_CLASSES) > 0
    check_freezing(name)


def check_parameters(model: nn.Module) -> None:
    """Head and backbone have their own rates; no decay where none belongs; each parameter is in one group."""
    head_name, head = find_head(model)
    assert head.out_features == NUM_CLASSES
    groups = group_parameters(model, configure("resnet18", weight_decay=0.1))
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    parts = {id(p): group for group in groups for p in group["params"]}
    spared = find_spared(model)
    for key, parameter in model.named_parameters():
        group = parts[id(parameter)]
        assert group["part"] == ("head" if key.startswith(f"{head_name}.") else "backbone")
        assert (group["weight_decay"] > 0) == (key not in spared)
        if key.endswith("bias") or "norm" in key or "token" in key or "pos_embed" in key or parameter.ndim == 1:
            assert not group["weight_decay"], key
    assert any(group["weight_decay"] and group["part"] == "backbone" for group in groups)
    halved = configure("resnet18", max_lr=1.0, backbone_lr_ratio=1.0, layer_decay=0.5)
    scales = {group["lr"] for group in group_parameters(model, halved) if group["part"] == "backbone"}
    assert max(scales) == 0.5
    assert len(scales) == len(set(find_depths(model).values())) - 1 > 1


def check_resume(config: TrialConfig, expected: dict[str, torch.Tensor]) -> None:
    """An epoch that was interrupted between two steps continues bit for bit, dropout and stochastic depth included."""
    steps = iter((False, True))
    run = make_run(config)
    with pytest.raises(EpochInterrupted):
        run.run_epoch(should_stop=lambda: next(steps, True) or True)
    resumed = make_run(config, Checkpoint.from_bytes(run.checkpoint().to_bytes()))
    resumed.run_epoch()
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, expected[key]), key


def check_predictions(run: TrainingRun, config: TrialConfig) -> None:
    predictions = run.predict("test")
    images = torch.from_numpy(make_data().images[predictions.sample_ids])
    with torch.no_grad():
        logits = run.model.eval()(prepare_inputs(images, config)).numpy()
    np.testing.assert_allclose(predictions.logits, logits, rtol=1e-5, atol=1e-5)


def check_freezing(name: str) -> None:
    config = configure(name, freeze_depth=2)
    model = build_model(config, NUM_CLASSES, weights="none")
    depths = find_depths(model)
    assert all(p.requires_grad == (depths[key] >= 2) for key, p in model.named_parameters())
    set_training_mode(model, config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.randn(4, 3, SIDE, SIDE)).sum().backward()
    frozen = [key for key, depth in depths.items() if depth < 2]
    stems = {key.rpartition(".")[0] for key in frozen}
    assert frozen
    for key, value in model.state_dict().items():
        if key.rpartition(".")[0] in stems:
            assert torch.equal(value, before[key]), key


def test_initialization_depends_on_the_seed_alone() -> None:
    name = "torchvision:vit_b_16"
    states = [build_model(configure(name).with_seed(seed), 3, weights="none").state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv_proj.weight"], states[2]["conv_proj.weight"])
    more = build_model(configure(name).with_seed(1), 7, weights="none").state_dict()
    assert torch.equal(more["conv_proj.weight"], states[0]["conv_proj.weight"])


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "torchvision:vit_b_16", "timm:convnext_atto"])
def test_pretrained_weights_are_loaded_at_another_size(name: str, tmp_path) -> None:
    stem = name.partition(":")[2]
    large = replace(configure(name), fixed=dict(configure(name).fixed) | {"image_size": 96})
    source = build_model(large.with_seed(9), 3, weights="none").state_dict()
    torch.save(source, tmp_path / f"{stem}.pt")
    model = build_model(configure(name), 5, weights=str(tmp_path))
    state = model.state_dict()
    head = find_head(model)[0]
    shared = [key for key in state if not key.startswith(f"{head}.") and state[key].shape == source[key].shape]
    assert all(torch.equal(state[key], source[key]) for key in shared)
    assert len(shared) >= len(state) - 3
    del source[shared[0]]
    torch.save(source, tmp_path / f"{stem}.pt")
    with pytest.raises(UserInputError, match=f"{shared[0]}|[Mm]issing"):
        build_model(configure(name), 5, weights=str(tmp_path))


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:convnext_atto"])
def test_weights_without_a_head_are_loaded(name: str, tmp_path: Path) -> None:
    """Files of self-supervised models, such as DINO's and MAE's, have no classifier."""
    source = build_model(configure(name).with_seed(9), 3, weights="none").state_dict()
    bare = {key: value for key, value in source.items() if not key.startswith("head.")}
    whole = {
        key: value for key, value in source.items() if not key.startswith(("head.fc.", "head.weight", "head.bias"))
    }
    torch.save(whole if "head.norm.weight" in source else bare, tmp_path / f"{name.partition(':')[2]}.pt")
    model = build_model(configure(name), 5, weights=str(tmp_path))
    assert find_head(model)[1].out_features == 5
    state = model.state_dict()
    assert all(torch.equal(state[key], source[key]) for key in bare)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("resnet18", ("conv1.", "bn1.")),
        ("torchvision:mobilenet_v3_small", ("features.0.",)),
        ("torchvision:convnext_tiny", ("features.0.",)),
        ("torchvision:regnet_y_400mf", ("stem.",)),
        ("torchvision:shufflenet_v2_x0_5", ("conv1.",)),
        ("torchvision:mnasnet0_5", ("layers.0.", "layers.1.")),
        ("torchvision:vgg11_bn", ("features.0.", "features.1.")),
    ],
)
def test_the_first_layer_to_freeze_is_the_stem(name: str, stem: tuple[str, ...]) -> None:
    model = build_model(configure(name, freeze_depth=1), 3, weights="none")
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {key for key, _ in model.named_parameters() if key.startswith(stem)}
    deeper = build_model(configure(name, freeze_depth=2), 3, weights="none")
    assert frozen < {key for key, parameter in deeper.named_parameters() if not parameter.requires_grad}


def test_a_classifier_under_its_authors_name_is_loaded(tmp_path: Path) -> None:
    name = "timm:convnext_atto"
    source = build_model(configure(name).with_seed(9), 1000, weights="none").state_dict()
    renamed = {key.replace("head.fc.", "head."): value for key, value in source.items()}
    renamed = {key.replace("head.norm.", "norm."): value for key, value in renamed.items()}
    renamed = {re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", key): value for key, value in renamed.items()}
    renamed = {re.sub(r"^stages\.(\d)\.blocks\.(\d)", r"stages.\1.\2", key): value for key, value in renamed.items()}
    renamed = {
        re.sub(r"^stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", key): v for key, v in renamed.items()
    }
    for old, new in (("conv_dw", "dwconv"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2")):
        renamed = {key.replace(old, new): value for key, value in renamed.items()}
    torch.save(renamed, tmp_path / "convnext_atto.pt")
    state = build_model(configure(name), 3, weights=str(tmp_path)).state_dict()
    assert all(torch.equal(state[key], source[key]) for key in source if not key.startswith("head.fc."))


def test_flops_of_a_network_that_looks_at_its_values_are_counted() -> None:
    assert count_forward_flops(configure(f"{OWN}:build_careful"), 3) == count_forward_flops(
        configure(f"{OWN}:build"), 3
    )


def test_layers_and_decay_are_those_of_timm() -> None:
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    name = "timm:vit_tiny_patch16_224"
    model = build_model(configure(name), 3, weights="none")
    theirs = param_groups_layer_decay(
        model, weight_decay=0.1, layer_decay=0.7, no_weight_decay_list=model.no_weight_decay()
    )
    expected = {id(p): (g["lr_scale"], g["weight_decay"] > 0) for g in theirs for p in g["params"]}
    config = configure(name, max_lr=1.0, backbone_lr_ratio=1.0, layer_decay=0.7, weight_decay=0.1)
    groups = group_parameters(model, config)
    ours = {id(p): (group["lr"], group["weight_decay"] > 0) for group in groups for p in group["params"]}
    assert ours.keys() == expected.keys()
    for key, (scale, has_decay) in ours.items():
        assert expected[key] == (pytest.approx(scale), has_decay)


def test_normalization_is_that_of_the_backbone() -> None:
    assert find_backbone("timm:vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)
    config = configure(f"{OWN}:half")
    white = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(prepare_inputs(white, config), torch.ones(1, 3, SIDE, SIDE))
    assert read_backbone(config) == replace(own_backbones.half, name=f"{OWN}:half")


def test_normalization_of_torchvisions_backbones_is_that_of_their_published_weights() -> None:
    half = (0.5, 0.5, 0.5)
    for name in ("efficientnet_v2_l", "googlenet", "inception_v3"):
        assert (find_backbone(f"torchvision:{name}").mean, find_backbone(f"torchvision:{name}").std) == (half, half)
    assert find_backbone("torchvision:densenet121").mean == find_backbone("resnet18").mean == IMAGENET_MEAN


@pytest.mark.parametrize("name", ["densenet121", "googlenet"])
def test_published_files_load_whose_names_are_not_those_of_the_model(name: str, tmp_path: Path) -> None:
    """DenseNets are published with the names of an older torchvision, and GoogLeNet with the heads that only training needs."""
    source = build_model(configure(f"torchvision:{name}").with_seed(9), 3, weights="none").state_dict()
    published = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in source.items()}
    assert (published.keys() != source.keys()) == (name == "densenet121")
    if name == "densenet121":
        # The files are older than this counter.
        published = {key: value for key, value in published.items() if not key.endswith("num_batches_tracked")}
    extra = {"aux1.fc1.weight": torch.zeros(2, 2), "aux2.conv.bn.bias": torch.zeros(2)} if name == "googlenet" else {}
    torch.save({**published, **extra}, tmp_path / f"{name}.pth")
    state = build_model(configure(f"torchvision:{name}"), 5, weights=str(tmp_path)).state_dict()
    assert len(state) == len(source)
    head = find_head(build_model(configure(f"torchvision:{name}"), 5, weights="none"))[0]
    assert all(torch.equal(state[key], source[key]) for key in source if not key.startswith(f"{head}."))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"no backbone 'resnet19' \(did you mean 'resnet18'\?\).*`study models`"),
        ("torchvision:convnext_tony", r"no classifier 'convnext_tony' \(did you mean 'convnext_tiny'"),
        ("timm:convnext_ato", r"no model 'convnext_ato' \(did you mean 'convnext_atto'"),
        ("torchvision:squeezenet1_0", "head of torchvision:squeezenet1_0 was not found"),
        ("nowhere.nets:build", r"must be an entry point of abstudy\.backbones or, .* has no module 'nowhere'"),
        (f"{OWN}:missing", "AttributeError: module .* has no attribute 'missing'"),
        (f"{OWN}:NUMBER", "cannot be imported"),
        (f"{OWN}:build_with_error", "cannot be built with no arguments: no weights for 3 classes"),
        (f"{OWN}:build_without_head", "no linear layer with 3 outputs"),
        (f"{OWN}:build_list", "must return a torch.nn.Module, but returned list"),
    ],
)
def test_wrong_names_and_functions_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserInputError, match=message) as caught:
        build_model(configure(name), 3, weights="none")
    assert "\n" not in str(caught.value)


def test_wrong_arguments_and_sizes_are_refused() -> None:
    wrong = replace(
        configure("resnet18"), fixed=dict(configure("resnet18").fixed) | {"model_arguments": '{"depth": 3}'}
    )
    with pytest.raises(
        UserInputError, match=r"resnet18 cannot be built with depth = 3: .*\[model.arguments.\"resnet18\"\]"
    ):
        build_model(wrong, 3, weights="none")
    name = "torchvision:vit_b_16"
    odd = replace(configure(name), fixed=dict(configure(name).fixed) | {"image_size": 40})
    with pytest.raises(
        UserInputError, match=r"vit_b_16 cannot be built with .*image_size = 40: Input shape indivisible"
    ):
        check_input_size(odd, build_model(odd, 3, weights="none"))
    deep = configure("resnet18", freeze_depth=40)
    with pytest.raises(UserInputError, match=r"freeze_depth = 40, but resnet18 has 9 layers"):
        build_model(deep, 3, weights="none")


def test_arguments_are_part_of_the_fingerprint() -> None:
    other = configure(f"{OWN}:build")
    assert other.fingerprint != replace(other, fixed=dict(other.fixed) | {"model_arguments": "{}"}).fingerprint

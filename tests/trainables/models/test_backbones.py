"""Models: initialization from the seed alone, freezing, parameter groups and the schedule."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from search_spaces.settings import find_epoch
from trainables.models.backbones import build_model, count_forward_flops, count_parameters, set_training_mode
from trainables.models.catalog import RESNETS
from trainables.models.heads import Head
from trainables.models.parameter_groups import freeze_layers, group_parameters
from trainables.training.steps import build_optimizer, build_schedule, find_lr

HYPERPARAMETERS: dict[str, Value] = {
    "backbone": "resnet18",
    "max_lr": 0.2,
    "backbone_lr_ratio": 0.25,
    "weight_decay": 1e-3,
}
FIXED: dict[str, Value] = {
    "weights": "none",
    "tuning": "full",
    "max_epochs": 5,
    "momentum": 0.9,
    "lr_peak_fraction": 0.3,
}
CONFIG = TrialConfig(arm="resnet18", seed=3, hyperparameters=HYPERPARAMETERS, fixed=FIXED)


def change(**changes: Value) -> TrialConfig:
    inside = {name: value for name, value in changes.items() if name in HYPERPARAMETERS}
    outside = {name: value for name, value in changes.items() if name not in inside}
    return dataclasses.replace(CONFIG, hyperparameters={**HYPERPARAMETERS, **inside}, fixed={**FIXED, **outside})


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_model(CONFIG, 7)


@pytest.mark.parametrize("backbone", RESNETS)
def test_every_backbone_gives_one_logit_per_class(backbone: str) -> None:
    model = build_model(change(backbone=backbone), 7).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_initialization_depends_on_the_seed_alone(model: nn.Module) -> None:
    state = model.state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        again = build_model(CONFIG, 7).state_dict()
    other = build_model(CONFIG.with_seed(4), 7).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    for name in ("conv1.weight", "layer4.1.conv2.weight", "fc.weight", "fc.bias"):
        assert not torch.equal(other[name], state[name])


def test_the_backbone_does_not_depend_on_the_number_of_classes(model: nn.Module) -> None:
    assert torch.equal(build_model(CONFIG, 3).state_dict()["conv1.weight"], model.state_dict()["conv1.weight"])


def test_the_head_has_the_distribution_of_linear_layers(model: nn.Module) -> None:
    weight, bound = model.state_dict()["fc.weight"], 512**-0.5
    assert 0.99 * bound < float(weight.max()) <= bound
    assert -bound <= float(weight.min()) < -0.99 * bound
    assert abs(float(weight.mean())) < 0.05 * bound


def test_global_random_state_is_not_changed() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    build_model(CONFIG, 7)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(UserInputError, match="did you mean 'resnet18'"):
        build_model(change(backbone="resnet17"), 7)


def test_head_and_backbone_parameters_are_all_there_once(model: nn.Module) -> None:
    groups = group_parameters(model, CONFIG)
    assert [(group["part"], group["weight_decay"] > 0) for group in groups] == [
        ("backbone", True),
        ("backbone", False),
        ("head", True),
        ("head", False),
    ]
    assert [tuple(p.shape) for group in groups[2:] for p in group["params"]] == [(7, 512), (7,)]
    members = [p for group in groups for p in group["params"]]
    assert {id(p) for p in members} == {id(p) for p in model.parameters()}
    assert len(members) == len(list(model.parameters()))
    assert count_parameters(model) == sum(p.numel() for p in members)


def test_freezing_keeps_the_head_trainable_and_batchnorm_fixed() -> None:
    frozen = build_model(change(tuning="probe"), 7)
    assert count_parameters(frozen) == 7 * 512 + 7
    set_training_mode(frozen, change(tuning="probe"))
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
    assert [name for name, p in frozen.named_parameters() if p.grad is not None] == ["fc.weight", "fc.bias"]
    optimizer = build_optimizer(frozen, change(tuning="probe"))
    assert find_lr(optimizer, "backbone") == 0.0
    assert find_lr(optimizer, "head") == pytest.approx(0.2)


def test_the_last_block_and_the_head_are_trained_and_the_batchnorm_before_them_is_fixed() -> None:
    config = change(tuning="last_block")
    tuned = build_model(config, 7)
    trained = {
        name.rpartition(".")[0].split(".conv")[0].split(".bn")[0]
        for name, p in tuned.named_parameters()
        if p.requires_grad
    }
    assert trained == {"layer4.1", "fc"}
    set_training_mode(tuned, config)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    tuned(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    changed = {name for name, value in tuned.state_dict().items() if not torch.equal(before[name], value)}
    assert changed
    assert all(name.startswith("layer4.1") for name in changed)


def test_the_last_block_of_a_model_without_blocks_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), Head(12, 3))
    with pytest.raises(UserInputError, match=r'no blocks were found in resnet18; use "full" or "probe"'):
        freeze_layers(flat, change(tuning="last_block"))


def test_parameter_groups_keep_the_ratio_and_spare_vectors_from_decay(model: nn.Module) -> None:
    optimizer = build_optimizer(model, CONFIG)
    assert find_lr(optimizer, "backbone") / find_lr(optimizer, "head") == pytest.approx(0.25)
    seen = 0
    for group in optimizer.param_groups:
        assert group["nesterov"]
        assert group["momentum"] == 0.9
        for parameter in group["params"]:
            assert group["weight_decay"] == (1e-3 if parameter.ndim > 1 else 0.0)
            seen += 1
    assert seen == len(list(model.parameters()))


def run_schedule(config: TrialConfig, steps_per_epoch: int) -> list[tuple[float, float]]:
    """(backbone, head) learning rate of every step of a trial."""
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, 1, 1))
    model.add_module("fc", Head(1, 1))
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, steps_per_epoch)
    rates = []
    for _ in range(steps_per_epoch * config.whole("max_epochs")):
        rates.append((find_lr(optimizer, "backbone"), find_lr(optimizer, "head")))
        optimizer.step()
        schedule.step()
    return rates


def test_one_cycle_rises_to_the_peak_at_its_step_and_falls_to_the_end() -> None:
    rates = run_schedule(CONFIG, 20)  # 100 steps, the peak at 0.3 x 100 - 1
    head = np.array([head for _, head in rates])
    backbone = np.array([backbone for backbone, _ in rates])
    assert int(head.argmax()) == 29
    assert head[29] == pytest.approx(0.2)
    assert head[0] == pytest.approx(0.2 / 25)
    assert head[-1] == pytest.approx(0.2 / 25 / 1e4)
    assert (np.diff(head[:30]) > 0).all()
    assert (np.diff(head[29:]) < 0).all()
    np.testing.assert_allclose(backbone / head, 0.25, rtol=1e-6)


@pytest.mark.parametrize("num_epochs", range(1, 21))
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_peak_epoch_holds_the_highest_learning_rate(num_epochs: int, fraction: float) -> None:
    config = change(max_epochs=num_epochs, lr_peak_fraction=fraction)
    head = [head for _, head in run_schedule(config, 20)]
    assert int(np.argmax(head)) // 20 + 1 == find_epoch(config.number("lr_peak_fraction"), config.whole("max_epochs"))


@pytest.mark.parametrize(("num_epochs", "steps_per_epoch"), [(1, 1), (1, 2), (2, 1), (5, 1), (10, 1)])
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.5])
def test_the_shortest_trials_have_a_schedule_too(num_epochs: int, steps_per_epoch: int, fraction: float) -> None:
    rates = run_schedule(change(max_epochs=num_epochs, lr_peak_fraction=fraction), steps_per_epoch)
    assert all(0 < head <= 0.2 * (1 + 1e-6) for _, head in rates)


def test_momentum_0_is_plain_sgd(model: nn.Module) -> None:
    optimizer = build_optimizer(model, change(momentum=0.0))
    assert all(group["momentum"] == 0 and not group["nesterov"] for group in optimizer.param_groups)


def test_forward_flops_count_a_multiplication_and_an_addition_as_two() -> None:
    """torchvision's documentation gives 1.81 and 4.09 G multiply-adds at 224 pixels."""
    found = {}
    for backbone in ("resnet18", "resnet50"):
        config = TrialConfig(arm="a", seed=0, hyperparameters={"backbone": backbone}, fixed={"image_size": 224})
        found[backbone] = count_forward_flops(config, 1000) / 2e9
    assert found == {"resnet18": pytest.approx(1.81, abs=0.01), "resnet50": pytest.approx(4.09, abs=0.01)}

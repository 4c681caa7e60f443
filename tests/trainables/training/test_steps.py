"""Optimizer, schedule, accumulation, clipping, weight average and loss scale, against torch's own."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from search_spaces.settings import find_epoch
from trainables.models.heads import Head
from trainables.training.checkpoint import Checkpoint
from trainables.training.evaluation import autocast, deterministic_kernels
from trainables.training.steps import OptimizerSteps, build_optimizer, build_schedule, compute_decay

# torch before 2.10 warns of its own call.
IGNORE_STEP = pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")

CPU = torch.device("cpu")
RECIPE: dict[str, Value] = {"max_lr": 0.1, "backbone_lr_ratio": 0.5, "weight_decay": 0.02, "max_epochs": 4}
BATCHES_PER_EPOCH, BATCH_SIZE = 6, 5


def make_config(**changes: Value) -> TrialConfig:
    return TrialConfig(arm="a", seed=0, hyperparameters={**RECIPE, **changes}, fixed={})


def make_model() -> nn.Module:
    """A backbone without BatchNorm and a head `fc`."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(2, 3, 2))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", Head(12, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
    return model


def make_losses(model: nn.Module, num: int, images: int = BATCH_SIZE) -> list[Tensor]:
    """The losses of some batches, all with the model's present weights."""
    generator = torch.Generator().manual_seed(num * images)
    batch = torch.randn(num * images, 3, 3, 2, generator=generator).movedim(3, 1)
    labels = torch.randint(4, (num * images,), generator=generator)
    return [
        nn.functional.cross_entropy(model(batch[i : i + images]), labels[i : i + images])
        for i in range(0, num * images, images)
    ]


def start(model: nn.Module, **changes: Value) -> OptimizerSteps:
    config = make_config(**changes)
    return OptimizerSteps(model, config, CPU, batches_per_epoch=BATCHES_PER_EPOCH, batch_size=BATCH_SIZE)


def advance(steps: OptimizerSteps, model: nn.Module, num_steps: int) -> None:
    for number in range(num_steps):
        steps.backward(make_losses(model, number + 1)[0], None)
        steps.step()


def make_groups(model: nn.Module) -> list[dict[str, object]]:
    """The groups of the recipe: rate of the head, half of it for the backbone, no decay for the vectors."""
    named = dict(model.named_parameters())
    return [
        {"params": [named["conv.weight"]], "lr": 0.05, "weight_decay": 0.02},
        {"params": [named["conv.bias"]], "lr": 0.05, "weight_decay": 0.0},
        {"params": [named["fc.weight"]], "lr": 0.1, "weight_decay": 0.02},
        {"params": [named["fc.bias"]], "lr": 0.1, "weight_decay": 0.0},
    ]


def train_with_torch(
    model: nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, num_steps: int
) -> None:
    for number in range(num_steps):
        make_losses(model, number + 1)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def assert_close(first: Mapping[str, Tensor], second: Mapping[str, Tensor], **tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], **(tolerance or {"rtol": 1e-5, "atol": 1e-6}))


def test_the_default_recipe_is_torchs_fused_nesterov_under_one_cycle_bit_for_bit() -> None:
    model = make_model()
    twin = copy.deepcopy(model)
    advance(start(model), model, 9)
    optimizer = torch.optim.SGD(make_groups(twin), lr=0.1, momentum=0.9, nesterov=True, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    total = BATCHES_PER_EPOCH * 4
    schedule = OneCycleLR(optimizer, max_lr=rates, total_steps=total, pct_start=0.3, cycle_momentum=False)
    train_with_torch(twin, optimizer, schedule, 9)
    assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)


@IGNORE_STEP
def test_adamw_under_the_cosine_schedule_is_torchs() -> None:
    model = make_model()
    twin = copy.deepcopy(model)
    steps = start(model, optimizer="adamw", schedule="cosine", warmup_fraction=0.25)
    advance(steps, model, 20)
    optimizer = torch.optim.AdamW(make_groups(twin), fused=False, foreach=False)
    train_with_torch(twin, optimizer, make_torchs_cosine(optimizer, 6, 24), 20)
    assert_close(model.state_dict(), twin.state_dict())
    assert steps.optimizer_state().keys() == {
        f"{name}/{entry}" for name in twin.state_dict() for entry in ("exp_avg", "exp_avg_sq", "step")
    }


def test_momentum_changes_sgd_and_not_adamw() -> None:
    for optimizer, differs in (("sgd", True), ("adamw", False)):
        states = []
        for momentum in (0.9, 0.5):
            model = make_model()
            advance(start(model, optimizer=optimizer, momentum=momentum), model, 3)
            states.append(model.state_dict())
        assert differs is not torch.equal(states[0]["conv.weight"], states[1]["conv.weight"])


def make_torchs_cosine(optimizer: torch.optim.Optimizer, num_warmup: int, total: int) -> SequentialLR:
    cosines = CosineAnnealingLR(optimizer, total - num_warmup)
    # torch's floor is one number for all groups; ours is relative to each group's peak.
    lows = [1e-3 * rate for rate in cosines.base_lrs]
    cosines.get_lr = lambda: [  # type: ignore[method-assign]
        low + (peak - low) * (1 + math.cos(math.pi * cosines.last_epoch / cosines.T_max)) / 2
        for low, peak in zip(lows, cosines.base_lrs, strict=True)
    ]
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.01, 1.0, num_warmup), cosines], milestones=[num_warmup])


@IGNORE_STEP
@pytest.mark.parametrize(("fraction", "num_warmup"), [(0.25, 6), (0.1, 2), (0.9, 22)])
def test_the_cosine_schedule_has_the_values_of_torchs_sequential_schedule(fraction: float, num_warmup: int) -> None:
    rates: list[list[float]] = []
    for theirs in (False, True):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
        if theirs:
            cosine = CosineAnnealingLR(optimizer, 24 - num_warmup, eta_min=1e-4)
            schedule = SequentialLR(optimizer, [LinearLR(optimizer, 0.01, 1.0, num_warmup), cosine], [num_warmup])
        else:
            schedule = build_schedule(optimizer, make_config(schedule="cosine", warmup_fraction=fraction), 6)  # type: ignore[assignment]
        rates.append([])
        for _ in range(24):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)
    assert max(rates[0]) == rates[0][num_warmup] == pytest.approx(0.1)


@pytest.mark.parametrize("num_epochs", [1, 2, 5, 10])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 0.5, 0.95])
def test_the_peak_epoch_of_the_cosine_schedule_ends_the_warm_up(num_epochs: int, fraction: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=1.0)
    config = make_config(schedule="cosine", warmup_fraction=fraction, max_epochs=num_epochs)
    schedule = build_schedule(optimizer, config, 20)
    rates = []
    for _ in range(20 * num_epochs + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    epoch = find_epoch(fraction, num_epochs)
    # The peak is the first step after the warm-up: within the epoch, or its end.
    assert rates.index(max(rates)) in range(20 * (epoch - 1), 20 * epoch + 1)


def test_clipping_is_torchs() -> None:
    model = make_model()
    twin = copy.deepcopy(model)
    steps = start(model, clip_norm=0.1, weight_decay=0.0)
    rate = steps.head_and_backbone_lr[0]
    make_losses(twin, 1)[0].backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
    assert norm > 0.2
    advance(steps, model, 1)
    bias, before = dict(model.named_parameters())["fc.bias"], dict(twin.named_parameters())["fc.bias"]
    assert before.grad is not None
    torch.testing.assert_close(bias, before - rate * 1.9 * before.grad)  # Nesterov's first step


@pytest.mark.parametrize("num", [2, 3])
def test_accumulated_batches_equal_one_batch_of_their_images(num: int) -> None:
    model = make_model()
    twin = copy.deepcopy(model)
    steps = start(model, accumulate=num, clip_norm=0.5)
    config = make_config(clip_norm=0.5)
    whole = OptimizerSteps(twin, config, CPU, batches_per_epoch=BATCHES_PER_EPOCH // num, batch_size=num * BATCH_SIZE)
    assert steps.num_accumulated == num
    for _ in range(3):
        for loss in make_losses(model, num):
            steps.backward(loss, torch.tensor(float(BATCH_SIZE)))
        steps.step()
        (loss,) = make_losses(twin, 1, num * BATCH_SIZE)
        whole.backward(loss, None)
        whole.step()
    assert_close(model.state_dict(), twin.state_dict())
    assert steps.num_steps == 3
    assert steps.learning_rates == whole.learning_rates


def test_the_weight_average_follows_its_formula() -> None:
    """timm's ModelEmaV3 with use_warmup: decay 1 - (1 + n)^(-2/3), at most the given one; the first update copies."""
    model = make_model()
    steps = start(model, ema_decay=0.6)
    expected: dict[str, Tensor] = {}
    for number in range(8):
        advance(steps, model, 1)
        decay = min(0.6, 1 - (1 + number) ** (-2 / 3))
        now = {name: value.clone() for name, value in model.state_dict().items()}
        expected = {k: decay * expected[k] + (1 - decay) * v for k, v in now.items()} if expected else now
        assert steps.averaged_model is not None
        assert_close(steps.averaged_model.state_dict(), expected)
    assert compute_decay(0, 0.6) == 0
    assert compute_decay(10**6, 0.6) == 0.6
    assert compute_decay(7, 0.999) == pytest.approx(0.75)


def test_the_weight_average_is_torchs_once_its_decay_is_constant() -> None:
    """But for counters, which are copied."""
    model = make_model()
    model.add_module("norm", nn.BatchNorm1d(4))
    steps = start(model, ema_decay=0.3)  # reached by the second update
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.3), use_buffers=True)
    for _ in range(5):
        advance(steps, model, 1)
        theirs.update_parameters(model)
    assert steps.averaged_model is not None
    ours, published = steps.averaged_model.state_dict(), theirs.module.state_dict()
    assert ours.pop("norm.num_batches_tracked") == model.norm.num_batches_tracked == 5  # type: ignore[union-attr]
    del published["norm.num_batches_tracked"]
    assert_close(ours, published, rtol=0, atol=0)
    assert not torch.equal(theirs.module.norm.running_mean, model.norm.running_mean)  # type: ignore[union-attr, arg-type]


def test_no_average_is_kept_by_default() -> None:
    assert start(make_model()).averaged_model is None


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_overflows_changes_the_loss_scale_alone(optimizer: str) -> None:
    """Torch's fused SGD leaves its momentum unwritten if the very first step overflows."""
    model = make_model()
    steps = start(model, optimizer=optimizer, precision="fp16")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps.backward(make_losses(model, 1)[0] * 1e38, None)
    steps.step()
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    scale = steps.loss_scale()
    assert scale is not None
    assert scale["scale"] == 2.0**15
    assert steps.num_steps == 1
    garbage = [torch.full((n,), math.nan) for n in (24, 48)]
    del garbage
    for value in steps.optimizer_state().values():
        assert torch.isfinite(value).all()
    advance(steps, model, 1)
    scale = steps.loss_scale()
    assert scale is not None
    assert (scale["scale"], scale["num_good_steps"]) == (2.0**15, 1)
    assert not torch.equal(before["fc.weight"], model.state_dict()["fc.weight"])


def test_the_loss_scale_does_not_change_a_step_that_fits() -> None:
    """A power of two scales exactly; clipping sees the gradients without it."""
    states = []
    for precision in ("fp32", "fp16"):
        model = make_model()
        advance(start(model, precision=precision, optimizer="adamw", clip_norm=0.1), model, 4)
        states.append(model.state_dict())
    assert_close(*states)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "schedule": "cosine", "ema_decay": 0.9},
        {"precision": "fp16", "clip_norm": 0.2},
        {"optimizer": "adamw", "precision": "fp16", "ema_decay": 0.99},
        {"momentum": 0.0},
    ],
)
def test_steps_continue_from_a_checkpoint_with_the_same_bits(changes: dict[str, Value]) -> None:
    model = make_model()
    steps = start(model, **changes)
    advance(steps, model, 7)
    averaged = steps.averaged_model
    checkpoint = Checkpoint(
        fingerprint="",
        epoch=1,
        model_state=copy.deepcopy(model.state_dict()),
        optimizer_state=steps.optimizer_state(),
        num_steps=steps.num_steps,
        learning_rates=steps.learning_rates,
        history=(),
        average_state={} if averaged is None else averaged.state_dict(),
        loss_scale=steps.loss_scale(),
    )
    read = Checkpoint.from_bytes(checkpoint.to_bytes())
    twin = make_model()
    twin.load_state_dict(dict(read.model_state))
    resumed = start(twin, **changes)
    resumed.restore(read)
    assert resumed.loss_scale() == steps.loss_scale()
    advance(steps, model, 9)
    advance(resumed, twin, 9)
    assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)
    assert_close(steps.optimizer_state(), resumed.optimizer_state(), rtol=0, atol=0)
    assert resumed.learning_rates == steps.learning_rates
    assert resumed.loss_scale() == steps.loss_scale()
    if averaged is not None:
        assert resumed.averaged_model is not None
        assert_close(averaged.state_dict(), resumed.averaged_model.state_dict(), rtol=0, atol=0)


def test_unknown_words_are_refused_with_the_nearest_name() -> None:
    model = make_model()
    with pytest.raises(UserInputError, match=r"train\.optimizer 'adam' \(did you mean 'adamw'"):
        build_optimizer(model, make_config(optimizer="adam"))
    with pytest.raises(UserInputError, match=r"train\.schedule 'cosin' \(did you mean 'cosine'"):
        start(model, schedule="cosin")


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", None)])
def test_the_precision_is_the_type_of_the_autocast(precision: str, dtype: torch.dtype | None) -> None:
    with autocast(make_config(precision=precision), CPU):
        assert torch.is_autocast_enabled("cpu") is (dtype is not None)
        assert dtype is None or torch.get_autocast_dtype("cpu") == dtype
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == (dtype or torch.float32)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_tf32_is_set_while_the_kernels_run_and_restored_after(tf32: bool, before: bool) -> None:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    earlier = (cudnn.allow_tf32, products.allow_tf32)
    try:
        cudnn.allow_tf32 = products.allow_tf32 = before
        with deterministic_kernels(make_config(tf32=tf32), torch.device("cuda")):
            assert cudnn.allow_tf32 is tf32
            assert products.allow_tf32 is tf32
            assert cudnn.deterministic
        assert (cudnn.allow_tf32, products.allow_tf32) == (before, before)
        with deterministic_kernels(make_config(tf32=tf32), CPU):
            assert (cudnn.allow_tf32, products.allow_tf32) == (before, before)
    finally:
        cudnn.allow_tf32, products.allow_tf32 = earlier


@pytest.mark.parametrize("is_wanted", [True, False])
def test_kernels_of_a_gpu_are_deterministic_unless_the_trial_opts_out(is_wanted: bool) -> None:
    from torch._inductor import config as inductor

    def read() -> tuple[bool, ...]:
        return (
            torch.backends.cudnn.deterministic,
            not torch.backends.cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(),
            getattr(inductor, "deterministic", False),
        )

    tensors: Any = torch.utils.deterministic
    before, filling = read(), tensors.fill_uninitialized_memory
    with deterministic_kernels(make_config(deterministic=is_wanted), torch.device("cuda")):
        assert read()[:3] == (is_wanted,) * 3
        assert read()[3] == (is_wanted and hasattr(inductor, "deterministic"))
        assert not is_wanted or torch.is_deterministic_algorithms_warn_only_enabled(), "other operations go on"
        assert not tensors.fill_uninitialized_memory, "what no one reads need not be written"
        fused = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
        assert fused == (not is_wanted,) * 2, "their backward passes are not deterministic under warn_only"
    assert (read(), tensors.fill_uninitialized_memory) == (before, filling)
    with deterministic_kernels(make_config(deterministic=is_wanted), CPU):
        assert read() == before

"""The training loop: bitwise reproducible, resumable within an epoch, and divergence is reported."""

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import cast

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from tests.built_values import BASE
from trainables.data.splits import Splits
from trainables.models.backbones import build_model
from trainables.training.batches import EpochBatches
from trainables.training.checkpoint import Checkpoint
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.evaluation import compute_logits, compute_mean_f1
from trainables.training.loop import TrainingRun
from trainables.training.trial_cost import measure_trial_cost
from trainables.training.trial_data import TrialData, choose_training_images, limit_memory, place_images
from trainables.training.trial_run import EpochInterrupted

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")
CONFIG = TrialConfig(
    arm="resnet18",
    seed=1,
    hyperparameters={
        **{**BASE, "backbone": "timm:test_resnet"},
        **{"backbone_lr_ratio": 0.5, "cutmix_probability": 0.3, "label_smoothing": 0.05},
        **{"class_weighting": "group", "class_weight_strength": 0.5},
    },
    fixed={
        **{"image_size": 16, "batch_size": 16, "max_epochs": 2, "weights": "none", "tuning": "full", "momentum": 0.9},
        **{"precision": "fp32", "channels_last": True, "flip_probability": 0.5, "rotation_degrees": 5.0},
        **{"brightness_fraction": 0.2, "lr_peak_fraction": 0.3, "weighted_group": "soft"},
    },
)
SMALL_BATCHES: dict[str, Value] = {"batch_size": 8, "accumulate": 2}
TIMINGS = {"train_seconds": 0.0, "evaluate_seconds": 0.0, "train_images_per_second": 0.0, "peak_memory_bytes": 0}


def change(**changes: Value) -> TrialConfig:
    inside = {name: value for name, value in changes.items() if name in CONFIG.hyperparameters}
    outside = {name: value for name, value in changes.items() if name not in inside}
    return dataclasses.replace(
        CONFIG, hyperparameters={**CONFIG.hyperparameters, **inside}, fixed={**CONFIG.fixed, **outside}
    )


def make_data(num_train: int = 40, size: int = 12) -> TrialData:
    """Random images, one color per class, in read-only memory as in Ray's object store."""
    generator = np.random.default_rng(0)
    n = num_train + 36
    labels = np.arange(n) % 3
    images = generator.integers(0, 100, (n, size, size, 3), dtype=np.uint8)
    images[np.arange(n), :, :, labels] += 120
    images.setflags(write=False)
    labels.setflags(write=False)
    order = generator.permutation(n)
    train_, search, confirm, test = np.split(order, [num_train, num_train + 12, num_train + 24])
    splits = Splits(train=train_, search=search, confirm=confirm, test=test, data_fingerprint="")
    return TrialData(images=images, labels=labels, splits=splits, class_names=CLASSES, class_groups={"soft": ("a",)})


DATA = make_data()


def start(config: TrialConfig = CONFIG, data: TrialData = DATA, checkpoint: Checkpoint | None = None) -> TrainingRun:
    return TrainingRun(config, data, device=CPU, checkpoint=checkpoint)


def without_timings(history: tuple[EpochMetrics, ...]) -> list[EpochMetrics]:
    return [metrics.model_copy(update=TIMINGS) for metrics in history]


def assert_same_run(first: TrainingRun, second: TrainingRun) -> None:
    assert without_timings(first.history) == without_timings(second.history)
    others = second.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in first.state_dict().items())
    assert np.array_equal(first.predict("test").logits, second.predict("test").logits)


@pytest.fixture(scope="module")
def finished() -> TrainingRun:
    run = start()
    while not run.is_finished:
        run.run_epoch()
    return run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_same_seed_same_bits_also_after_a_checkpoint_in_the_middle(precision: str, channels_last: bool) -> None:
    config = change(precision=precision, channels_last=channels_last)
    whole, first = start(config), start(config)
    whole.run_epoch()
    first.run_epoch()
    resumed = start(config, checkpoint=Checkpoint.from_bytes(first.checkpoint().to_bytes()))
    assert resumed.epoch == 1
    assert resumed.history == first.history
    for run in (whole, first, resumed):
        run.run_epoch()
        assert run.is_finished
    assert_same_run(whole, first)
    assert_same_run(whole, resumed)
    assert whole.checkpoint().to_bytes()[-10_000:] == resumed.checkpoint().to_bytes()[-10_000:]


@pytest.mark.parametrize(("num_steps", "augmentation"), [(1, "default"), (2, "strong"), (3, "default")])
def test_an_epoch_interrupted_between_two_steps_continues_with_the_same_bits(num_steps: int, augmentation: str) -> None:
    config = change(augmentation=augmentation)
    data = make_data(num_train=72)  # four steps per epoch
    whole = start(config, data)
    while not whole.is_finished:
        whole.run_epoch()
    left = start(config, data)
    left.run_epoch()
    answers = iter([False] * (num_steps - 1) + [True])
    with pytest.raises(EpochInterrupted):
        left.run_epoch(should_stop=lambda: next(answers))
    blob = left.checkpoint().to_bytes()
    resumed = start(config, data, checkpoint=Checkpoint.from_bytes(blob))
    assert resumed.epoch == 1
    assert resumed.checkpoint().to_bytes() == blob
    for run in (left, resumed):
        run.run_epoch()
        assert_same_run(whole, run)
        assert run.checkpoint().partial is None


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adamw", "schedule": "cosine", "ema_decay": 0.9, "accumulate": 2}, {"precision": "fp16"}]
)
def test_other_recipes_also_continue_in_the_middle_of_an_epoch(changes: dict[str, Value]) -> None:
    changes = {"clip_norm": 1.0, "max_lr": 0.001, **changes}
    data, config = make_data(num_train=64), change(**changes, image_size=8, max_epochs=1)  # four batches
    whole, left = start(config, data), start(config, data)
    whole.run_epoch()
    with pytest.raises(EpochInterrupted):
        left.run_epoch(should_stop=lambda: True)
    blob = left.checkpoint().to_bytes()
    resumed = start(config, data, checkpoint=Checkpoint.from_bytes(blob))
    assert resumed.checkpoint().to_bytes() == blob
    resumed.run_epoch()
    assert_same_run(whole, resumed)
    assert whole.checkpoint().to_bytes()[-10_000:] == resumed.checkpoint().to_bytes()[-10_000:]


def test_averaged_weights_are_evaluated_predict_and_are_stored() -> None:
    run = start(change(ema_decay=0.9, max_epochs=1, max_lr=0.001))
    metrics = run.run_epoch()
    state, checkpoint = run.state_dict(), run.checkpoint()
    assert all(torch.equal(value, checkpoint.evaluated_state[name]) for name, value in state.items())
    assert not torch.equal(state["fc.weight"], checkpoint.model_state["fc.weight"])
    assert torch.equal(run.model.state_dict()["fc.weight"], checkpoint.model_state["fc.weight"])
    model = build_model(run.config, len(CLASSES))
    model.load_state_dict(state)
    indices = np.sort(DATA.splits.search)
    logits = compute_logits(model, place_images(DATA.images, CPU), indices, run.config, CPU, 16)
    predictions = run.predict("search")
    np.testing.assert_allclose(predictions.logits, logits, rtol=1e-4, atol=1e-4)
    chosen = predictions.probabilities[np.arange(12), predictions.labels]
    assert metrics.search_loss == pytest.approx(-np.log(chosen).mean(), rel=1e-5)


def test_accumulated_batches_train_as_one_batch_would() -> None:
    """A frozen backbone evaluates its BatchNorm, so that no statistics depend on the size of a batch."""
    plain: dict[str, Value] = {"flip_probability": 0.0, "rotation_degrees": 0.0, "brightness_fraction": 0.0}
    config = change(**plain, tuning="probe", cutmix_probability=0.0)
    whole, accumulated = start(config), start(dataclasses.replace(config, fixed={**config.fixed, **SMALL_BATCHES}))
    asked: list[int] = []
    for run in (whole, accumulated):  # 40 images: 32 in two steps of one batch, or of two
        run.run_epoch(should_stop=lambda: bool(asked.append(1)))
    assert len(asked) == 2, "once each: not before the first step, nor after the last"
    assert accumulated.checkpoint().num_steps == whole.checkpoint().num_steps == 2
    assert accumulated.checkpoint().learning_rates == whole.checkpoint().learning_rates
    for name in ("fc.weight", "fc.bias"):
        torch.testing.assert_close(accumulated.state_dict()[name], whole.state_dict()[name], rtol=1e-4, atol=1e-6)
    rate = accumulated.history[0].train_images_per_second * accumulated.history[0].train_seconds
    assert rate == pytest.approx(32)


def test_an_epoch_with_fewer_batches_than_a_step_is_one_step() -> None:
    run = start(change(batch_size=16, accumulate=9, max_epochs=1, tuning="probe"), make_data(num_train=40))
    run.run_epoch()
    assert run.checkpoint().num_steps == 1


def test_settings_may_be_hyperparameters() -> None:
    """`batch_size`, `max_epochs` and the whole recipe are read from either place."""
    recipe: dict[str, Value] = {
        "batch_size": 8,
        "max_epochs": 1,
        "momentum": 0.5,
        "ema_decay": 0.5,
        "schedule": "cosine",
    }
    fixed = start(change(**recipe, tuning="probe"))
    others = {name: value for name, value in CONFIG.fixed.items() if name not in recipe}
    searched = start(
        dataclasses.replace(
            CONFIG, hyperparameters={**CONFIG.hyperparameters, **recipe}, fixed={**others, "tuning": "probe"}
        )
    )
    for run in (fixed, searched):
        run.run_epoch()
        assert run.is_finished
    assert_same_run(fixed, searched)


def test_a_recipe_that_cannot_train_here_is_refused_with_all_reasons() -> None:
    message = (
        r"train\.tf32 = true needs a CUDA device, but the trial is on cpu; .*; train\.accumulate > 1 cannot be combined"
    )
    with pytest.raises(UserInputError, match=message):
        start(change(tf32=True, accumulate=2, compile="cuda_graphs"))


@pytest.mark.parametrize("size", [8, 16, 32])
def test_bfloat16_training_at_the_smallest_sizes_repeats_its_bits_and_stays_finite(size: int) -> None:
    """At 16 px and below a layer's input is one pixel, where oneDNN leaves gradients unwritten."""
    config = change(backbone="resnet18", precision="bf16", image_size=size, max_epochs=1, max_lr=0.001)
    states = []
    for _ in range(3):
        run = start(config)
        garbage = [torch.full((n,), math.nan) for n in (128 * 256 * 9, 256 * 512 * 9, 512 * 512 * 9)]
        del garbage
        run.run_epoch()
        states.append(run.state_dict())
    for name, value in states[0].items():
        assert torch.isfinite(value).all(), name
        assert all(torch.equal(value, other[name]) for other in states[1:]), name


def test_a_checkpoint_is_not_changed_by_what_follows() -> None:
    run = start()
    run.run_epoch()
    checkpoint = run.checkpoint()
    before = checkpoint.to_bytes()
    run.run_epoch()
    assert checkpoint.to_bytes() == before


def test_a_checkpoint_before_the_first_and_after_the_last_epoch(finished: TrainingRun) -> None:
    fresh = start(checkpoint=Checkpoint.from_bytes(start().checkpoint().to_bytes()))
    assert fresh.epoch == 0
    fresh.run_epoch()
    fresh.run_epoch()
    assert_same_run(fresh, finished)
    done = start(checkpoint=Checkpoint.from_bytes(finished.checkpoint().to_bytes()))
    assert done.is_finished
    assert_same_run(done, finished)
    with pytest.raises(RuntimeError, match="2 epochs"):
        done.run_epoch()


def test_another_seed_gives_another_run(finished: TrainingRun) -> None:
    other = start(CONFIG.with_seed(2))
    assert other.run_epoch().train_loss != finished.history[0].train_loss


def test_global_random_state_is_neither_changed_nor_used(finished: TrainingRun) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12345)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        run = start()
        run.run_epoch()
        run.checkpoint()
        run.predict("search")
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert without_timings(run.history) == without_timings(finished.history[:1])


def test_metrics_agree_with_the_predictions(finished: TrainingRun) -> None:
    last = finished.history[-1]
    predictions = finished.predict("search")
    scores = f1_score(predictions.labels, predictions.predicted, average=None, labels=range(3), zero_division=0)
    assert last.per_class_f1 == tuple(scores)
    assert last.macro_f1 == pytest.approx(np.mean(scores), abs=1e-12)
    chosen = predictions.probabilities[np.arange(12), predictions.labels]
    assert last.search_loss == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
    assert last.train_images_per_second == pytest.approx(32 / last.train_seconds)  # 40 images, two full batches
    assert last.peak_memory_bytes > 0
    assert [metrics.epoch for metrics in finished.history] == [1, 2]
    assert last.is_finite


def test_learning_rates_are_those_of_the_epochs_last_step(finished: TrainingRun) -> None:
    last = finished.history[-1]
    assert last.head_lr == pytest.approx(0.05 / 25 / 1e4)
    for metrics in finished.history:
        assert metrics.backbone_lr / metrics.head_lr == pytest.approx(0.5)


def test_it_learns_what_is_easy() -> None:
    data = make_data(num_train=240)
    easy: dict[str, Value] = {"backbone": "resnet18", "max_lr": 0.005, "backbone_lr_ratio": 1.0}
    run = start(change(max_epochs=6, cutmix_probability=0.0, **easy), data)
    history = [run.run_epoch() for _ in range(6)]
    assert history[-1].train_loss < 0.6 * history[0].train_loss
    assert history[-1].macro_f1 > 0.8


@pytest.mark.parametrize("split", ["train", "search", "confirm", "test"])
def test_predictions_cover_their_split_in_the_order_of_the_ids(split: str, finished: TrainingRun) -> None:
    predictions = finished.predict(split)
    indices = np.sort(getattr(DATA.splits, split))
    np.testing.assert_array_equal(predictions.sample_ids, indices)
    np.testing.assert_array_equal(predictions.labels, DATA.labels[indices])
    assert predictions.split == split


def test_an_unknown_split_is_refused(finished: TrainingRun) -> None:
    with pytest.raises(UserInputError, match="did you mean 'confirm'"):
        finished.predict("confirmation")


def test_logits_follow_the_indices_and_keep_the_models_mode(finished: TrainingRun) -> None:
    images = place_images(DATA.images, CPU)
    indices = np.array([5, 3, 9, 0, 7])
    for training in (True, False):
        finished.model.train(training)
        logits = compute_logits(finished.model, images, indices, CONFIG, CPU, 2)
        assert finished.model.training is training
        reverse = compute_logits(finished.model, images, indices[::-1], CONFIG, CPU, 5)
        np.testing.assert_allclose(logits, reverse[::-1], rtol=1e-4, atol=1e-4)


def test_the_two_largest_logits_of_a_bfloat16_backbone_do_not_tie() -> None:
    """In bfloat16, with 8 significant bits, some would."""
    images = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), dtype=np.uint8)
    images = images[:, :1, :1] // 2 + images // 2
    config = change(backbone="resnet18", precision="bf16")
    model = build_model(config, 1000)  # with many classes, the two largest logits lie close together
    top = np.sort(compute_logits(model, torch.from_numpy(images), np.arange(100), config, CPU, 100), axis=1)
    assert (top[:, -1] != top[:, -2]).all()
    rounded = torch.from_numpy(top).to(torch.bfloat16)
    assert (rounded[:, -1] == rounded[:, -2]).any()


@pytest.mark.parametrize("tuning", ["full", "probe"])
def test_the_head_computes_in_float32_on_the_features_of_the_bfloat16_backbone(tuning: str) -> None:
    run = start(change(precision="bf16", tuning=tuning, max_lr=0.001), make_data(num_train=16))
    dtypes: list[torch.dtype] = []
    run.model.fc.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))  # type: ignore[union-attr]
    run.run_epoch()
    assert set(dtypes) == {torch.float32}
    assert {p.grad.dtype for p in run.model.parameters() if p.grad is not None} <= {torch.float32}


def test_read_only_images_are_not_copied() -> None:
    assert place_images(DATA.images, CPU).data_ptr() == DATA.images.ctypes.data


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_divergence_is_reported_as_none_and_raises_nothing(precision: str) -> None:
    run = start(change(max_lr=1e30, precision=precision, max_epochs=1))
    metrics = run.run_epoch()
    values = (metrics.train_loss, metrics.search_loss, metrics.macro_f1, *metrics.per_class_f1)
    assert set(values) == {None}
    assert not metrics.is_finite
    assert run.is_finished
    resumed = start(run.config, checkpoint=Checkpoint.from_bytes(run.checkpoint().to_bytes()))
    assert repr(resumed.history) == repr(run.history)
    with pytest.raises(UserInputError, match="finite"):
        run.predict("test")


def test_a_training_split_below_one_batch_is_one_batch() -> None:
    run = start(change(batch_size=64, max_epochs=1), make_data(num_train=10))
    metrics = run.run_epoch()
    assert metrics.is_finite
    assert metrics.train_images_per_second == pytest.approx(10 / metrics.train_seconds)
    with pytest.raises(UserInputError, match="at least 2 images"):
        start(data=make_data(num_train=1))


def test_each_epoch_shuffles_again_and_every_image_is_used() -> None:
    run = start(change(max_epochs=30))
    epochs = [torch.cat(run._batches.of_epoch(epoch)).tolist() for epoch in range(1, 31)]
    for order in epochs:
        assert len(order) == len(set(order)) == 32
    assert len({tuple(order) for order in epochs}) == 30
    assert {index for order in epochs for index in order} == set(DATA.splits.train.tolist())


def test_the_cost_of_a_trial_is_measured_where_the_first_batches_lack_a_class() -> None:
    train_ = DATA.splits.train
    by_class = train_[np.argsort(DATA.labels[train_], kind="stable")]
    data = dataclasses.replace(DATA, splits=dataclasses.replace(DATA.splits, train=by_class))
    config = change(class_weighting="inverse_frequency", batch_size=4)
    assert measure_trial_cost(config, data, device=CPU, weights=None).epoch_seconds > 0


def test_freezing_changes_the_head_only() -> None:
    run = start(change(tuning="probe"))
    before = run.state_dict()
    metrics = run.run_epoch()
    changed = [name for name, value in run.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["fc.weight", "fc.bias"]
    assert metrics.backbone_lr == 0
    assert run.num_parameters == 96 * 3 + 3


def test_without_freezing_every_tensor_changes() -> None:
    run = start()
    before = run.state_dict()
    run.run_epoch()
    after = run.state_dict()
    assert [name for name, value in after.items() if torch.equal(value, before[name])] == []
    assert all(value.is_contiguous() and value.device == CPU for value in after.values())


def test_a_checkpoint_of_another_configuration_or_image_set_is_refused(finished: TrainingRun) -> None:
    checkpoint = finished.checkpoint()
    with pytest.raises(UserInputError, match="must belong to the configuration"):
        start(CONFIG.with_seed(9), checkpoint=checkpoint)
    more_classes = dataclasses.replace(DATA, class_names=("a", "b", "c", "d"))
    with pytest.raises(UserInputError, match="4 classes"):
        start(data=more_classes, checkpoint=checkpoint)


def test_a_compiled_model_is_what_trains(monkeypatch: pytest.MonkeyPatch, finished: TrainingRun) -> None:
    passes = 0

    def compile_nothing(model: torch.nn.Module, **_: object) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(inputs: torch.Tensor) -> torch.Tensor:
            nonlocal passes
            passes += 1
            return cast(torch.Tensor, model(inputs))

        return forward

    monkeypatch.setattr(torch, "compile", compile_nothing)
    run = start(change(compile="inductor"))
    while not run.is_finished:
        run.run_epoch()
    assert passes == run.epoch * (len(DATA.splits.train) // CONFIG.whole("batch_size"))
    assert [m.train_loss for m in run.history] == [m.train_loss for m in finished.history]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("inducter", r"there is no train\.compile 'inducter' \(did you mean 'inductor'"),
        ("cuda_graphs", r"needs a CUDA device, but the trial is on cpu"),
        ("inductor", r"needs a C\+\+ compiler, but there is no nowhere-to-be-found"),
    ],
)
def test_impossible_compilation_is_refused(monkeypatch: pytest.MonkeyPatch, word: str, message: str) -> None:
    monkeypatch.setenv("CXX", "nowhere-to-be-found")
    with pytest.raises(UserInputError, match=message):
        start(change(compile=word))


def test_bad_settings_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserInputError, match="did you mean 'fp32'"):
        start(change(precision="fp23")).run_epoch()
    with pytest.raises(UserInputError, match="did you mean 'soft'"):
        start(change(weighted_group="sofd"))


def test_macro_f1_counts_absent_classes_and_ignores_the_order() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert compute_mean_f1(labels, predicted, 3) == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    order = np.array([3, 1, 0, 2])
    assert compute_mean_f1(labels[order], predicted[order], 3) == compute_mean_f1(labels, predicted, 3)
    assert compute_mean_f1(labels, labels, 2) == 1.0


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp32"},
        {"precision": "bf16"},
        {"precision": "fp16", "clip_norm": 1.0, "accumulate": 2},
        {"precision": "fp16", "optimizer": "adamw", "max_lr": 0.001, "ema_decay": 0.9},
        {"precision": "fp32", "tf32": True, "schedule": "cosine"},
        {"precision": "bf16", "image_size": 64},
        {"precision": "bf16", "image_size": 224, "batch_size": 8},
        {"precision": "bf16", "compile": "inductor"},
        {"precision": "bf16", "compile": "cuda_graphs"},
        {"precision": "bf16", "backbone": "timm:test_vit", "image_size": 160, "batch_size": 8},
    ],
)
def test_a_gpu_repeats_its_bits_too(changes: dict[str, Value]) -> None:
    config, cuda = change(**{"backbone": "resnet18", "image_size": 32, **changes}), torch.device("cuda")
    whole, first = TrainingRun(config, DATA, device=cuda), TrainingRun(config, DATA, device=cuda)
    whole.run_epoch()
    first.run_epoch()
    checkpoint = Checkpoint.from_bytes(first.checkpoint().to_bytes())
    resumed = TrainingRun(config, DATA, device=cuda, checkpoint=checkpoint)
    whole.run_epoch()
    resumed.run_epoch()
    assert_same_run(whole, resumed)
    assert whole.history[-1].peak_memory_bytes > 0


def train_in_a_share(num_gpus: float) -> dict[str, Tensor]:
    """Return the weights after a trial that may use a share of a GPU, or that runs on the CPU where there is none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    limit_memory(device, num_gpus)
    run = TrainingRun(change(backbone="resnet18", image_size=32, precision="bf16"), DATA, device=device)
    run.run_epoch()
    return {name: tensor.cpu() for name, tensor in run.state_dict().items()}


@pytest.mark.gpu
def test_trials_that_share_a_gpu_have_the_bits_of_one_that_is_alone() -> None:
    alone = train_in_a_share(1.0)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for packed in pool.map(train_in_a_share, [0.4, 0.4]):
            assert all(torch.equal(packed[name], tensor) for name, tensor in alone.items())


def test_profiling_and_a_preview_change_no_bit_and_the_parts_are_measured() -> None:
    plain, profiled = (TrainingRun(CONFIG, DATA, device=CPU, profile=profile) for profile in (False, True))
    profiled.preview_batch()
    metrics = [run.run_epoch() for run in (plain, profiled)]
    assert metrics[0].part_seconds == ()
    parts = dict(metrics[1].part_seconds)
    assert set(parts) == {"data", "augment", "forward", "backward", "optimizer", "evaluate"}
    assert parts["evaluate"] == pytest.approx(metrics[1].evaluate_seconds, rel=0.2, abs=0.01)
    assert sum(parts.values()) <= metrics[1].train_seconds + metrics[1].evaluate_seconds + 0.01
    assert parts["backward"] > 0
    states = [run.state_dict() for run in (plain, profiled)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert metrics[0].macro_f1 == metrics[1].macro_f1
    assert EpochMetrics.model_validate_json(metrics[1].model_dump_json()) == metrics[1]


def test_a_preview_is_the_first_batch_as_the_network_sees_it() -> None:
    config = change(flip_probability=0.0, rotation_degrees=0.0, brightness_fraction=0.0, cutmix_probability=0.0)
    run = TrainingRun(config, DATA, device=CPU)
    shown = run.preview_batch(4)
    size = config.whole("image_size")
    assert (shown.shape, shown.dtype) == ((4, size, size, 3), np.uint8)
    chosen = run._batches.of_epoch(1)[0][:4].numpy()
    if DATA.images.shape[1] == size:
        np.testing.assert_allclose(shown.astype(int), DATA.images[chosen].astype(int), atol=1)


def test_images_that_are_left_out_are_in_no_batch_and_others_are_refused() -> None:
    train = DATA.splits.train
    config = change(leave_out=f"{train[3]} {train[5]}")
    batches = EpochBatches(config, DATA, choose_training_images(config, train))
    seen = {int(i) for batch in batches.of_epoch(1) for i in batch}
    assert not seen & {int(train[3]), int(train[5])}
    run, plain = TrainingRun(config, DATA, device=CPU), TrainingRun(CONFIG, DATA, device=CPU)
    assert run._batches._train.tolist() == [i for i in train.tolist() if i not in {train[3], train[5]}]
    assert run.config.fingerprint != plain.config.fingerprint
    outside = DATA.splits.test[0]
    with pytest.raises(UserInputError, match=rf"1 of its 2 are not in it \({outside}\)"):
        TrainingRun(change(leave_out=f"{train[0]} {outside}"), DATA, device=CPU)
    with pytest.raises(UserInputError, match="at least 2 images"):
        TrainingRun(change(leave_out=" ".join(map(str, train[1:]))), DATA, device=CPU)

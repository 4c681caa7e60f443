"""P2 to P5, P12: the loop against torchvision's reference recipe, its own parts and itself, twice on a device. Without Ray."""

import dataclasses
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.performance.reference_recipe import BATCH_SIZE, make_config, make_reference
from benchmarks.ratios import NOT_JUDGED, REPEATS, Ratio, compare_sides, measure_seconds, synchronize, take_turns
from search_spaces.config import Value
from trainables.data.augmentation.pipeline import AugmentationSettings, augment_batch
from trainables.data.sources import load_image_set
from trainables.data.splits import make_splits
from trainables.models.backbones import build_model, place_model, set_training_mode
from trainables.seeds import torch_generator
from trainables.training.evaluation import autocast
from trainables.training.loop import TrainingRun
from trainables.training.steps import build_optimizer
from trainables.training.trial_data import TrialData, gather_images, place_images

NUM_IMAGES = 2000
SCORED_EPOCHS = 4
# Backbone, side in pixels and goal of P2, on a CPU and on a GPU.
CPU_CASES = (("resnet18", 32, ">= 1.8"), ("resnet18", 64, ">= 1.8"))
GPU_CASES = (("resnet18", 224, ">= 5"), ("resnet18", 64, NOT_JUDGED), ("resnet18", 32, NOT_JUDGED))
# Trials of P12 at once, the epochs of each turn, and the longest wait of one for another.
NUM_PACKED, PACKED_EPOCHS, TURN_SECONDS = 2, 3, 120.0
# What P3 measures beside the default set, each alone; the padding of pad-and-crop depends on the size.
ADDITIONS: dict[str, dict[str, Value]] = {
    "random crops": {"crop_min_area": 0.35},
    "pad-and-crop": {},
    "TrivialAugmentWide": {"trivial_augment": True},
    "contrast": {"contrast_fraction": 0.2},
    "saturation": {"saturation_fraction": 0.2},
    "hue": {"hue_fraction": 0.1},
    "random erasing": {"erase_probability": 0.5},
    "MixUp": {"mixup_probability": 0.5},
    "ring swaps": {"ring_swap_probability": 0.5},
    'the preset "strong"': {"augmentation": "strong"},
}
FP32: dict[str, Value] = {"precision": "fp32", "channels_last": False}


def load_data(image_size: int) -> TrialData:
    """Return planted scenes of this size, so that nothing is resized."""
    image_set = load_image_set("planted", num_images=NUM_IMAGES, image_size=min(image_size, 512))
    splits = make_splits(image_set, seed=0, search_fraction=0.05, confirm_fraction=0.05, test_fraction=0.05)
    return TrialData(images=image_set.images, labels=image_set.labels, splits=splits, class_names=image_set.class_names)


def _usual_sizes(device: torch.device) -> tuple[int, ...]:
    return (224, 64, 32) if device.type == "cuda" else (32,)


def _images_per_second(run: TrainingRun) -> float:
    return run.run_epoch().train_images_per_second


def measure_reference(device: torch.device) -> list[Ratio]:
    """P2: images per second trained, against DataLoader, PIL transforms and fp32."""
    rows = []
    for backbone, size, goal in GPU_CASES if device.type == "cuda" else CPU_CASES:
        data = load_data(size)
        run = TrainingRun(make_config(backbone, size), data, device=device)
        reference = make_reference(data, backbone, size, device, workers=0)
        name = f"images/s trained / torchvision's reference recipe, {backbone} at {size} px"
        sides = {"this loop": partial(_images_per_second, run), "reference": reference}
        row = compare_sides("P2", name, goal, sides, "images/s")
        rows.append(dataclasses.replace(row, note=f"{row.note}; {_try_compilers(data, run)}"))
    return rows


def _try_compilers(data: TrialData, plain: TrainingRun) -> str:
    """Return how much faster compiled models train, and the seconds that their first epoch takes longer."""
    notes = []
    backbone, size = plain.config.word("backbone"), plain.config.whole("image_size")
    for kind in ("inductor", "cuda_graphs") if plain.device.type == "cuda" else ("inductor",):
        run = TrainingRun(make_config(backbone, size, compile=kind), data, device=plain.device)
        first = run.run_epoch()
        pairs = take_turns(partial(_images_per_second, run), partial(_images_per_second, plain))
        ratio = statistics.median(compiled / other for compiled, other in pairs)
        start = first.train_seconds - run.history[-1].train_seconds
        notes.append(f"compile = {kind} {ratio:.2f}x after a start of {start:.0f} s")
    return ", ".join(notes)


def measure_augmentation(device: torch.device) -> list[Ratio]:
    """P3: the share of a step that gathering and augmenting takes; what each addition adds to it is shown, but not judged."""
    size = _usual_sizes(device)[0]
    data = load_data(size)
    default = make_config("resnet18", size, rotation_degrees=10.0, cutmix=0.5)
    run = TrainingRun(default, data, device=device)
    images, labels = place_images(data.images, device), torch.from_numpy(data.labels)
    generator = torch_generator(0, "bench", device=device)
    batches = torch.split(torch.from_numpy(data.splits.train), BATCH_SIZE)[:-1]

    def augment(settings: AugmentationSettings) -> float:
        started = time.perf_counter()
        for chosen in batches:
            batch = gather_images(images, chosen, device)
            augment_batch(batch, labels[chosen].to(device), generator=generator, settings=settings, num_classes=10)
        synchronize(device)
        return 1e3 * (time.perf_counter() - started) / len(batches)

    sets = {"": default}
    for name, changes in {**ADDITIONS, "pad-and-crop": {"crop_padding": size // 8}}.items():
        sets[name] = dataclasses.replace(default, fixed={**default.fixed, **changes})
    sides = {name: partial(augment, AugmentationSettings.from_config(config)) for name, config in sets.items()}
    sides["step"] = lambda: 1e3 * BATCH_SIZE / _images_per_second(run)
    turns = [{name: measure() for name, measure in sides.items()} for _ in range(1 + REPEATS)][1:]
    return _tabulate_augmentation(turns, f"resnet18 at {size} px")


def _tabulate_augmentation(turns: list[dict[str, float]], of: str) -> list[Ratio]:
    """Return a row for the default set, whose name is "", and one for each addition to it.

    Args:
        turns: Milliseconds a batch of each set and of a "step", measured in turn.
        of: Model and size.
    """
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    note = f"augmentation {medians['']:.3g}, step {medians['step']:.3g} ms a batch"
    shares = tuple(turn[""] / turn["step"] for turn in turns)
    rows = [
        Ratio(
            "P3", f"augmentation's part of a step, {of}: flip, rotation, brightness and CutMix", "<= 0.05", shares, note
        )
    ]
    for name in turns[0]:
        if name not in {"", "step"}:
            added = tuple((turn[name] - turn[""]) / turn["step"] for turn in turns)
            note = f"{medians[name] - medians['']:+.3g} ms a batch"
            rows.append(Ratio("P3", f"with {name}: added part of a step", NOT_JUDGED, added, note))
    return rows


def measure_fixed_tensor(device: torch.device) -> list[Ratio]:
    """P4: images per second of the loop against the same model stepping on one fixed tensor."""
    return [_compare_with_fixed_tensor(device, size) for size in _usual_sizes(device)]


def _compare_with_fixed_tensor(device: torch.device, size: int) -> Ratio:
    data = load_data(size)
    config = make_config("resnet18", size)
    run = TrainingRun(config, data, device=device)
    model = place_model(build_model(config, 10), config, device)
    optimizer = build_optimizer(model, config)
    layout = torch.channels_last if device.type == "cuda" or config["channels_last"] else torch.contiguous_format
    inputs = torch.randn(BATCH_SIZE, 3, size, size, device=device).to(memory_format=layout)
    targets = torch.arange(BATCH_SIZE, device=device) % 10
    num_steps = len(data.splits.train) // BATCH_SIZE

    def step_on_fixed_tensor() -> float:
        set_training_mode(model, config)
        started = time.perf_counter()
        for _ in range(num_steps):
            with autocast(config, device):
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        return num_steps * BATCH_SIZE / (time.perf_counter() - started)

    name = f"images/s trained / the same model stepping on one fixed tensor, resnet18 at {size} px"
    sides = {"this loop": partial(_images_per_second, run), "fixed tensor": step_on_fixed_tensor}
    return compare_sides("P4", name, ">= 0.95", sides, "images/s")


def measure_precision(device: torch.device) -> list[Ratio]:
    """P5: bf16 and channels_last against fp32, and at the first size the difference in macro-F1 over five seeds."""
    rows: list[Ratio] = []
    for size in _usual_sizes(device):
        data = load_data(size)
        configs = {"bf16": make_config("resnet18", size), "fp32": make_config("resnet18", size, **FP32)}
        sides = {
            name: partial(_images_per_second, TrainingRun(config, data, device=device))
            for name, config in configs.items()
        }
        name = f"images/s in bf16 and channels_last / fp32, resnet18 at {size} px"
        row = compare_sides("P5", name, ">= 1.7", sides, "images/s")
        rows.append(
            row if rows else dataclasses.replace(row, note=f"{row.note}; {_compare_scores(data, size, device)}")
        )
    return rows


def _compare_scores(data: TrialData, size: int, device: torch.device) -> str:
    """Return the mean difference in macro-F1 of bf16 and fp32 beside its spread over seeds, in percentage points."""
    scores: list[list[float]] = []
    for changes in ({}, FP32):
        config = make_config("resnet18", size, max_lr=0.02, max_epochs=SCORED_EPOCHS, batch_size=64, **changes)
        own = []
        for seed in range(REPEATS):
            run = TrainingRun(config.with_seed(seed), data, device=device)
            while not run.is_finished:
                run.run_epoch()
            own.append(100 * run.history[-1].macro_f1)
        scores.append(own)
    differences = [bf16 - fp32 for bf16, fp32 in zip(*scores, strict=True)]
    return (
        f"macro-F1 {statistics.fmean(differences):+.1f} pp in bf16, seed to seed "
        f"{statistics.stdev(scores[1]):.1f} pp ({REPEATS} seeds, {SCORED_EPOCHS} epochs)"
    )


def measure_packed(device: torch.device) -> list[Ratio]:
    """P12: trials that share a device, one thread each, against the same ones one after the other; judged on a GPU only."""
    context = get_context("spawn")
    sizes = tuple(size for size in _usual_sizes(device) if size <= 64)
    with context.Manager() as manager, ProcessPoolExecutor(NUM_PACKED, mp_context=context) as pool:
        # Where one trial fails, the others do not wait for it for ever.
        barrier = manager.Barrier(NUM_PACKED, timeout=TURN_SECONDS)
        train = partial(_train_in_turns, sizes=sizes, device=device, barrier=barrier)
        found = list(pool.map(train, range(NUM_PACKED)))
    rows = []
    for size in sizes:
        turns = [[of_trial[size][turn] for of_trial in found] for turn in range(REPEATS)]
        alone, packed = ([max(trial[side] for trial in turn) for turn in turns] for side in (0, 1))
        name = f"packed trials on a device, {NUM_PACKED} at once / one after the other, resnet18 at {size} px"
        note = f"one alone {statistics.median(alone):.3g}, {NUM_PACKED} at once {statistics.median(packed):.3g} s"
        goal = ">= 1.3" if device.type == "cuda" else NOT_JUDGED
        ratios = tuple(NUM_PACKED * own / both for own, both in zip(alone, packed, strict=True))
        rows.append(Ratio("P12", name, goal, ratios, f"{note} for {PACKED_EPOCHS} epochs"))
    return rows


def _train_in_turns(
    number: int, sizes: tuple[int, ...], device: torch.device, barrier: Any
) -> dict[int, list[tuple[float, float]]]:
    """Train in a process of its own; return the seconds, by size and turn, that the first trial alone and all at once took."""
    torch.set_num_threads(1)
    seconds: dict[int, list[tuple[float, float]]] = {}
    for size in sizes:
        run = TrainingRun(make_config("resnet18", size), load_data(size), device=device)

        def train(run: TrainingRun = run, *, is_active: bool) -> float:
            barrier.wait()
            return measure_seconds(lambda: [run.run_epoch() for _ in range(PACKED_EPOCHS if is_active else 0)])

        train(is_active=True)  # Does not count.
        seconds[size] = [(train(is_active=number == 0), train(is_active=True)) for _ in range(REPEATS)]
    return seconds

"""Logits and F1 scores of a model on a split, and what a pass is computed under: precision, kernels, seeds of modules."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from search_spaces.config import TrialConfig
from search_spaces.errors import check_choice, refuse_any
from search_spaces.settings import ACCUMULATION_IN_GRAPHS, FOR_GPUS
from trainables.models.backbones import prepare_inputs
from trainables.seeds import derive_seed
from trainables.training.trial_data import PlacedImages, read_batches

Weights = NDArray[np.float64] | None
# Precision -> type of autocast; None for no autocast.
PRECISIONS: Mapping[str, torch.dtype | None] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}


def compute_logits(
    model: nn.Module,
    images: PlacedImages,
    indices: NDArray[np.int64],
    config: TrialConfig,
    device: torch.device,
    batch_size: int,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> NDArray[np.float32]:
    """Return (M, K) float32 logits in the order of `indices`. The model's mode is kept.

    Args:
        model: Model on `device`.
        images: (N, H, W, 3) uint8, the whole image set, on `device`, on the CPU or streamed.
        indices: (M,) int64, into `images`.
        config: Reads `image_size`, `interpolation`, `channels_last`, `precision` and `tf32`.
        device: Device to compute on.
        batch_size: Images per step.
        prepare: Returns the model's inputs of (B, H, W, 3) uint8 images; None for `prepare_inputs`.
    """
    was_training = model.training
    model.eval()
    order = torch.from_numpy(np.array(indices, dtype=np.int64))
    batches: list[Tensor] = []
    try:
        with torch.inference_mode(), deterministic_kernels(config, device), autocast(config, device):
            for pixels in read_batches(images, torch.split(order, batch_size), device):
                inputs = prepare_inputs(pixels, config) if prepare is None else prepare(pixels)
                batches.append(model(inputs).float())
            logits = torch.cat(batches).cpu().numpy()
    finally:
        model.train(was_training)
    return np.asarray(logits, dtype=np.float32)


def compute_per_class_f1(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int, weights: Weights = None
) -> NDArray[np.float64]:
    """Return (K,) F1 scores; 0 for a class that is neither present nor predicted.

    Args:
        labels: (N,) int64 in [0, K).
        predicted: (N,) int64 in [0, K).
        num_classes: K.
        weights: (N,) of the images; None for 1.
    """
    classes = range(num_classes)
    scores = f1_score(labels, predicted, labels=classes, average=None, sample_weight=weights, zero_division=0)
    return np.asarray(scores, dtype=np.float64)


def compute_mean_f1(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int, weights: Weights = None
) -> float:
    """Return the unweighted mean of the K classes' F1 scores, in [0, 1]; see `compute_per_class_f1` for the arguments."""
    return float(compute_per_class_f1(labels, predicted, num_classes, weights).mean())


def autocast(config: TrialConfig, device: torch.device) -> AbstractContextManager[None]:
    """Return the context of one forward pass: autocast to bfloat16 or float16, or float32.

    The context caches cast weights until it ends, so it must not span an optimizer step. A CPU supports float16 too, but most
    compute it several times slower than bfloat16.

    Args:
        config: Reads `precision`.
        device: Device of the forward pass.

    Raises:
        UserInputError: For an unknown `precision`.
    """
    precision = config.word("precision")
    check_choice("there is no precision", precision, PRECISIONS)
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


@contextmanager
def deterministic_kernels(config: TrialConfig, device: torch.device) -> Iterator[None]:
    """Make a CUDA device use deterministic algorithms and TF32 as the configuration says; restore the settings after.

    TF32 rounds the inputs of float32 products to 10 bits of mantissa. An operation without a deterministic algorithm warns, see
    `noting_operations`.
    torch then also compiles deterministically: Inductor measures nothing where it chooses between kernels. Attention is computed
    by products and a softmax, since the fused kernels' backward passes have no deterministic algorithm under `warn_only`.

    Args:
        config: Reads `tf32` and `deterministic`.
        device: Device that computes.
    """
    if device.type != "cuda":
        yield
        return
    is_deterministic, allow_tf32 = bool(config["deterministic"]), bool(config["tf32"])
    products = torch.backends.cuda.matmul
    filling: Any = torch.utils.deterministic
    before = (products.allow_tf32, filling.fill_uninitialized_memory)
    algorithms = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    cudnn = torch.backends.cudnn.flags(
        enabled=True, benchmark=not is_deterministic, deterministic=is_deterministic, allow_tf32=allow_tf32
    )
    try:
        products.allow_tf32, filling.fill_uninitialized_memory = allow_tf32, False
        torch.use_deterministic_algorithms(is_deterministic, warn_only=True)
        with cudnn, sdpa_kernel(SDPBackend.MATH) if is_deterministic else nullcontext():
            yield
    finally:
        products.allow_tf32, filling.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])


# What torch says of an operation without a deterministic algorithm.
_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def noting_operations(notes: dict[str, None]) -> Iterator[None]:
    """Add a note for each operation without a deterministic algorithm that the context computes; other warnings pass.

    Args:
        notes: Its keys are the notes, in the order in which they were made.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=_NOT_DETERMINISTIC.pattern)
        show = warnings.showwarning

        def take(message: Warning | str, *rest: Any) -> None:
            if found := _NOT_DETERMINISTIC.match(str(message)):
                said = f"{found[1]} has no deterministic algorithm here: `study reproduce` may not find the same bits"
                notes[said] = None
            else:
                show(message, *rest)

        warnings.showwarning = take  # type: ignore[assignment]
        yield


@contextmanager
def seeded_modules(
    seed: int, epoch: int, device: torch.device, state: Tensor | None = None
) -> Iterator[torch.Generator]:
    """Seed the global generator of the device for an epoch; yield it, and restore its state at the end.

    Args:
        seed: Of the trial.
        epoch: Number of the epoch.
        device: That the modules compute on.
        state: To continue from in the middle of the epoch, from `torch.Generator.get_state`.
    """
    generator = torch.default_generator
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
    before = generator.get_state()
    generator.manual_seed(derive_seed(seed, "modules", epoch))
    if state is not None:
        generator.set_state(state)
    try:
        yield generator
    finally:
        generator.set_state(before)


def check_recipe(config: TrialConfig, device: torch.device) -> None:
    """Check the settings that not every device supports, or that exclude each other.

    Args:
        config: Reads `tf32`, `deterministic`, `accumulate` and `compile`.
        device: Device that trains.

    Raises:
        UserInputError: Listing all problems.
    """
    problems = [
        f"train.{name} = {str(value).lower()} needs a CUDA device, but the trial is on {device.type}; set it to "
        f"{str(not value).lower()}, or train on a GPU"
        for name, value in FOR_GPUS.items()
        if config[name] is value and device.type != "cuda"
    ]
    if config.whole("accumulate") > 1 and config["compile"] == "cuda_graphs":
        problems.append(ACCUMULATION_IN_GRAPHS)
    refuse_any(problems)

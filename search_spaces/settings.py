"""The settings of a trial: name, type, bounds, default and meaning of each, declared here alone.

[train] of a spec, `TrialConfig`, the search spaces, messages and docs/spec.md read them. The text below each one has its unit.
At the end stand rules of the recipe: what excludes what, and when the learning rate peaks. A spec is checked with them.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# `trainable` of a configuration that the product's own training loop trains.
BUILT_IN_LOOP = "network"

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of the sections of a spec: frozen, and unknown keys are refused."""

    # The text below a field is its description.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class AugmentationKeys(Section):
    """The keys of the augmentation of training images."""

    crop_min_area: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1, training images are random crops of at least this share of the area (torchvision's RandomResizedCrop)."""
    crop_max_ratio: Annotated[float, Field(ge=1, le=10)] = 4 / 3
    """Largest aspect ratio of a random crop; the smallest is its inverse."""
    flip_probability: Share = 0.5
    """Share of the training images that are mirrored left to right."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Training images are rotated by an angle that is uniform in +- this number."""
    brightness_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """The brightness of training images is multiplied by a factor that is uniform in 1 +- this fraction."""
    crop_padding: Annotated[int, Field(ge=0, le=512)] = 0
    """Pixels of the input that are added on each side before a crop of the old size."""
    crop_padding_mode: Literal["reflect", "zero"] = "reflect"
    """What `crop_padding` adds: the mirrored image, or black."""
    trivial_augment: bool = False
    """Applies one operation of TrivialAugmentWide to each training image."""
    contrast_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """As `brightness_fraction`, for contrast."""
    saturation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """As `brightness_fraction`, for saturation."""
    hue_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The hue is shifted by up to +- this fraction of the color circle."""
    erase_probability: Share = 0.0
    """Share of the training images in which a rectangle is erased."""
    mixup_probability: Share = 0.0
    """Share of the images without CutMix that MixUp blends with another image."""
    mixup_alpha: Annotated[float, Field(gt=0, le=10)] = 0.2
    """MixUp's lambda is drawn from Beta(mixup_alpha, mixup_alpha)."""
    ring_swap_probability: Share = 0.0
    """Share of the training images that get the outer ring (of the ring audit) of an image of another class of the batch."""


class TrainSettings(AugmentationKeys):
    """[train]: the settings of the training, which all trials of the study share unless [search] or [design] varies them."""

    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    """Side of the model's input in pixels."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per batch. If a new spec leaves it out, it is lowered so that an epoch has eight steps or more, and recorded."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Of the backbone; "fp16" scales the loss, for GPUs without bfloat16. The head computes in float32: bfloat16 logits tie."""
    tf32: bool = False
    """Whether a GPU may compute float32 products in TF32; refused for trials without a GPU."""
    deterministic: bool = True
    """With `false`, a GPU uses the fastest kernels, whose results differ from run to run; refused for trials without a GPU."""
    channels_last: bool = True
    """Stores activations and weights of convolutions in torch's memory format channels_last."""
    compile: Literal["none", "inductor", "cuda_graphs"] = "none"
    """`inductor` is torch.compile, `cuda_graphs` adds CUDA graphs. Each trial compiles its model again."""
    augmentation: Literal["default", "none", "light", "trivial", "strong"] = "default"
    """A preset other than "default" sets every key of the augmentation, so that those which [train] gives are refused or apply to
    other arms alone (`search_spaces.settings.PRESETS`)."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1, the learning rate of each layer of the backbone is this factor times that of the layer after it."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW (betas .9 and .999), which needs smaller rates: narrow `search.ranges.max_lr`."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; AdamW does not use it."""
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    """`onecycle` peaks at `lr_peak_fraction` of the steps; `cosine` warms up over `warmup_fraction` of them, then falls."""
    lr_peak_fraction: Fraction = 0.3
    """Share of the steps before the peak of `onecycle`."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the rate of `cosine` rises."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Above 0, an exponential moving average of the weights is evaluated and stored; .99 to .9999 are usual."""
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Above 0, limits the norm of the gradients of a step."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches of `batch_size` images whose gradients make one step of the optimizer."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes of one machine that share each batch of a trial (DistributedDataParallel); a trial holds as many GPUs or CPUs."""
    weighted_group: str = ""
    """Classes whose loss weighs more with `class_weighting = "group"`: a group of the data set or of
    [analyze.groups](#analyzegroups)."""
    hard_group: str = ""
    """Group of classes that batches of hard examples have; named as `weighted_group` is."""
    hard_fraction: Share = 0.0
    """Share of the batches of an epoch (at least one) with images of `hard_group` alone, equally many of each class."""
    hard_from_epoch: Annotated[int, Field(ge=1)] = 1
    """First epoch with batches of hard examples."""
    leave_out: Annotated[str, Field(pattern=r"^(\d+( \d+)*)?$")] = ""
    """Sample ids of training images that are not trained on, with spaces between them."""
    trainable: Annotated[str, Field(pattern=r"^[\w.-]+(:[\w.]+)?$")] = BUILT_IN_LOOP
    """The training loop: "network", an entry point of the group `abstudy.trainables`, or `package.module:Class` in the working
    folder. A custom loop reads only the settings that it names; [search.space], [configurations] or [design] set them."""


class TuningSettings(Section):
    """Which part of the model is trained, and where its classification layer starts."""

    tuning: Literal["full", "last_block", "probe"] = "full"
    """What is trained: all layers; the last block and the classification layer; or that layer alone, on features that are
    computed once and cached. "probe" has no CutMix, MixUp or ring swaps, and `backbone_lr_ratio` has no effect on it."""
    head_init: Literal["random", "probe"] = "random"
    """Initial classification layer: random, or a logistic regression on the frozen backbone's features of the training images
    (LP-FT), whose regularization has the best macro-F1 on the split `search`."""
    probe_views: Annotated[int, Field(ge=1, le=64)] = 1
    """Views of each training image that `tuning = "probe"` trains on in turn: the image as it is, then augmented ones."""
    head_refit: Literal["none", "ring_swaps", "groups", "balanced"] = "none"
    """The classification layer is fitted anew after the last epoch, by logistic regression on features of the split `search`, on
    which the network was not trained: with rings of other classes too, so that rings say nothing; or with equal weights of the
    groups of images in each class, or of the classes. The scores of the last epoch on `search` are those before."""
    freeze_depth: Annotated[int, Field(ge=0)] = 0
    """Layers of the backbone that are not trained: 1 is the stem, 2 the first block too."""


class EpochSettings(Section):
    """How long a trial trains."""

    max_epochs: Count = 10
    """Epochs of a trial that is not pruned, and of every trial of the confirmation."""


class Hyperparameters(Section):
    """What a configuration must set beyond the sections of a spec: valid values, wherever the space ends."""

    backbone: str
    """Name of the architecture: see [Backbones](extending.md#backbones)."""
    max_lr: Annotated[float, Field(gt=0)]
    """Learning rate of the classification layer at its peak."""
    backbone_lr_ratio: Annotated[float, Field(gt=0)]
    """Learning rate of the backbone / learning rate of the classification layer."""
    cutmix_probability: Share
    """Share of the training images that CutMix mixes."""
    class_weighting: Literal["none", "inverse_frequency", "group"]
    """Weights of the classes in the loss: all 1, by inverse frequency, or more for [train.weighted_group](#trainweighted_group).
    If a new spec leaves the choices out, those that fit its images are searched."""
    class_weight_strength: Share
    """Strength s of the class weights. By inverse frequency they are count^-s: at 1, all classes have the same total weight.
    Classes of the group weigh 1 + s times as much as the others. It applies where `class_weighting` is not `none`."""
    interpolation: Literal["bicubic", "bilinear"]
    """How images are resized to `image_size`."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Weight decay of the optimizer. Norms, biases, scales, tokens and position embeddings have none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of the target that is spread evenly over all classes."""


# Default of each setting that has one. A configuration made by hand may leave it out; a study's configurations hold all of them.
DEFAULTS: Mapping[str, float | int | str | bool] = MappingProxyType(
    {
        name: field.default
        for section in (TrainSettings, TuningSettings, EpochSettings)
        for name, field in section.model_fields.items()
    }
    | {"model_arguments": "{}"}
)

DEFAULT_PRESET = "default"
# What is not off by default.
_OFF = dict.fromkeys(("flip_probability", "rotation_degrees", "brightness_fraction", "cutmix_probability"), 0.0)
_NONE = {**{name: DEFAULTS[name] for name in AugmentationKeys.model_fields}, **_OFF}
# Flips, TrivialAugmentWide, and erasing with the probability of torchvision's reference recipe.
_TRIVIAL = {**_NONE, "flip_probability": 0.5, "trivial_augment": True, "erase_probability": 0.1}
# The padding of He et al. 2016 (https://arxiv.org/abs/1512.03385, section 4.2): an eighth of the image's side, 4 pixels at 32.
PADDING_OF_SIDE = "image_size // 8"
# Presets of the augmentation: the words of `augmentation` and the values that they set. A fingerprint holds the word alone, so
# that the values of a word never change.
PRESETS: Mapping[str, Mapping[str, float | int | str | bool]] = MappingProxyType(
    {
        DEFAULT_PRESET: {},
        "none": _NONE,
        "light": {**_NONE, "flip_probability": 0.5, "crop_padding": PADDING_OF_SIDE},
        "trivial": _TRIVIAL,
        "strong": {**_TRIVIAL, "mixup_probability": 0.5, "cutmix_probability": 0.5},
    }
)
PRESET_KEYS = frozenset(_NONE)


def resolve_preset(word: str, image_size: int) -> dict[str, float | int | str | bool]:
    """Return the values that a preset of the augmentation sets, for a side of the model's input in pixels."""
    return {name: image_size // 8 if value == PADDING_OF_SIDE else value for name, value in PRESETS[word].items()}


# Settings that mix images of a batch, at the value that mixes none: features of single images cannot have them.
UNMIXED: Mapping[str, float] = MappingProxyType(
    {"cutmix_probability": 0.0, "mixup_probability": 0.0, "ring_swap_probability": 0.0}
)


# Settings that have an effect on GPUs alone, each with the value that a CPU cannot follow.
FOR_GPUS: Mapping[str, bool] = MappingProxyType({"tf32": True, "deterministic": False})
# Batch normalization needs two images of each process.
FEWEST_IMAGES_OF_PROCESS = 2

# The gradients of a CUDA graph are overwritten by its next replay, before they are added up (torch 2.13).
ACCUMULATION_IN_GRAPHS = (
    'train.accumulate > 1 cannot be combined with train.compile = "cuda_graphs"; use "inductor" or "none", '
    "or a larger batch_size"
)


def list_process_problems(processes: int, batch_size: int, compiled: str) -> list[str]:
    """Return a message for each setting that training by several processes excludes.

    Args:
        processes: Of a trial.
        batch_size: Images of a batch, of all processes together.
        compiled: `train.compile`.
    """
    if processes == 1:
        return []
    problems = []
    if batch_size < FEWEST_IMAGES_OF_PROCESS * processes:
        problems.append(
            f"train.processes = {processes} needs batches of {FEWEST_IMAGES_OF_PROCESS * processes} images or more, "
            f"{FEWEST_IMAGES_OF_PROCESS} for each process, but a batch has {batch_size}; lower it, or raise train.batch_size"
        )
    if compiled != "none":
        problems.append(
            f'train.processes = {processes} cannot be combined with train.compile = "{compiled}"; set compile to "none"'
        )
    return problems


def find_epoch(fraction: float, max_epochs: int) -> int:
    """Return the 1-based epoch at whose end this fraction of a trial of `max_epochs` epochs is reached."""
    # Rounded first, since 0.3 * 10 must not end in epoch 4.
    return max(1, math.ceil(round(fraction * max_epochs, 9)))

"""The sections of a spec, one class per section."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from search_spaces.config import BUILT_IN_LOOP, Value
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.extensions import is_location, list_entry_points
from trainables.data.image_memory import DEFAULT_SHARE, ImageMemoryBudget, default_folder, physical_memory
from trainables.data.sources import check_source
from trainables.training.recipe_rules import ACCUMULATION_IN_GRAPHS, list_process_problems

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
PerArm = float | dict[str, float]

DEFAULT_NUM_TRIALS = 20
SAMPLERS = ("auto", "random", "tpe_univariate", "tpe_multivariate", "gp")
SAMPLER_ENTRY_POINTS = "abstudy.samplers"


class Section(BaseModel):
    """Base of the sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(Section):
    """[data]: the source of the images and how they are split.

    `group` names what images have in common that belong together, such as "patient" or "scene": a column of Parquet files or of a
    manifest, or the level of folders between the class and its images. Images of one group stay in one split, and are one unit
    of the intervals.
    `aspect` says how images that are not square become squares: "crop" resizes the shorter side and takes the center, "squash"
    resizes both sides, as studies launched under defaults_version 1 and 2 do. `on_bad_image = "skip"` goes on without files that
    cannot be used and records which they are; "refuse" lists them all and stops.
    """

    source: str
    path: str | None = None
    num_images: Count | None = None
    num_test_images: Count | None = None
    search_fraction: Fraction = 0.15
    confirm_fraction: Fraction = 0.15
    test_fraction: Fraction | None = None
    group: Annotated[str, Field(min_length=1)] | None = None
    aspect: Literal["crop", "squash"] = "crop"
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_source(self) -> "DataSpec":
        check_source(self.source)
        return self


class ModelSpec(Section):
    """[model]: the weights that fine-tuning starts from, and how the model is built.

    `freeze` trains the head alone; `freeze_depth` freezes that many layers of the backbone (1 is the stem, 2 the first block
    too). `arguments` are those of the model's function, for all backbones, or in a table of the name of one of them:
    `[model.arguments."torchvision:vit_b_16"]`.
    """

    weights: str = "imagenet"
    freeze: bool = False
    freeze_depth: Annotated[int, Field(ge=0)] = 0
    arguments: dict[str, Any] = Field(default_factory=dict)


class TrainSpec(Section):
    """[train]: the training settings, which all trials of the study share unless [search] or [design] varies them.

    `optimizer = "adamw"` has betas of 0.9 and 0.999; `momentum` is that of SGD alone. AdamW needs smaller learning rates: narrow
    `search.ranges.max_lr`. `schedule = "onecycle"` has its peak at `lr_peak_fraction` of the steps; `schedule = "cosine"` rises
    linearly over the first `warmup_fraction` of them and then falls along a cosine.
    With `ema_decay` above 0, an exponential moving average of the weights is evaluated, predicts and is stored in place of the
    latest weights; 0.99 to 0.9999 are usual, and the first steps use a smaller decay. `clip_norm` above 0 limits the norm of the
    gradients of a step. A step of the optimizer uses `accumulate` batches of `batch_size` images.
    `precision` is that of the backbone; "fp16" is for GPUs without bfloat16, and has a loss scale that adapts itself. `tf32` lets
    a GPU compute float32 products in TF32; it is refused for trials without a GPU. `deterministic = false` lets a GPU choose the
    fastest kernels, whose results differ from run to run, so that `study reproduce` compares with the spread of seeds; it is
    refused for trials without a GPU. With `head_precision = "fp32"` the
    classification layer computes in float32 in either case: logits in bfloat16 tie. "as_backbone" is the behavior of studies
    launched under defaults_version 1.
    With `crop_min_area` below 1, training images are random crops of at least this share of the area, resized to `image_size`;
    the aspect ratio of a crop is at most `crop_max_ratio` and at least its inverse (torchvision's RandomResizedCrop).
    With `layer_decay` below 1, each layer of the backbone has a learning rate that is smaller by this factor than the layer
    after it.
    `crop_padding` is in pixels of the input; what lies outside the image is mirrored ("reflect") or black ("zero").
    `trivial_augment` applies one operation of TrivialAugmentWide to each image. Factors of brightness, contrast and saturation
    are uniform in 1 +- the fraction; the hue is shifted by up to +- `hue_fraction` of the color circle. `erase_probability` is
    the share of images that lose a rectangle. `mixup_probability` is the share, among images that CutMix did not choose, that are
    blended with another image, with lambda ~ Beta(mixup_alpha, mixup_alpha). `ring_swap_probability` is the share of images whose
    outer ring, in one of the widths of the ring audit, is replaced by that of an image of another class of the batch.
    From epoch `hard_from_epoch` on, the share `hard_fraction` of the batches of an epoch (rounded, at least one) has images of
    the classes of `hard_group` alone, equally many of each: a group of the data set, as `weighted_group` is, or of [analyze].
    `leave_out` lists sample ids of training images that are not trained on, with spaces between them.
    `augmentation` names a preset: "none", "light", "trivial" and "strong" set every key of the augmentation
    (`trainables.data.augmentation.presets`), so that keys which [train] gives apply to arms with "default" only, and are refused
    if there is none.
    With `processes` above 1, so many processes of one machine train a trial, each with an equal part of every batch
    (DistributedDataParallel); a trial then holds as many GPUs, or at least as many CPUs.
    `compile` is "none", "inductor" (torch.compile) or "cuda_graphs"; every trial compiles its model again.
    `trainable = "package.module:Class"` trains by a loop of one's own (`trainables.training.trainable.Trainable`), which reads
    the settings that it names and no other; [search.space], [configurations] or [design] set them. "network" is the product's
    loop.
    """

    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    batch_size: Annotated[int, Field(ge=2)] = 128
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    tf32: bool = False
    deterministic: bool = True
    head_precision: Literal["fp32", "as_backbone"] = "fp32"
    channels_last: bool = True
    compile: Literal["none", "inductor", "cuda_graphs"] = "none"
    crop_min_area: Annotated[float, Field(gt=0, le=1)] = 1.0
    crop_max_ratio: Annotated[float, Field(ge=1, le=10)] = 4 / 3
    flip_probability: Share = 0.5
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    brightness_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    augmentation: Literal["default", "none", "light", "trivial", "strong"] = "default"
    crop_padding: Annotated[int, Field(ge=0, le=512)] = 0
    crop_padding_mode: Literal["reflect", "zero"] = "reflect"
    trivial_augment: bool = False
    contrast_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    saturation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    hue_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    erase_probability: Share = 0.0
    mixup_probability: Share = 0.0
    mixup_alpha: Annotated[float, Field(gt=0, le=10)] = 0.2
    ring_swap_probability: Share = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    lr_peak_fraction: Fraction = 0.3
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    accumulate: Annotated[int, Field(ge=1)] = 1
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    weighted_group: str = ""
    hard_group: str = ""
    hard_fraction: Share = 0.0
    hard_from_epoch: Annotated[int, Field(ge=1)] = 1
    leave_out: Annotated[str, Field(pattern=r"^(\d+( \d+)*)?$")] = ""
    trainable: Annotated[str, Field(pattern=r"^(network|[\w.]+:[\w.]+)$")] = BUILT_IN_LOOP

    @model_validator(mode="after")
    def _padding_within_the_image(self) -> "TrainSpec":
        if self.crop_padding >= self.image_size:
            raise ValueError(
                f"crop_padding < image_size ({self.image_size}) must hold, but crop_padding is {self.crop_padding}"
            )
        return self

    @model_validator(mode="after")
    def _accumulation_outside_of_graphs(self) -> "TrainSpec":
        if self.accumulate > 1 and self.compile == "cuda_graphs":
            raise ValueError(ACCUMULATION_IN_GRAPHS)
        return self

    @model_validator(mode="after")
    def _parts_of_processes(self) -> "TrainSpec":
        problems = list_process_problems(self.processes, self.batch_size, self.compile)
        if problems:
            raise ValueError("; ".join(problems))
        return self


class AshaSpec(Section):
    """[search.asha]: asynchronous successive halving; each rung keeps the best 1 / `reduction_factor` of its trials.

    A trial is stopped at a rung. The first lies at `first_rung` epochs, by default at three quarters of `max_epochs` and not
    before the peak of the learning rate: earlier scores hardly rank the better half of configurations, and those with high
    learning rates, often the best ones, are behind there. Studies launched before version 6 of the defaults have it at the peak.
    Each next rung lies at `reduction_factor` times the epoch of the one before.
    """

    enabled: bool = True
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    first_rung: Annotated[int, Field(ge=0)] = 0


class PriorSpec(Section):
    """[search.prior.NAME]: a normal distribution of a searched number, cut off at the ends of its range.

    `center` is the most likely value and `width` the standard deviation, in the units of the parameter. Of a parameter with a
    logarithmic range, `width` is a factor: with a center of 0.05 and a width of 2, two thirds of the values lie in 0.025 to 0.1.
    """

    center: float
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SearchSpec(Section):
    """[search]: the search space, the A/B factor and the budget.

    `space` is the name of a space, a TOML file, or a table of parameters in the form of search_spaces/transfer_learning.toml.
    Every setting of [train], `freeze` and `max_epochs` can be the factor (`factor = "batch_size"` with
    `ranges.batch_size = [32, 128]`), and `ranges.momentum = [0.8, 0.95]` searches one. The value in its own section then has no
    effect. With two numbers, a range is [low, high]; anything else lists choices, and for the factor its levels.
    The budget is a number of trials, or device-seconds for all arms together (GPU-seconds, or core-seconds if trials hold no
    GPU). `allocation = "per_arm"` gives every level of the factor its own sampler, its own ASHA bracket and equal device
    time; "pooled" is one ordinary search over the whole space, without arms to compare.
    `[[search.start]]` tables are configurations that each arm tries first; one that names a level of the factor is for that arm
    alone. Without any, a search that fine-tunes pretrained weights starts with the published recipes of
    `search_spaces.portfolios`, moved into the ranges (one that then says no more than an earlier one is left out); `start = []`
    starts with none. `[search.prior.NAME]` says where a number is expected: suggestions are drawn from it at first, and ever
    fewer later.
    Of the search trials of an arm, the weights of the best `keep_weights` are kept, by default of those that may still be
    confirmed (`confirm.top_k`), or of "all". Predictions of all are kept, and `study reproduce` trains any of them again.
    `warm_start` names another study of the same space; the samplers start from its finished trials. `epoch_cost`, a number per
    arm, replaces the measured device-seconds of an epoch when device time is divided among the arms: with one trial at a time,
    the order of the arms then does not depend on the speed of the machine.
    """

    space: str | dict[str, Any] = "transfer_learning"
    factor: str = "backbone"
    allocation: Literal["per_arm", "pooled"] = "per_arm"
    num_trials: Count | None = None
    device_seconds: Annotated[float, Field(gt=0)] | None = None
    max_epochs: Count = 10
    # Chosen on curves of CIFAR-10: benchmarks/SEARCH_GRID.md, 8 workers, has the figures. Per arm with ASHA, "gp", which "auto"
    # is for so few trials, has less regret than every other sampler.
    sampler: str = "auto"
    start: list[dict[str, Value]] | None = None
    prior: dict[str, PriorSpec] = Field(default_factory=dict)
    keep_weights: Annotated[int, Field(ge=0)] | Literal["all"] | None = None
    warm_start: str | None = None
    epoch_cost: dict[str, Annotated[float, Field(gt=0)]] | None = None
    asha: AshaSpec = AshaSpec()
    ranges: dict[str, list[Value]] = Field(default_factory=dict)
    fixed: dict[str, Value] = Field(default_factory=dict)

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, sampler: str) -> str:
        known = [*SAMPLERS, *list_entry_points(SAMPLER_ENTRY_POINTS)]
        if sampler in known or is_location(sampler):
            return sampler
        near = nearest_name(sampler, known)
        raise ValueError(
            f"Input should be {', '.join(known)} or package.module:function{near if 'did you mean' in near else ''}"
        )

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = [name for name in ("num_trials", "device_seconds") if data.get(name) is not None]
        if len(given) == 2:
            raise ValueError("a budget is num_trials or device_seconds, not both; remove one")
        return data if given else {**data, "num_trials": DEFAULT_NUM_TRIALS}


class ConfirmSpec(Section):
    """[confirm]: new seeds for the chosen configurations, and the decision rule.

    `looks` are numbers of paired seeds. After each look, rows that are decided get no more seeds; the others continue to the next
    look. `intervals = "planned"` divides alpha by the number of looks; "anytime" uses wider intervals that are valid at every
    number of seeds, for readers who look in between. With "moderated", as in rounds of interventions, rows that are compared with
    one control share what they say about the variance between seeds, so that few seeds give narrower intervals. With
    `fresh_seeds`, the seeds that rank the candidates are not those of the comparison: scores that chose a candidate are biased
    upward. A comparison with a `seed_name` has other seeds than one without it or with another one, on the same images. With
    `diverged_runs = "count"`, a run that diverges is an outcome of its arm; "drop" leaves its seed out. Studies
    launched under defaults_version 1 go on with false and "drop".
    """

    top_k: Count = 2
    num_ranking_seeds: Count = 1
    fresh_seeds: bool = True
    diverged_runs: Literal["count", "drop"] = "count"
    seed_name: str = ""
    looks: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1, max_length=10)] = [5]
    intervals: Literal["planned", "anytime", "moderated"] = "planned"
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.005
    alpha: Fraction = 0.05

    @property
    def num_seeds(self) -> int:
        """Number of paired seeds at the last look."""
        return self.looks[-1]

    @field_validator("looks")
    @classmethod
    def _increasing(cls, looks: list[int]) -> list[int]:
        if sorted(set(looks)) != looks:
            raise ValueError("looks must be increasing numbers of seeds, such as [6, 10, 20]")
        return looks


class DesignSpec(Section):
    """[design]: a base configuration and one other value per factor, instead of a search.

    `one_at_a_time` trains the base and, for each factor, the base with that factor changed: a row per factor, against the base.
    `factorial` is a two-level design in which every row uses all configurations: a row per factor and one per pair of factors;
    with five or more factors it is the regular fraction of resolution V.
    """

    kind: Literal["one_at_a_time", "factorial"]
    base: dict[str, Value]
    changes: Annotated[dict[str, Value], Field(min_length=1, max_length=8)]


class AnalyzeSpec(Section):
    """[analyze]: Grad-CAM panels, the audit, and human labels to compare the models' confusions with.

    The Clever Hans audit uses at most `num_audit_images` test images; 0 switches it off. `human_counts` is an .npy file of
    counts, shape (images, classes), such as CIFAR-10H: a row for each image of the published test set or, where the images have
    none, for each image. `groups` are named groups of classes whose F1 is contrasted, such
    as `{ rigid = ["ship", "truck"], deformable = ["cat", "dog"] }`; by default those of the data set. Settings that name a group,
    such as `train.weighted_group`, may name one of either.
    """

    num_panels: Annotated[int, Field(ge=0, le=50)] = 8
    num_audit_images: Annotated[int, Field(ge=0)] = 2000
    human_counts: str | None = None
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class ResourcesSpec(Section):
    """[resources]: the devices that one trial holds (a number, or one per arm), retries, and memory for images.

    `gpu` is one GPU or a fraction of one, or with `train.processes` above 1 as many GPUs as processes. `device = "auto"` is CUDA
    for a trial that holds a GPU, else the CPU. `max_concurrent = 0` uses the whole cluster. A trial whose process failed, or did
    not report for `timeout_seconds` (the set-up of the process does not count), is retried up to `retries` times in a row without
    a new epoch. A trial that is retried or resumed goes on from its last checkpoint; checkpoints are written while the next epoch
    trains, one after each epoch but not within `checkpoint_seconds` after the last. If more than `max_failed_fraction` of the
    trials of the search, or of a part of the confirmation, failed, no further trial starts; nor, with `search.device_seconds`,
    after 20 trials in a row of one arm that failed before their first epoch, which cost nothing of the budget. `profile = true`
    records how much time each part of an epoch takes; on a GPU this costs some speed. `autoscaling = true` is for a cluster that
    grows on demand: up to `max_concurrent` trials, which is then required, wait for devices that do not exist yet. Images of a
    folder or of Parquet files that need more than `image_memory_gb` when decoded (by default a quarter of the machine's memory)
    are mapped from a file in `image_folder` (by default the user's cache folder), which every node builds. The folder also keeps
    decoded images for the next start; it may be deleted at any time. With `images = "streamed"` pixels are kept nowhere:
    `stream_workers` processes per trial (0 for as many as it has CPU threads) decode the images in each epoch, with the same
    results. The study's start decodes all of them once, to check them.
    """

    cpu: PerArm = 1.0
    gpu: PerArm = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    autoscaling: bool = False
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 0.0
    max_failed_fraction: Share = 0.5
    profile: bool = False
    images: Literal["stored", "streamed"] = "stored"
    stream_workers: Annotated[int, Field(ge=0)] = 0
    image_memory_gb: Annotated[float, Field(gt=0)] | None = None
    image_folder: str = ""

    @property
    def image_memory_budget(self) -> ImageMemoryBudget:
        """The memory that decoded images may use, and the folder of the mapped file."""
        share = DEFAULT_SHARE * physical_memory()
        memory = share if self.image_memory_gb is None else 1e9 * self.image_memory_gb
        folder = Path(self.image_folder).expanduser().absolute() if self.image_folder else default_folder()
        return ImageMemoryBudget(
            memory_bytes=int(memory),
            folder=folder,
            streams=self.images == "streamed",
            stream_workers=self.stream_workers,
        )

    def of_arm(self, kind: Literal["cpu", "gpu"], arm: str) -> float:
        """Return the number of devices of one kind that a trial of `arm` holds; raise UserInputError if the arm has no value."""
        value = self.cpu if kind == "cpu" else self.gpu
        if isinstance(value, dict):
            if arm not in value:
                raise UserInputError(f"resources.{kind} has no value for the arm {arm!r}")
            return float(value[arm])
        return float(value)


class PlanSpec(Section):
    """[plan]: variances of the paired difference in macro-F1 that were measured before, for `study plan`; in percentage points.

    `seed_sd_pp` is the standard deviation of the difference from seed to seed on very many test images. `image_sd_pp` is
    that of the images' influence on the difference: N test images contribute image_sd_pp / sqrt(N) to its standard error.
    `seed_image_sd_pp` is that of one image's influence from seed to seed. `num_seeds` seeds measured them; without it, they
    are taken as known. `source` says where they were measured.
    """

    seed_sd_pp: Annotated[float, Field(ge=0)]
    image_sd_pp: Annotated[float, Field(gt=0)]
    seed_image_sd_pp: Annotated[float, Field(ge=0)] = 0.0
    num_seeds: Annotated[int, Field(ge=2)] | None = None
    source: str = "stated in the spec"


class InterveneSpec(Section):
    """[intervene]: written by `study intervene`; the configurations are interventions in the winner of another study.

    `parent` is the root of that study, `round` the number of the interventions that it has had, and `alpha` the error rate of all
    its rounds together. `stated` is the digest of interventions.json. `factors` names the interventions of a factorial design,
    whose configurations are its runs; without it, each later configuration is one intervention. Seeds are derived from the round,
    so that neither the parent nor another round used them; images and splits are the parent's.
    """

    parent: str
    round: Count
    alpha: Fraction
    stated: str
    factors: list[str] = Field(default_factory=list)


class GateSpec(Section):
    """[gate]: a minimum for the lower confidence bound of each arm's macro-F1 on the test split."""

    macro_f1: Fraction

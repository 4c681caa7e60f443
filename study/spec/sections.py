"""The sections of a spec, one class per section. Settings of a trial are declared in `search_spaces.settings`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from analysis.statistics.interval import ALPHA, MARGIN
from search_spaces.config import Value
from search_spaces.errors import nearest_name
from search_spaces.extensions import is_location, list_entry_points
from search_spaces.settings import (
    ACCUMULATION_IN_GRAPHS,
    Count,
    EpochSettings,
    Fraction,
    Section,
    Share,
    TrainSettings,
    TuningSettings,
    list_process_problems,
)
from trainables.data.image_memory import DEFAULT_SHARE, ImageMemoryBudget, default_folder, physical_memory
from trainables.data.images import Aspect
from trainables.data.sources import check_source

Devices = Annotated[float, Field(ge=0)]
PerArm = Devices | dict[str, Devices]

DEFAULT_NUM_TRIALS = 20
SAMPLERS = ("auto", "random", "tpe_univariate", "tpe_multivariate", "gp")
SAMPLER_ENTRY_POINTS = "abstudy.samplers"


class DataSpec(Section):
    """[data]: the source of the images and how they are split."""

    source: str
    """One of `cifar10`, `fashion_mnist`, `digits`, `planted`, `folder`, `parquet` and `webdataset`, an entry point of the
    group `abstudy.sources`, or `package.module:function` in the working folder."""
    path: str | None = None
    """The files of the source: a folder or a file. Sources that generate their images take none."""
    num_images: Count | None = None
    """Keeps so many images outside the test set, stratified by class; for `planted`, the number of scenes."""
    num_test_images: Count | None = None
    """Keeps so many images of a published test set, stratified by class; without it, all of them."""
    search_fraction: Fraction = 0.15
    """Share of the images outside a published test set that becomes the split `search`, on which trials are scored. Published
    validation images are divided in the proportion of `search_fraction` and `confirm_fraction` instead."""
    confirm_fraction: Fraction = 0.15
    """Share of the same images that becomes the split `confirm`, which ranks the candidates of an arm."""
    test_fraction: Fraction | None = None
    """Share of the images that becomes the split `test`, where no test set is published; a fifth if it is left out."""
    group: Annotated[str, Field(min_length=1)] | None = None
    """What images have in common that belong together, such as a patient: a column of Parquet files or of a manifest, or the
    level of folders between class and images. A group stays in one split, and is one unit of the intervals."""
    near_duplicates: Literal["group", "ignore"] = "group"
    """"group" joins images that show the same (copies at another size or quality, one object under several lights) into groups,
    beside those of `group`; "ignore" does not look for them. Published splits stay as they are."""
    aspect: Aspect = "crop"
    """How images become squares: "crop" resizes the shorter side and takes the center, "pad" resizes the longer side and pads the
    shorter one on both sides alike with the mean color of ImageNet, "squash" resizes both sides."""
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    """"refuse" lists all files that cannot be used and stops; "skip" continues without them and records which they are."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the loader of the source; its docstring in `trainables/data/sources/` lists them."""

    @model_validator(mode="after")
    def _known_source(self) -> "DataSpec":
        check_source(self.source)
        return self


class ModelSpec(TuningSettings):
    """[model]: the weights that fine-tuning starts from, and how the model is built."""

    weights: str = "imagenet"
    """`imagenet` (published weights, which torchvision or timm downloads), `none`, a file, or a folder with one file per
    backbone, such as `resnet18.pt` or `vit_b_16.safetensors`, with the parameter names of the library."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Of the model's function; for one backbone in a table of its name, `[model.arguments."torchvision:vit_b_16"]`."""


class TrainSpec(TrainSettings):
    """[train]: the training settings, which all trials of the study share unless [search] or [design] varies them."""

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainSpec":
        problems = list_process_problems(self.processes, self.batch_size, self.compile)
        if self.crop_padding >= self.image_size:
            problems.append(
                f"crop_padding < image_size ({self.image_size}) must hold, but crop_padding is {self.crop_padding}"
            )
        if self.accumulate > 1 and self.compile == "cuda_graphs":
            problems.append(ACCUMULATION_IN_GRAPHS)
        if problems:
            raise ValueError("; ".join(problems))
        return self


class AshaSpec(Section):
    """[search.asha]: asynchronous successive halving, which stops a trial at a rung unless it is among the best there."""

    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    """Each rung keeps the best 1 / `reduction_factor` of its trials; the next one lies at so many times its part."""
    first_rung: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Part of a trial's own schedule, from the peak of the learning rate to its end, before the first rung."""


class PriorSpec(Section):
    """[search.prior.NAME]: a normal distribution of a searched number, cut off at the ends of its range."""

    center: float
    """The most likely value, in the units of the parameter."""
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Standard deviation; a factor for a logarithmic range: center 0.05, width 2 has two thirds of the values in 0.025 to 0.1."""


class SearchSpec(EpochSettings):
    """[search]: the search space, the A/B factor and the budget.

    The budget is a number of trials, or device-seconds for all arms together: GPU-seconds, or core-seconds if trials hold no GPU.
    """

    space: str | dict[str, Any] = "transfer_learning"
    """Name of a space, a TOML file, or a table of parameters in the form of search_spaces/transfer_learning.toml."""
    factor: str = "backbone"
    """The A/B factor: a parameter of the space, or any setting of [train] or of the tuning in [model], or `max_epochs`, with its
    levels in `ranges`. The value in its own section then has no effect."""
    allocation: Literal["per_arm", "pooled"] = "per_arm"
    """"per_arm" gives each level of the factor its own sampler, ASHA bracket and equal device time; "pooled" compares no arms."""
    num_trials: Count | None = None
    """Trials of all arms together. Without a budget, it is 20. Not together with `device_seconds`."""
    device_seconds: Annotated[float, Field(gt=0)] | None = None
    """Device-seconds for all arms together. They are checked against measured trials before anything is written."""
    max_trials_per_arm: Count | None = None
    """Most trials of an arm, so that a cheap one, such as `tuning = "probe"`, does not get hundreds for its share of the time."""
    # Chosen on recorded trainings: benchmarks/SEARCH.md has the rule and the figures, and a test compares the two.
    sampler: str = "auto"
    """`auto` (`tpe_multivariate` with every fourth suggestion at random), `random`, `tpe_univariate`, `tpe_multivariate`, `gp`
    (all Optuna's), an entry point of the group `abstudy.samplers`, or `package.module:function` in the working folder."""
    start: list[dict[str, Value]] | None = None
    """Configurations that each arm, or that of the named level, tries first. Without any, a search that fine-tunes pretrained
    weights starts with the published recipes of `search_spaces.portfolios`, moved into the ranges; `start = []` is none."""
    prior: dict[str, PriorSpec] = Field(default_factory=dict)
    """Where numbers are expected: suggestions are drawn from it at first, and ever fewer later."""
    keep_weights: Annotated[int, Field(ge=0)] | Literal["all"] | None = None
    """Search trials of an arm whose weights are kept, the best ones, or "all"; by default those that may still be confirmed."""
    warm_start: str | None = None
    """Another study of the same space, from whose finished trials the samplers start."""
    epoch_cost: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """A number per arm in place of the measured device-seconds of an epoch, by which device time is divided among the arms."""
    pruning: Literal["asha", "none"] = "asha"
    """Whether trials are stopped early, by ASHA. With "none", every trial runs every epoch."""
    asha: AshaSpec = AshaSpec()
    ranges: dict[str, list[Value]] = Field(default_factory=dict)
    """What is searched: `momentum = [0.8, 0.95]`. Two numbers are [low, high]; anything else lists choices or levels."""
    fixed: dict[str, Value] = Field(default_factory=dict)
    """Parameters of the space that have one value in all trials."""

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

    The seeds that rank the candidates of an arm are not those of the comparison: scores that chose a candidate are biased upward.
    A run that diverges is an outcome of its arm.
    """

    top_k: Count = 2
    """Candidates of an arm: its best search trials. The best one on the split `confirm` represents the arm."""
    num_ranking_seeds: Count = 1
    """Seeds with which each candidate is trained for this ranking."""
    seed_name: str = ""
    """A comparison with another name has other seeds, on the same images."""
    looks: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1, max_length=10)] = Field(
        default_factory=lambda: [5]
    )
    """Numbers of paired seeds. After each look, rows that are decided get no more seeds; the others continue to the next look."""
    intervals: Literal["planned", "anytime", "moderated"] = "planned"
    """"planned" divides alpha by the looks; "anytime" is wider and valid at every number of seeds; with "moderated", rows with
    one control share what they say about the variance between seeds, as in rounds of interventions."""
    margin: Annotated[float, Field(gt=0, lt=1)] = MARGIN
    """Largest difference in macro-F1 that is negligible, as a fraction: an interval inside of +- this margin is EQUIVALENT."""
    alpha: Fraction = ALPHA
    """Family-wise error rate over all rows and looks of the A/B table."""
    folds: Annotated[int, Field(ge=0, le=20)] = 0
    """Parts into which each seed divides the test split anew. A trial trains on all images but one part, and is tested on it, so
    that every test image is tested once per seed by a model that has not seen it: for small sets, with a large
    `data.test_fraction`. 0 is one test split, which no trial trains on."""

    @property
    def num_seeds(self) -> int:
        """Number of paired seeds at the last look."""
        return self.looks[-1]

    @field_validator("folds")
    @classmethod
    def _more_than_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("one fold would leave nothing to train on that is not tested; give 0, or 2 or more")
        return folds

    @field_validator("looks")
    @classmethod
    def _increasing(cls, looks: list[int]) -> list[int]:
        if sorted(set(looks)) != looks:
            raise ValueError("looks must be increasing numbers of seeds, such as [6, 10, 20]")
        return looks


class DesignSpec(Section):
    """[design]: a base configuration and one other value per factor, instead of a search."""

    kind: Literal["one_at_a_time", "factorial"]
    """`one_at_a_time`: the base, and the base with one factor changed, a row per factor. `factorial`: a two-level design in which
    every row uses all configurations, with a row per pair too; from five factors on, the fraction of resolution V."""
    base: dict[str, Value]
    """A value of every parameter. A setting that it leaves out has the value of its section."""
    changes: Annotated[dict[str, Value], Field(min_length=1, max_length=8)]
    """The other value of each factor."""


class AnalyzeSpec(Section):
    """[analyze]: Grad-CAM panels, the audit, and human labels to compare the models' confusions with."""

    num_panels: Annotated[int, Field(ge=0, le=50)] = 8
    """Images that get a panel of heat maps."""
    num_audit_images: Annotated[int, Field(ge=0)] = 2000
    """Most test images that the Clever Hans audit uses; 0 switches it off."""
    human_counts: str | None = None
    """An .npy file of human label counts, (images, classes), such as CIFAR-10H: a row per published test image or per image."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Named groups of classes whose F1 is contrasted, such as `{ rigid = ["ship", "truck"], deformable = ["cat", "dog"] }`; by
    default those of the data set. Settings that name a group, such as `train.weighted_group`, may name one of either."""


class ResourcesSpec(Section):
    """[resources]: the devices that one trial holds, retries, and memory for images."""

    cpu: PerArm = 1.0
    """CPU cores that a trial holds, which are also the threads of its process; a number, or one per arm."""
    gpu: PerArm = 0.0
    """One GPU or a fraction of one, or with `train.processes` above 1 as many GPUs as processes; a number, or one per arm."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" is CUDA for a trial that holds a GPU, else the CPU."""
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    """Most trials that run at once; 0 uses the whole cluster."""
    autoscaling: bool = False
    """For a cluster that grows on demand: up to `max_concurrent` trials, then required, wait for devices to come."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times in a row without a new epoch that a trial goes on from its checkpoint after its process failed or fell silent."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """A trial that did not report for so long is stopped and retried. The set-up of a process may take four times as long."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Shortest time between two checkpoints, which are written while the next epoch trains; 0 is one after each epoch."""
    max_failed_fraction: Share = 0.5
    """If more of the trials of a stage failed, none starts any more; nor, with `search.device_seconds`, after 20 trials in a row
    of one arm that failed before their first epoch."""
    profile: bool = False
    """Records how much time each part of an epoch takes; on a GPU this costs some speed."""
    images: Literal["stored", "streamed"] = "stored"
    """"streamed" keeps no pixels: images are decoded in each epoch, with the same results, and at the start, to check them."""
    stream_workers: Annotated[int, Field(ge=0)] = 0
    """Processes per trial that decode streamed images; 0 is as many as the trial has CPU threads."""
    image_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Larger decoded sets are mapped from a file in `image_folder` on every node. By default a quarter of the memory."""
    image_folder: str = ""
    """Of mapped images, and of decoded ones for the next start; it may be deleted. By default in the user's cache folder."""

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
        """Return the number of devices of one kind that a trial of `arm` holds."""
        value = self.cpu if kind == "cpu" else self.gpu
        return float(value[arm] if isinstance(value, dict) else value)

    def count_devices(self, arm: str) -> float:
        """Return the devices that a trial of `arm` holds: its GPUs or, without one, its CPU cores."""
        return self.of_arm("gpu", arm) or self.of_arm("cpu", arm)


class PlanSpec(Section):
    """[plan]: variances of the paired difference in macro-F1 that were measured before, for `study plan`; percentage points."""

    seed_sd_pp: Annotated[float, Field(ge=0)]
    """Standard deviation of the difference from seed to seed on very many test images."""
    image_sd_pp: Annotated[float, Field(gt=0)]
    """Of the images' influence on the difference: N test images contribute image_sd_pp / sqrt(N) to its standard error."""
    seed_image_sd_pp: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of one image's influence from seed to seed."""
    num_seeds: Annotated[int, Field(ge=2)] | None = None
    """Seeds over which these were measured; without it, they are taken as known."""
    source: str = "stated in the spec"
    """Where they were measured."""


class InterveneSpec(Section):
    """[intervene]: written by `study intervene`; the configurations are interventions in the winner of another study.

    Seeds are derived from the round, so that neither the parent nor another round used them; images and splits are the parent's.
    """

    parent: str
    """Root of the other study."""
    round: Count
    """Number of this round of interventions of that study."""
    alpha: Fraction
    """Error rate of all rounds of that study together."""
    stated: str
    """Digest of interventions.json."""
    factors: list[str] = Field(default_factory=list)
    """Of a factorial design, whose configurations are its runs; without it, each later configuration is one intervention."""


class MinimumSpec(Section):
    """[minimum]: what the lower confidence bound of each arm's macro-F1 on the test split must exceed."""

    macro_f1: Fraction
    """`study run`, `study resume` and `study compare` end with exit status 1 unless every arm's bound is above it."""

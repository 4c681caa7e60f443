"""The sections of a spec, one class each."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from search_spaces.config import Value
from search_spaces.errors import UserInputError, nearest_name
from trainables.data.image_memory import DEFAULT_SHARE, ImageMemoryBudget, default_folder, physical_memory
from trainables.data.sources import SOURCES

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
PerArm = float | dict[str, float]

DEFAULT_NUM_TRIALS = 20


class Section(BaseModel):
    """A part of a spec: unknown keys are refused, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(Section):
    """[data]: where the images come from and how they are split."""

    source: str
    path: str | None = None
    num_images: Count | None = None
    num_test_images: Count | None = None
    search_fraction: Fraction = 0.15
    confirm_fraction: Fraction = 0.15
    test_fraction: Fraction | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_source(self) -> "DataSpec":
        if self.source not in SOURCES:
            raise ValueError(f"there is no source {self.source!r}{nearest_name(self.source, SOURCES)}")
        return self


class ModelSpec(Section):
    """[model]: the weights that fine-tuning starts from."""

    weights: str = "imagenet"
    freeze: bool = False


class TrainSpec(Section):
    """[train]: what every trial of the study shares.

    `compile` is "none", "inductor" (torch.compile) or "cuda_graphs"; it costs its start again in every trial.
    """

    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    batch_size: Annotated[int, Field(ge=2)] = 128
    precision: Literal["bf16", "fp32"] = "bf16"
    channels_last: bool = True
    compile: Literal["none", "inductor", "cuda_graphs"] = "none"
    flip_probability: Share = 0.5
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    brightness_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    lr_peak_fraction: Fraction = 0.3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weighted_group: str = ""


class AshaSpec(Section):
    """[search.asha]: asynchronous successive halving; the first rung is in epochs, 0 for "at the LR peak".

    With the peak at 0.3 of a trial, a factor of 3 would put the second rung at 0.9, where nothing is left to save; 2 puts it at
    0.6. On recorded curves 2 brings the search to within 2 or 3 percentage points of the best in 0.75 to 0.89 of the device time.
    """

    enabled: bool = True
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    first_rung: Annotated[int, Field(ge=0)] = 0


class SearchSpec(Section):
    """[search]: the space, the A/B factor, the budget.

    The budget is a number of trials or, for all arms together, device-seconds (GPU-seconds, or core-seconds where trials hold
    no GPU). `allocation = "per_arm"` gives every level of the factor its own sampler, its own ASHA bracket and equal device
    time; "pooled" is one ordinary search over the whole space, which ignores the factor and compares nothing.
    `warm_start` names another study of the same space, whose finished trials the samplers start from. `epoch_cost`, a number
    per arm, replaces the measured device-seconds of an epoch where arms are compared: with one trial at a time, which arm comes
    next then no longer depends on how fast the machine happened to be.
    """

    space: str = "transfer_learning"
    factor: str = "backbone"
    allocation: Literal["per_arm", "pooled"] = "per_arm"
    num_trials: Count | None = None
    device_seconds: Annotated[float, Field(gt=0)] | None = None
    max_epochs: Count = 10
    # Chosen on recorded curves (benchmarks/SEARCH.md, 8 workers, 40 seeds): per arm, with ASHA, the joint TPE handed out the
    # wrong arm in 0 studies (univariate TPE 4, GP 4, random 6, stock Ray Tune 5) at a regret as low as any with ASHA (2.28 pp,
    # stock 3.01), and in 1 of 40 where the arms differ by 0.5 pp (stock 14). Pooled: 6 to 16 wrong.
    sampler: Literal["random", "tpe_univariate", "tpe_multivariate", "gp"] = "tpe_multivariate"
    warm_start: str | None = None
    epoch_cost: dict[str, Annotated[float, Field(gt=0)]] | None = None
    asha: AshaSpec = AshaSpec()
    ranges: dict[str, list[Value]] = Field(default_factory=dict)
    fixed: dict[str, Value] = Field(default_factory=dict)

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
    """[confirm]: fresh seeds for the chosen configurations, and the rule of the verdict.

    `looks` are numbers of paired seeds: after each, rows that are decided stop asking for seeds, and the others go on to the
    next. `intervals = "planned"` divides alpha by the number of looks; "anytime" uses intervals that hold at every number of
    seeds, wider, for those who want to look in between.
    """

    top_k: Count = 2
    num_ranking_seeds: Count = 1
    looks: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1, max_length=10)] = [5]
    intervals: Literal["planned", "anytime"] = "planned"
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.005
    alpha: Fraction = 0.05

    @property
    def num_seeds(self) -> int:
        """Paired seeds at the last look."""
        return self.looks[-1]

    @field_validator("looks")
    @classmethod
    def _increasing(cls, looks: list[int]) -> list[int]:
        if sorted(set(looks)) != looks:
            raise ValueError("looks must be increasing numbers of seeds, such as [6, 10, 20]")
        return looks


class DesignSpec(Section):
    """[design]: a base configuration and one other value per factor, in the place of a search.

    `one_at_a_time` runs the base and, for each factor, the base with that factor changed: a row per factor, against the base.
    `factorial` runs a two-level design in which every row uses every run: a row per factor and one per pair of factors; with
    five factors and more it is the regular fraction of resolution V.
    """

    kind: Literal["one_at_a_time", "factorial"]
    base: dict[str, Value]
    changes: Annotated[dict[str, Value], Field(min_length=1, max_length=8)]


class AnalyzeSpec(Section):
    """[analyze]: the pictures, and people's answers on the test images to hold the models' confusions against.

    `num_audit_images` test images at most go through the Clever Hans audit; 0 switches it off.
    `human_counts` is an .npy file of (test images, classes) counts, such as CIFAR-10H's. `groups` are named groups of classes
    whose F1 is contrasted, such as `{ rigid = ["ship", "truck"], deformable = ["cat", "dog"] }`; empty: those of the data.
    """

    num_panels: Annotated[int, Field(ge=0, le=50)] = 8
    num_audit_images: Annotated[int, Field(ge=0)] = 2000
    human_counts: str | None = None
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class ResourcesSpec(Section):
    """[resources]: what one trial holds (a number, or one per arm), and on which device it computes.

    `device = "auto"` is CUDA for a trial that holds a GPU, else the CPU. `max_concurrent = 0` uses the whole cluster. A trial
    whose process broke off, or that did not report for `timeout_seconds`, is started again up to `retries` times in a row
    without a new epoch; if more than `max_failed_fraction` of the search's trials broke off for good, no further one is started.
    `profile = true` has every epoch say where its time went; on a GPU this costs some speed.
    `autoscaling = true` says that the cluster grows on demand: up to `max_concurrent` trials, which must be given then, wait for
    devices that are not there yet.
    Images of a folder or of parquet files that need more than `image_memory_gb` decoded (a quarter of the machine's memory where
    none is given) are mapped from a file in `image_folder` (the user's cache folder where none is given), which every node makes
    for itself.
    """

    cpu: PerArm = 1.0
    gpu: PerArm = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    autoscaling: bool = False
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0
    max_failed_fraction: Share = 0.5
    profile: bool = False
    image_memory_gb: Annotated[float, Field(gt=0)] | None = None
    image_folder: str = ""

    @property
    def image_memory_budget(self) -> ImageMemoryBudget:
        """What decoded images may take."""
        share = DEFAULT_SHARE * physical_memory()
        memory = share if self.image_memory_gb is None else 1e9 * self.image_memory_gb
        folder = Path(self.image_folder).expanduser().absolute() if self.image_folder else default_folder()
        return ImageMemoryBudget(memory_bytes=int(memory), folder=folder)

    def of_arm(self, kind: Literal["cpu", "gpu"], arm: str) -> float:
        """Return the devices of one kind that a trial of `arm` holds."""
        value = self.cpu if kind == "cpu" else self.gpu
        if isinstance(value, dict):
            if arm not in value:
                raise UserInputError(f"resources.{kind} names no value for the arm {arm!r}")
            return float(value[arm])
        return float(value)


class GateSpec(Section):
    """[gate]: the lower confidence bound of each arm's macro-F1 on the test split must clear it."""

    macro_f1: Fraction

"""`StudySpec`: what a person asks for, read from TOML and refused before anything starts if it cannot be done."""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analysis.anytime import compute_fewest_seeds
from search_spaces.arms import Arm, split_into_arms
from search_spaces.config import Value
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.space import SearchSpace
from search_spaces.spaces import load_space
from trainables.optimization import compute_lr_peak_epoch
from trainables.sources import SOURCES

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
PerArm = float | dict[str, float]

DEFAULT_NUM_TRIALS = 20

# A budget given on the command line takes the place of the file's budget of the other kind.
OTHER_BUDGET = {"search.num_trials": "device_seconds", "search.device_seconds": "num_trials"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Section):
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


class ModelSpec(_Section):
    """[model]: the weights that fine-tuning starts from."""

    weights: str = "imagenet"
    freeze: bool = False


class TrainSpec(_Section):
    """[train]: what every trial of the study shares."""

    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    batch_size: Annotated[int, Field(ge=2)] = 128
    precision: Literal["bf16", "fp32"] = "bf16"
    channels_last: bool = True
    flip_probability: Share = 0.5
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    brightness_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    lr_peak_fraction: Fraction = 0.3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weighted_group: str = ""


class AshaSpec(_Section):
    """[search.asha]: asynchronous successive halving; the first rung is in epochs, 0 for "at the LR peak"."""

    enabled: bool = True
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    first_rung: Annotated[int, Field(ge=0)] = 0


class SearchSpec(_Section):
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


class ConfirmSpec(_Section):
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


class AnalyzeSpec(_Section):
    """[analyze]: the pictures."""

    num_panels: Annotated[int, Field(ge=0, le=50)] = 8


class ResourcesSpec(_Section):
    """[resources]: what one trial holds (a number, or one per arm), and on which device it computes.

    `device = "auto"` is CUDA for a trial that holds a GPU, else the CPU. `max_concurrent = 0` uses the whole cluster. A trial
    whose process broke off, or that did not report for `timeout_seconds`, is started again up to `retries` times in a row
    without a new epoch; if more than `max_failed_fraction` of the search's trials broke off for good, no further one is started.
    `autoscaling = true` says that the cluster grows on demand: up to `max_concurrent` trials, which must be given then, wait for
    devices that are not there yet.
    """

    cpu: PerArm = 1.0
    gpu: PerArm = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    autoscaling: bool = False
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0
    max_failed_fraction: Share = 0.5

    def of_arm(self, kind: Literal["cpu", "gpu"], arm: str) -> float:
        """Return the devices of one kind that a trial of `arm` holds."""
        value = self.cpu if kind == "cpu" else self.gpu
        if isinstance(value, dict):
            if arm not in value:
                raise UserInputError(f"resources.{kind} names no value for the arm {arm!r}")
            return float(value[arm])
        return float(value)


class GateSpec(_Section):
    """[gate]: the lower confidence bound of each arm's macro-F1 on the test split must clear it."""

    macro_f1: Fraction


class StudySpec(_Section):
    """A whole study. Read it with `load_spec`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSpec
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    search: SearchSpec = SearchSpec()
    confirm: ConfirmSpec = ConfirmSpec()
    analyze: AnalyzeSpec = AnalyzeSpec()
    resources: ResourcesSpec = ResourcesSpec()
    gate: GateSpec | None = None

    def search_space(self) -> SearchSpace:
        """Return the named space with the spec's ranges and fixed values."""
        space = load_space(self.search.space)
        for name, values in self.search.ranges.items():
            space = space.with_range(name, values)
        return space.with_fixed(self.search.fixed)

    def arms(self) -> tuple[Arm, ...]:
        """Return one arm per level of the factor, or the one arm of a pooled search."""
        return split_into_arms(self.search_space(), self.factor)

    @property
    def factor(self) -> str | None:
        """The A/B factor; None in a pooled search."""
        return self.search.factor if self.search.allocation == "per_arm" else None

    def check(self) -> None:
        """Refuse what only shows when the sections are taken together; raise UserInputError."""
        arms = self.arms()
        if self.search.num_trials is not None and self.search.num_trials < len(arms):
            raise UserInputError(
                f"search.num_trials must be at least the number of arms ({len(arms)}), but got {self.search.num_trials}"
            )
        first, last = self.first_rung, self.search.max_epochs
        if self.search.asha.enabled and first > last:
            raise UserInputError(f"search.asha.first_rung must lie in 1..max_epochs ({last}), but got {first}")
        if self.confirm.num_ranking_seeds > self.confirm.looks[0]:
            raise UserInputError(
                f"confirm.num_ranking_seeds <= the first look ({self.confirm.looks[0]}) must hold, "
                f"but got {self.confirm.num_ranking_seeds}"
            )
        if self.confirm.intervals == "anytime" and len(arms) > 1:
            fewest = compute_fewest_seeds(1 - self.confirm.alpha / (len(arms) - 1))
            if self.confirm.looks[0] < fewest:
                raise UserInputError(
                    f"intervals that hold at every number of seeds are endless below {fewest} seeds here, but confirm.looks "
                    f"begins at {self.confirm.looks[0]}; begin later, or set confirm.intervals to planned"
                )
        if self.resources.autoscaling and not self.resources.max_concurrent:
            raise UserInputError(
                "resources.autoscaling needs resources.max_concurrent >= 1, the trials that the cluster grows for"
            )
        names = [arm.name for arm in arms]
        self._check_epoch_cost(names)
        for kind in ("cpu", "gpu"):
            value = getattr(self.resources, kind)
            if isinstance(value, dict):
                for arm in value:
                    if arm not in names:
                        raise UserInputError(f"resources.{kind} names the arm {arm!r}{nearest_name(arm, names)}")
            for arm_value in arms:
                if self.resources.of_arm(kind, arm_value.name) < 0:
                    raise UserInputError(f"resources.{kind} must not be negative, but got {value}")

    def _check_epoch_cost(self, arms: list[str]) -> None:
        cost = self.search.epoch_cost
        if cost is None:
            return
        if self.search.device_seconds is not None:
            raise UserInputError(
                "search.epoch_cost goes with search.num_trials: a budget of device-seconds is measured"
            )
        for arm in cost:
            if arm not in arms:
                raise UserInputError(f"search.epoch_cost names the arm {arm!r}{nearest_name(arm, arms)}")
        missing = [arm for arm in arms if arm not in cost]
        if missing:
            raise UserInputError(f"search.epoch_cost must name every arm, but lacks {', '.join(missing)}")

    @property
    def first_rung(self) -> int:
        """First epoch at which ASHA may stop a trial: at or after the LR peak unless the spec says otherwise."""
        if self.search.asha.first_rung:
            return self.search.asha.first_rung
        return compute_lr_peak_epoch(self.train.lr_peak_fraction, self.search.max_epochs)


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped presets."""
    folder = resources.files("study") / "presets"
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def load_spec(spec: str, overrides: Sequence[str] = (), name: str | None = None) -> tuple[StudySpec, str]:
    """Read and validate a spec.

    Args:
        spec: path of a TOML file, or a preset's name.
        overrides: ``section.key=value`` texts; the value is TOML, or a bare string.
        name: replaces the spec's name.

    Returns:
        The spec and its TOML text with the overrides written in: what spec.toml of the study holds.
    """
    data = _parse_toml(_read_spec_text(spec), spec)
    for override in overrides:
        _apply_override(data, override)
    if name is not None:
        data["name"] = name
    validated = validate_spec(data, where=spec)
    return validated, tomli_w.dumps(data)


def with_overrides(spec: StudySpec, overrides: Sequence[str], where: str) -> StudySpec:
    """Return `spec` with ``section.key=value`` overrides, validated again."""
    data = spec.model_dump(exclude_none=True)
    for override in overrides:
        _apply_override(data, override)
    return validate_spec(data, where=where)


def parse_spec(text: str, where: str) -> StudySpec:
    """Validate the text of a study's spec.toml."""
    return validate_spec(_parse_toml(text, where), where=where)


def validate_spec(data: dict[str, Any], where: str) -> StudySpec:
    """Return the spec that `data` describes; raise UserInputError in one line for the first thing wrong."""
    try:
        spec = StudySpec.model_validate(data)
    except ValidationError as error:
        raise UserInputError(f"{where}: {_first_problem(error)}") from None
    try:
        spec.check()
    except UserInputError as error:
        raise UserInputError(f"{where}: {error}") from None
    return spec


def _read_spec_text(spec: str) -> str:
    path = Path(spec)
    if path.suffix == ".toml" or path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserInputError(f"the spec {spec!r} cannot be read: {error}") from None
    names = preset_names()
    if spec not in names:
        raise UserInputError(f"there is no spec file and no preset {spec!r}{nearest_name(spec, names)}")
    return (resources.files("study") / "presets" / f"{spec}.toml").read_text(encoding="utf-8")


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserInputError(f"{where} is not valid TOML: {error}") from None


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise UserInputError(f"--set takes key=value, such as search.num_trials=8, but got {override!r}")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    place = data
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UserInputError(f"--set {override}: {part!r} is not a section")
    place[parts[-1]] = value
    if ".".join(parts) in OTHER_BUDGET:
        place.pop(OTHER_BUDGET[".".join(parts)], None)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(p) for p in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place!r}{nearest_name(str(problem['loc'][-1]), _siblings(problem['loc']))}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}, but got {problem['input']!r}" if place else message


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Valid keys beside an unknown one."""
    model: Any = StudySpec
    for part in location[:-1]:
        field = model.model_fields[str(part)]
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)

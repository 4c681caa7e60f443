"""`StudySpec`: what a person asks for, read from TOML and refused before anything starts if it cannot be done."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from analysis.statistics.anytime import compute_fewest_seeds
from search_spaces.arms import Arm, make_fixed_arm, split_into_arms
from search_spaces.config import Value
from search_spaces.designs import (
    Contrast,
    Design,
    contrast_with_first,
    make_factorial_design,
    make_one_at_a_time_design,
)
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.named_spaces import load_space
from search_spaces.space import SearchSpace
from study.spec.defaults import CURRENT_VERSION, FIRST_VERSION, VERSION_KEY, fill_defaults
from study.spec.sections import (
    AnalyzeSpec,
    ConfirmSpec,
    DataSpec,
    DesignSpec,
    GateSpec,
    ModelSpec,
    ResourcesSpec,
    SearchSpec,
    Section,
    TrainSpec,
)
from trainables.training.optimization import compute_lr_peak_epoch

ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]{0,63}$")]

# A budget given on the command line takes the place of the file's budget of the other kind.
OTHER_BUDGET = {"search.num_trials": "device_seconds", "search.device_seconds": "num_trials"}


class StudySpec(Section):
    """A whole study. Read it with `load_spec`.

    `defaults_version` names the defaults that hold for what the spec leaves out (`study.spec.defaults`).
    With `configurations`, by name, or with a `design`, the arms are those configurations: nothing is searched, each is trained
    once and then compared over fresh seeds.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    defaults_version: int = CURRENT_VERSION
    data: DataSpec
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    search: SearchSpec = SearchSpec()
    configurations: dict[ArmName, dict[str, Value]] = Field(default_factory=dict)
    design: DesignSpec | None = None
    confirm: ConfirmSpec = ConfirmSpec()
    analyze: AnalyzeSpec = AnalyzeSpec()
    resources: ResourcesSpec = ResourcesSpec()
    gate: GateSpec | None = None

    @model_validator(mode="after")
    def _search_or_configurations(self) -> "StudySpec":
        if self.configurations and self.design:
            raise ValueError("the arms are [configurations] or those of [design], not both; remove one")
        if not self.has_given_arms:
            return self
        if self.search.device_seconds is not None or self.search.warm_start is not None:
            raise ValueError(
                "given configurations are not searched; remove search.device_seconds and search.warm_start"
            )
        if self.search.allocation == "pooled":
            raise ValueError("given configurations are arms of their own; remove search.allocation")
        if len(self.configurations) == 1:
            raise ValueError("a comparison needs two configurations, but [configurations] has one")
        return self

    @property
    def has_given_arms(self) -> bool:
        """Whether the arms are given configurations, so that nothing is searched."""
        return bool(self.configurations) or self.design is not None

    def search_space(self) -> SearchSpace:
        """Return the named space with the spec's ranges and fixed values; ranges do not bind given configurations."""
        space = load_space(self.search.space)
        for name, values in self.search.ranges.items():
            narrowed = space.with_range(name, values)
            space = space if self.has_given_arms else narrowed
        return space.with_fixed(self.search.fixed)

    def arms(self) -> tuple[Arm, ...]:
        """Return one arm per level of the factor or per given configuration, or the one arm of a pooled search."""
        space = self.search_space()
        if self.has_given_arms:
            given = self._design().configurations
            return tuple(make_fixed_arm(name, space, values) for name, values in given.items())
        return split_into_arms(space, self.search.factor if self.search.allocation == "per_arm" else None)

    def contrasts(self) -> tuple[Contrast, ...]:
        """Return what the rows of the comparison compare."""
        if self.has_given_arms:
            return self._design().contrasts
        return contrast_with_first([arm.name for arm in self.arms()])

    def _design(self) -> Design:
        if self.design is None:
            return Design(configurations=self.configurations, contrasts=contrast_with_first(list(self.configurations)))
        make = make_one_at_a_time_design if self.design.kind == "one_at_a_time" else make_factorial_design
        return make(self.design.base, self.design.changes, self.search_space())

    @property
    def num_trials(self) -> int | None:
        """Trials of the search: the budget, or one of each given configuration; None for a budget of device-seconds."""
        return len(self.arms()) if self.has_given_arms else self.search.num_trials

    @property
    def factor(self) -> str:
        """What the arms differ in: the A/B factor, "configuration", the design's factors, or "" in a pooled search."""
        if self.design is not None:
            return ", ".join(self.design.changes)
        if self.configurations:
            return "configuration"
        return self.search.factor if self.search.allocation == "per_arm" else ""

    def check(self) -> None:
        """Refuse what only shows when the sections are taken together; raise UserInputError."""
        arms = self.arms()
        if self.num_trials is not None and self.num_trials < len(arms):
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
            fewest = compute_fewest_seeds(1 - self.confirm.alpha / len(self.contrasts()))
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


def load_spec(
    spec: str,
    overrides: Sequence[str] = (),
    name: str | None = None,
    configurations: Mapping[str, Mapping[str, Value]] | None = None,
) -> tuple[StudySpec, str]:
    """Read and validate a spec.

    Args:
        spec: path of a TOML file, or a preset's name.
        overrides: ``section.key=value`` texts; the value is TOML, or a bare string.
        name: replaces the spec's name.
        configurations: replaces the spec's configurations.

    Returns:
        The spec and its TOML text with the overrides written in: what spec.toml of the study holds.
    """
    data = _parse_toml(_read_spec_text(spec), spec)
    for override in overrides:
        _apply_override(data, override)
    if name is not None:
        data["name"] = name
    if configurations is not None:
        data["configurations"] = {arm: dict(values) for arm, values in configurations.items()}
    data.setdefault(VERSION_KEY, CURRENT_VERSION)
    validated = validate_spec(data, where=spec)
    return validated, tomli_w.dumps(data)


def with_overrides(spec: StudySpec, overrides: Sequence[str], where: str) -> StudySpec:
    """Return `spec` with ``section.key=value`` overrides, validated again."""
    data = spec.model_dump(exclude_none=True)
    for override in overrides:
        _apply_override(data, override)
    return validate_spec(data, where=where)


def parse_spec(text: str, where: str) -> StudySpec:
    """Validate the text of a study's spec.toml; where it records no version of the defaults, it is as old as the first."""
    data = _parse_toml(text, where)
    data.setdefault(VERSION_KEY, FIRST_VERSION)
    return validate_spec(data, where=where)


def validate_spec(data: dict[str, Any], where: str) -> StudySpec:
    """Return the spec that `data` describes; raise UserInputError in one line for the first thing wrong."""
    try:
        spec = StudySpec.model_validate(fill_defaults(data, data.get(VERSION_KEY, CURRENT_VERSION)))
    except UserInputError as error:
        raise UserInputError(f"{where}: {error}") from None
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

"""`StudySpec`: the specification of a study, with the checks that involve several sections."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from search_spaces import designs
from search_spaces.arms import Arm, make_fixed_arm, split_into_arms
from search_spaces.config import Value
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.space import SearchSpace
from study.spec import sections, spaces
from study.spec.augmentation import fix_what_presets_set, list_excluded_keys
from study.spec.defaults import CURRENT_VERSION
from study.spec.settings import SETTINGS, Hyperparameters
from trainables.training.lr_peak import compute_lr_peak_epoch, find_latest_peak

ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]{0,63}$")]


class StudySpec(sections.Section):
    """The specification of a study. `study.spec.reading.load_spec` reads it from TOML.

    `defaults_version` names the defaults that hold for what the spec leaves out (`study.spec.defaults`).
    With `configurations` or a `design`, the arms are given configurations: nothing is searched, and each configuration is trained
    once and then compared over fresh seeds.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    defaults_version: int = CURRENT_VERSION
    data: sections.DataSpec
    model: sections.ModelSpec = sections.ModelSpec()
    train: sections.TrainSpec = sections.TrainSpec()
    search: sections.SearchSpec = sections.SearchSpec()
    configurations: dict[ArmName, dict[str, Value]] = Field(default_factory=dict)
    design: sections.DesignSpec | None = None
    confirm: sections.ConfirmSpec = sections.ConfirmSpec()
    analyze: sections.AnalyzeSpec = sections.AnalyzeSpec()
    resources: sections.ResourcesSpec = sections.ResourcesSpec()
    gate: sections.GateSpec | None = None
    plan: sections.PlanSpec | None = None
    intervene: sections.InterveneSpec | None = None

    @model_validator(mode="after")
    def _search_or_configurations(self) -> "StudySpec":
        if self.configurations and self.design:
            raise ValueError("the arms are defined by [configurations] or by [design], not both; remove one")
        if not self.has_given_arms:
            return self
        if self.search.device_seconds is not None or self.search.warm_start is not None:
            raise ValueError(
                "given configurations are not searched; remove search.device_seconds and search.warm_start"
            )
        if self.search.allocation == "pooled":
            raise ValueError("each given configuration is an arm; remove search.allocation")
        if len(self.configurations) == 1:
            raise ValueError("a comparison needs two configurations, but [configurations] has one")
        return self

    @property
    def reports_divergence_first(self) -> bool:
        """Whether the samplers hear of a diverged trial as one pruned at its first epoch, or (version 1) at its last."""
        return self.defaults_version > 1

    @property
    def refuses_conflicting_labels(self) -> bool:
        """Whether many equal images with different labels are refused, or (versions 1 and 2) reported only."""
        return self.defaults_version > 2

    @property
    def min_test_per_class(self) -> int:
        """Images of each class in the test split: two, which an interval needs, or (versions 1 and 2) whatever the draw gives."""
        return 2 if self.defaults_version > 2 else 0

    @property
    def has_given_arms(self) -> bool:
        """Whether the arms are given configurations and nothing is searched."""
        return bool(self.configurations) or self.design is not None

    def search_space(self) -> SearchSpace:
        """Return the search space with the spec's ranges and fixed values; ranges do not apply to given configurations."""
        space = spaces.make_base_space(self.search)
        for name, values in self.search.ranges.items():
            narrowed = spaces.with_range(space, self.search, name, values)
            space = space if self.has_given_arms else narrowed
        if self.has_given_arms:
            given = [self._complete(values) for values in self._given_values().values()]
            return spaces.with_values(spaces.with_fixed(space, self.search.fixed), given)
        return spaces.with_fixed(spaces.with_factor(space, self.search), self.search.fixed)

    def arms(self) -> tuple[Arm, ...]:
        """Return one arm per level of the factor or per given configuration, or the one arm of a pooled search."""
        space = self.search_space()
        if self.has_given_arms:
            given = self._design().configurations
            return tuple(make_fixed_arm(name, space, values) for name, values in given.items())
        chosen = {*self.search.ranges, *self.search.fixed, self.search.factor}
        arms = split_into_arms(space, spaces.find_factor(self.search))
        return tuple(fix_what_presets_set(arm, self.train, chosen) for arm in arms)

    @property
    def varied_settings(self) -> frozenset[str]:
        """Names of the settings of [train], [model] and [search] that differ from trial to trial here."""
        space = self.search_space()
        names = (*space.names, *dict(space.fixed))
        return frozenset(name for name in names if name in SETTINGS and SETTINGS[name].section)

    def constant_value(self, setting: str) -> Value:
        """Return the value of a setting in its section, which holds for all trials unless the setting varies."""
        value: Value = getattr(getattr(self, SETTINGS[setting].section), setting)
        return value

    def setting_values(self, setting: str) -> tuple[Value, ...]:
        """Return the values that a setting takes in this study: its choices, the ends of its range, or its one value."""
        found: dict[Value, None] = {}
        for arm in self.arms():
            found |= dict.fromkeys(arm.space.values_of(setting) or (self.constant_value(setting),))
        return tuple(found)

    def max_epochs(self, arm: Arm) -> int:
        """Return the epochs of a full trial of `arm`; the most where they vary within it."""
        return max(int(value) for value in arm.space.values_of("max_epochs") or (self.search.max_epochs,))

    def middle_settings(self, arm: Arm) -> dict[str, Value]:
        """Return a value of every setting that varies here, from the middle of the arm's space."""
        varied = self.varied_settings
        return {name: value for name, value in arm.space.middle().items() if name in varied}

    def contrasts(self) -> tuple[designs.Contrast, ...]:
        """Return the contrasts that the rows of the comparison estimate."""
        if self.has_given_arms:
            return self._design().contrasts
        return designs.contrast_with_first([arm.name for arm in self.arms()])

    def _design(self) -> designs.Design:
        if self.design is None:
            given = {name: self._complete(values) for name, values in self.configurations.items()}
            return designs.Design(configurations=given, contrasts=designs.contrast_with_first(list(given)))
        changes_one = self.design.kind == "one_at_a_time"
        make = designs.make_one_at_a_time_design if changes_one else designs.make_factorial_design
        changes = {n: spaces.check_value(n, v) for n, v in self.design.changes.items()}
        return make(self._complete(self.design.base), changes, self.search_space())

    def _given_values(self) -> dict[str, Mapping[str, Value]]:
        """Return the values that given configurations are made of, by their place in the spec."""
        if self.design is not None:
            return {"design.base": self.design.base, "design.changes": self.design.changes}
        return {f"the configuration {name!r}": values for name, values in self.configurations.items()}

    def _complete(self, configuration: Mapping[str, Value]) -> dict[str, Value]:
        """Return a given configuration with the constant value of each setting that only another one sets."""
        given = [name for values in self._given_values().values() for name in values]
        constant = {n: self.constant_value(n) for n in given if n in SETTINGS and SETTINGS[n].section}
        return constant | {n: spaces.check_value(n, v) for n, v in configuration.items()}

    @property
    def num_trials(self) -> int | None:
        """Number of search trials, one for each given configuration; None if the budget is in device-seconds."""
        return len(self.arms()) if self.has_given_arms else self.search.num_trials

    @property
    def factor(self) -> str:
        """The factor that distinguishes the arms: "configuration", or the design's factors; "" in a pooled search."""
        if self.design is not None:
            return ", ".join(self.design.changes)
        if self.configurations:
            return "configuration"
        return self.search.factor if self.search.allocation == "per_arm" else ""

    def list_problems(self) -> list[str]:
        """Return a message for each value that does not fit another section; an empty list for a spec that can be used."""
        space_problems = self._list_space_problems()
        problems = [*space_problems]
        if not self.confirm.fresh_seeds and self.confirm.num_ranking_seeds > self.confirm.looks[0]:
            problems.append(
                f"confirm.num_ranking_seeds <= the first of confirm.looks ({self.confirm.looks[0]}) must hold, "
                f"but got {self.confirm.num_ranking_seeds}"
            )
        if self.resources.autoscaling and not self.resources.max_concurrent:
            problems.append(
                "resources.autoscaling needs resources.max_concurrent >= 1, the number of trials that the cluster grows for"
            )
        try:
            found = self.arms()
        except UserInputError as error:
            # A problem of the space, which is listed already, leaves no arms to check.
            return problems if space_problems else [*problems, str(error)]
        arms = [arm.name for arm in found]
        problems += [*self._list_epoch_problems(found), *self._list_recipe_problems(found)]
        problems += self._list_budget_problems(arms)
        problems += [*list_excluded_keys(self.train, found), *self._list_tf32_problems()]
        for kind in ("cpu", "gpu"):
            value = getattr(self.resources, kind)
            if isinstance(value, dict):
                wrong = _list_unknown_arms(f"resources.{kind}", value, arms)
                wrong += [f"resources.{kind} has no value for the arm {arm!r}" for arm in arms if arm not in value]
                problems += ["; ".join(wrong)] if wrong else []
            if any(number < 0 for number in (value.values() if isinstance(value, dict) else [value])):
                problems.append(f"resources.{kind} must not be negative, but got {value}")
        return problems

    def _list_space_problems(self) -> list[str]:
        """Return a message for each entry of the ranges, the fixed values and the configurations that does not fit the space."""
        problems = spaces.list_base_problems(self.search)
        if problems:
            return problems
        space = spaces.make_base_space(self.search)
        ranges, fixed = self.search.ranges, self.search.fixed
        checks: list[tuple[str, Callable[[], object]]] = [
            *(("search.ranges: ", partial(spaces.with_range, space, self.search, n, v)) for n, v in ranges.items()),
            *(("search.fixed: ", partial(spaces.check_fixed, space, n, v)) for n, v in fixed.items()),
        ]
        problems = _collect(checks)
        if problems:
            return problems
        problems = _collect(
            (f"{place}: ", partial(SETTINGS[name].check, value))
            for place, values in self._given_values().items()
            for name, value in values.items()
            if name in SETTINGS and SETTINGS[name].section
        )
        if problems:
            return problems
        return _collect(
            ("", partial(make_fixed_arm, name, self.search_space(), self._complete(values)))
            for name, values in self.configurations.items()
        )

    def _list_recipe_problems(self, arms: Sequence[Arm]) -> list[str]:
        """Return a message for each arm whose recipe is not valid as a whole, or lacks a hyperparameter."""
        problems = []
        for arm in arms:
            fixed = dict(arm.space.fixed)
            recipe = {n: v for n, v in fixed.items() if n in SETTINGS and SETTINGS[n].section == "train"}
            try:
                type(self.train).model_validate(self.train.model_dump() | recipe)
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Value error, ")
                problems.append(f"train of the arm {arm.name!r}: {message}")
            missing = [n for n in Hyperparameters.model_fields if not arm.space.values_of(n)]
            if arm.space.values_of("class_weighting") == ("none",) and "class_weight_strength" in missing:
                missing.remove("class_weight_strength")
            if missing:
                problems.append(
                    f"the configurations of the arm {arm.name!r} lack {', '.join(missing)}; add them to search.space, "
                    "or set them in search.fixed"
                )
        return list(dict.fromkeys(problems))

    def _list_epoch_problems(self, arms: Sequence[Arm]) -> list[str]:
        if not self.search.asha.enabled or self.has_given_arms:
            return []
        if any(len(arm.space.values_of("max_epochs")) > 1 for arm in arms):
            return [
                "ASHA compares the trials of an arm after equal numbers of epochs, so max_epochs cannot vary within an arm; "
                "make it search.factor, or set search.asha.enabled = false"
            ]
        last, first = min((self.max_epochs(arm), self.first_rung(arm)) for arm in arms)
        if first > last:
            return [f"search.asha.first_rung must lie in 1..max_epochs ({last}), but got {first}"]
        return []

    def _list_tf32_problems(self) -> list[str]:
        """Return a message if an arm whose trials run on a CPU has `train.tf32 = true`."""
        gpu, device = self.resources.gpu, self.resources.device
        on_cpu = []
        for arm in self.arms():
            held = gpu.get(arm.name, 0.0) if isinstance(gpu, dict) else gpu
            is_cpu = device == "cpu" or (device == "auto" and held == 0)
            if is_cpu and dict(arm.space.fixed).get("tf32", self.train.tf32) is True:
                on_cpu.append(arm.name)
        return [
            f"train.tf32 = true needs a GPU, but trials of {', '.join(on_cpu)} run on a CPU; set resources.gpu, or tf32 to false"
        ][: len(on_cpu)]

    def _list_budget_problems(self, arms: Sequence[str]) -> list[str]:
        problems = []
        if self.num_trials is not None and self.num_trials < len(arms):
            problems.append(
                f"search.num_trials must be at least the number of arms ({len(arms)}), but got {self.search.num_trials}"
            )
        if self.confirm.intervals == "anytime" and len(arms) > 1:
            # Imported here, because it needs SciPy.
            from analysis.statistics.anytime import compute_fewest_seeds

            fewest = compute_fewest_seeds(1 - self.confirm.alpha / len(self.contrasts()))
            if self.confirm.looks[0] < fewest:
                problems.append(
                    f"anytime-valid intervals are infinite below {fewest} seeds here, but confirm.looks begins at "
                    f"{self.confirm.looks[0]}; begin later, or set confirm.intervals to planned"
                )
        cost = self.search.epoch_cost
        if cost is None:
            return problems
        if self.search.device_seconds is not None:
            problems.append(
                "search.epoch_cost is for a budget of search.num_trials, because device-seconds are measured"
            )
        problems += _list_unknown_arms("search.epoch_cost", cost, arms)
        missing = [arm for arm in arms if arm not in cost]
        if missing:
            problems.append(f"search.epoch_cost must name every arm, but lacks {', '.join(missing)}")
        return problems

    def list_gpu_problems(self) -> list[str]:
        """Return a message if trials would hold more GPUs than they use. Not in `list_problems`: an old study may hold two."""
        held = {arm.name: self.resources.of_arm("gpu", arm.name) for arm in self.arms()}
        excess = ", ".join(f"{gpu:g} for the arm {arm!r}" for arm, gpu in held.items() if gpu > 1)
        rule = "a trial uses one GPU or a fraction of one, so 0 <= resources.gpu <= 1 must hold, but got"
        return [f"{rule} {excess}"] if excess else []

    def first_rung(self, arm: Arm) -> int:
        """Return the first epoch at which ASHA may stop a trial of `arm`; by default the (latest) peak of its learning rate."""
        if self.search.asha.first_rung:
            return self.search.asha.first_rung

        def values(setting: str) -> tuple[Value, ...]:
            return arm.space.values_of(setting) or (self.constant_value(setting),)

        fractions = [[float(v) for v in values(name)] for name in ("lr_peak_fraction", "warmup_fraction")]
        peak = find_latest_peak([str(schedule) for schedule in values("schedule")], *fractions)
        return compute_lr_peak_epoch(peak, self.max_epochs(arm))


def _list_unknown_arms(option: str, given: Iterable[str], arms: Sequence[str]) -> list[str]:
    return [f"{option} names the arm {arm!r}{nearest_name(arm, arms)}" for arm in given if arm not in arms]


def _collect(checks: Iterable[tuple[str, Callable[[], object]]]) -> list[str]:
    """Return the messages of the checks that raise UserInputError, each after its prefix."""
    problems = []
    for prefix, check in checks:
        try:
            check()
        except UserInputError as error:
            problems.append(f"{prefix}{error}")
    return problems

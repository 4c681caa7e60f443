"""`StudySpec`: the specification of a study, with the checks that involve several sections."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from search_spaces import designs
from search_spaces.config import TrialConfig, Value
from search_spaces.designs import Arm, make_fixed_arm, split_into_arms
from search_spaces.errors import refuse_any
from search_spaces.format import FORMAT
from search_spaces.settings import BUILT_IN_LOOP, Section
from search_spaces.space import SearchSpace
from search_spaces.space_tables import load_space, read_parameters
from study.spec import sections, spaces
from study.spec.setting_places import PROBE, SETTINGS, TUNING, fix_what_presets_set, fix_what_probes_lack

ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]{0,63}$")]


class StudySpec(Section):
    """The specification of a study. `study.spec.reading.load_spec` reads it from TOML."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Name of the study, and of its folder under the storage root."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Every random number of the study is derived from it: splits, suggestions, and the seeds of all trials."""
    format: int = FORMAT
    """Format of the study's files, which a launch writes."""
    data: sections.DataSpec
    model: sections.ModelSpec = sections.ModelSpec()
    train: sections.TrainSpec = sections.TrainSpec()
    search: sections.SearchSpec = sections.SearchSpec()
    configurations: dict[ArmName, dict[str, Value]] = Field(default_factory=dict)
    """Arms that are given configurations, by name: nothing is searched, and each one is trained once and then compared over fresh
    seeds. A `[design]` makes such arms, too."""
    design: sections.DesignSpec | None = None
    confirm: sections.ConfirmSpec = sections.ConfirmSpec()
    analyze: sections.AnalyzeSpec = sections.AnalyzeSpec()
    resources: sections.ResourcesSpec = sections.ResourcesSpec()
    minimum: sections.MinimumSpec | None = None
    plan: sections.PlanSpec | None = None
    intervene: sections.InterveneSpec | None = None

    @model_validator(mode="after")
    def _search_or_configurations(self) -> "StudySpec":
        if self.configurations and self.design:
            raise ValueError("the arms are defined by [configurations] or by [design], not both; remove one")
        if not self.has_given_arms:
            return self
        unused = [name for name in ("device_seconds", "warm_start", "start", "prior") if getattr(self.search, name)]
        unused += ["allocation"] if self.search.allocation == "pooled" else []
        if unused:
            keys = " and ".join(f"search.{name}" for name in unused)
            raise ValueError(f"given configurations are not searched, and each one is an arm; remove {keys}")
        if len(self.configurations) == 1:
            raise ValueError("a comparison needs two configurations, but [configurations] has one")
        if self.intervene is not None and self.intervene.factors:
            runs = designs.make_factorial_runs(self.intervene.factors)
            if list(self.configurations) != list(runs):
                raise ValueError(f"with intervene.factors, the configurations must be {', '.join(runs)}")
        return self

    @property
    def has_given_arms(self) -> bool:
        """Whether the arms are given configurations and nothing is searched."""
        return bool(self.configurations) or self.design is not None

    @property
    def num_kept_weights(self) -> int | None:
        """The search trials of an arm whose weights are kept, the best ones; None for all."""
        wanted = self.search.keep_weights
        if wanted == "all" or self.has_given_arms:
            return None
        return self.confirm.top_k if wanted is None else wanted

    def search_space(self) -> SearchSpace:
        """Return the search space with the spec's ranges and fixed values; ranges do not apply to given configurations."""
        space, own = self.base_space(), self.takes_own_settings
        for name, values in self.search.ranges.items():
            narrowed = spaces.with_range(space, self.search, name, values, takes_own=own)
            space = space if self.has_given_arms else narrowed
        fixed = self.search.fixed
        if self.has_given_arms:
            # Of a custom loop, whose other settings no network has, the space of all arms holds the name.
            given = [
                {"trainable": v["trainable"]} if self._is_own_loop(v) and "trainable" in v else self.complete(v)
                for v in self.given_values().values()
            ]
            return spaces.with_values(spaces.with_fixed(space, fixed, takes_own=own), given, takes_own=own)
        return spaces.with_fixed(spaces.with_factor(space, self.search), fixed, takes_own=own)

    @property
    def takes_own_settings(self) -> bool:
        """Whether a custom training loop may read settings that the product does not know."""
        search = self.search
        places = [search.ranges, search.space if isinstance(search.space, dict) else {}, *self.given_values().values()]
        return self.train.trainable != BUILT_IN_LOOP or any("trainable" in place for place in places)

    def trainables_of(self, arm: Arm) -> tuple[str, ...]:
        """Return the training loops of an arm's trials: "network" or names of classes."""
        return tuple(map(str, self.values_of(arm, "trainable")))

    def processes(self, arm: Arm) -> tuple[int, ...]:
        """Return the numbers of processes that trials of an arm may have."""
        return tuple(map(int, self.values_of(arm, "processes")))

    def base_space(self) -> SearchSpace:
        """Return the space of [search] before its ranges; the named spaces are not of a custom training loop."""
        space = self.search.space
        if isinstance(space, str) and self.train.trainable == BUILT_IN_LOOP:
            return load_space(space)
        refuse_any(spaces.list_base_problems(self.search, takes_own=self.takes_own_settings))
        return SearchSpace(
            name=spaces.OWN_SPACE, parameters=() if isinstance(space, str) else read_parameters(space)[0]
        )

    def _is_own_loop(self, configuration: Mapping[str, Value]) -> bool:
        """Return whether a configuration of [configurations] is that of a custom training loop."""
        return bool(self.configurations) and configuration.get("trainable", self.train.trainable) != BUILT_IN_LOOP

    def arms(self) -> tuple[Arm, ...]:
        """Return one arm per level of the factor or per given configuration, or the one arm of a pooled search."""
        space = self.search_space()
        if self.has_given_arms:
            return tuple(self.make_given_arm(name, space, v) for name, v in self._design().configurations.items())
        own = () if isinstance(self.search.space, str) else self.search.space
        chosen = {*own, *self.search.ranges, *self.search.fixed, self.search.factor}
        arms = split_into_arms(space, spaces.find_factor(self.search))
        arms = tuple(
            fix_what_presets_set(arm, self.values_of(arm, "augmentation"), self.values_of(arm, "image_size"), chosen)
            for arm in arms
        )
        return tuple(fix_what_probes_lack(arm) if self.values_of(arm, TUNING) == (PROBE,) else arm for arm in arms)

    def make_given_arm(self, name: str, space: SearchSpace, values: Mapping[str, Value]) -> Arm:
        """Return the arm of a given configuration, in `space` unless it is that of a custom training loop.

        Raises:
            UserInputError: if the configuration does not fit the space.
        """
        if self._is_own_loop(values):
            own = SearchSpace(name=spaces.OWN_SPACE, parameters=(), fixed=tuple(sorted(values.items())))
            return Arm(name=name, space=own)
        return make_fixed_arm(name, space, values)

    @property
    def varied_settings(self) -> frozenset[str]:
        """Names of the settings of [train], [model] and [search] that differ from trial to trial here."""
        space = self.search_space()
        own = [self.complete(values) for values in self.configurations.values() if self._is_own_loop(values)]
        names = {*space.names, *dict(space.fixed), *(name for values in own for name in values)}
        return frozenset(name for name in names if name in SETTINGS and SETTINGS[name].section)

    def constant_value(self, setting: str) -> Value:
        """Return the value of a setting in its section, which holds for all trials unless the setting varies."""
        value: Value = getattr(getattr(self, SETTINGS[setting].section), setting)
        return value

    def setting_values(self, setting: str) -> tuple[Value, ...]:
        """Return the values that a setting takes in this study: its choices, the ends of its range, or its one value."""
        found: dict[Value, None] = {}
        for arm in self.arms():
            found |= dict.fromkeys(self.values_of(arm, setting))
        return tuple(found)

    def values_of(self, arm: Arm, setting: str) -> tuple[Value, ...]:
        """Return the values that a setting takes in one arm; see `setting_values`. There are none where it has no section."""
        has_constant = bool(SETTINGS[setting].section)
        return arm.space.values_of(setting) or ((self.constant_value(setting),) if has_constant else ())

    def max_epochs(self, arm: Arm) -> int:
        """Return the epochs of a full trial of `arm`; the most where they vary within it."""
        return max(map(int, self.values_of(arm, "max_epochs")))

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
            given = {name: self.complete(values) for name, values in self.configurations.items()}
            return designs.Design(configurations=given, contrasts=self._contrast_configurations())
        changes_one = self.design.kind == "one_at_a_time"
        make = designs.make_one_at_a_time_design if changes_one else designs.make_factorial_design
        changes = {n: spaces.check_value(n, v) for n, v in self.design.changes.items()}
        return make(self.complete(self.design.base), changes, self.search_space())

    def _contrast_configurations(self) -> tuple[designs.Contrast, ...]:
        """Return the rows of given configurations: each against the first one, or the factors of interventions."""
        if self.intervene is not None and self.intervene.factors:
            labels = {name: (name, f"without {name}") for name in self.intervene.factors}
            return designs.make_factorial_contrasts(labels)
        return designs.contrast_with_first(list(self.configurations))

    def given_values(self) -> dict[str, Mapping[str, Value]]:
        """Return the values that given configurations are made of, by their place in the spec."""
        if self.design is not None:
            return {"design.base": self.design.base, "design.changes": self.design.changes}
        return {f"the configuration {name!r}": values for name, values in self.configurations.items()}

    def complete(self, configuration: Mapping[str, Value]) -> dict[str, Value]:
        """Return a given configuration with the constant value of each setting that only another one sets."""
        given = [name for values in self.given_values().values() for name in values]
        constant = {n: self.constant_value(n) for n in given if n in SETTINGS and SETTINGS[n].section}
        return constant | {n: spaces.check_value(n, v) for n, v in configuration.items()}

    @property
    def num_trials(self) -> int | None:
        """Number of search trials, one for each given configuration; None if the budget is in device-seconds."""
        return len(self._design().configurations) if self.has_given_arms else self.search.num_trials

    @property
    def factor(self) -> str:
        """The factor that distinguishes the arms: "configuration", or the design's factors; "" in a pooled search."""
        if self.design is not None:
            return ", ".join(self.design.changes)
        if self.configurations:
            return "configuration"
        return self.search.factor if self.search.allocation == "per_arm" else ""


def list_backbone_configs(arm: Arm, values: Mapping[str, Value], fixed: Mapping[str, Value]) -> list[TrialConfig]:
    """Return a configuration of each backbone of an arm; none where it has none, as with a custom training loop.

    Args:
        arm: of a study.
        values: its other hyperparameters.
        fixed: `TrialConfig.fixed`.
    """
    backbones = arm.space.values_of("backbone")
    return [
        TrialConfig(arm=arm.name, seed=0, hyperparameters={**values, "backbone": b}, fixed=fixed) for b in backbones
    ]

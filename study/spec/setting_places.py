"""The settings of `search_spaces.settings` as parts of a spec: where the constant value of each stands, and its valid values.

`model.tuning` and a preset of the augmentation decide about others: which keys they exclude, and what they fix.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from search_spaces import settings
from search_spaces.config import Value
from search_spaces.designs import Arm
from search_spaces.errors import UserInputError, attempt
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, Parameter
from study.spec import sections

if TYPE_CHECKING:
    from study.spec.study_spec import StudySpec

TUNING, PROBE = "tuning", "probe"
# What an arm of probes does not use: what features cannot have, and a learning rate of the backbone.
UNUSED: Mapping[str, Value] = MappingProxyType({**settings.UNMIXED, "backbone_lr_ratio": 1.0})
# Keys that look like settings, and why a study has one value of them.
CONSTANT: Mapping[str, str] = MappingProxyType(
    {
        "weights": "a configuration holds the identity of the weights, not their path; launch one study for each",
        **{
            key: f"data.{key} determines the images and splits, which all trials share"
            for key in sections.DataSpec.model_fields
        },
    }
)


@dataclass(frozen=True)
class Setting:
    """One setting of the recipe.

    Attributes:
        name: its name in a configuration.
        section: the section of the spec in which its constant value stands; "" if a configuration must set it.
        field: its type and its bounds.
    """

    name: str
    section: str
    field: FieldInfo

    @property
    def place(self) -> str:
        """Where its constant value stands, such as "train.momentum"."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def choices(self) -> tuple[Value, ...]:
        """All its values if they are finitely many; else ()."""
        if self.field.annotation is bool:
            return (False, True)
        return get_args(self.field.annotation) if get_origin(self.field.annotation) is Literal else ()

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(Annotated[self.field.annotation, self.field])  # type: ignore[arg-type]

    def check(self, value: Value) -> Value:
        """Return `value`, an int as a float where the setting is one; raise UserInputError if it is not valid."""
        try:
            checked: Value = self._adapter.validate_python(value, strict=True)
        except ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Input should ")
            raise UserInputError(f"{self.name} must {rule}, but got {value!r}") from None
        return float(checked) if self.field.annotation is float else checked

    def make_parameter(self, values: Sequence[Value], *, are_levels: bool = False) -> Parameter:
        """Return the parameter that a search varies: [low, high] of a number, or any other list of choices or levels.

        Raises:
            UserInputError: for a value that is not valid, or an empty range.
        """
        checked = [self.check(value) for value in values]
        if are_levels or self.field.annotation not in {int, float} or len(checked) != 2:
            return CategoricalParameter(name=self.name, choices=tuple(checked))
        if self.field.annotation is int:
            return IntParameter(name=self.name, low=int(checked[0]), high=int(checked[1]))
        return FloatParameter(name=self.name, low=float(checked[0]), high=float(checked[1]))

    def list_problems(self, parameter: Parameter) -> list[str]:
        """Return a message for each end or choice of a parameter of this name that is not valid."""
        if isinstance(parameter, CategoricalParameter):
            values: tuple[Value, ...] = parameter.choices
        elif isinstance(parameter, FloatParameter) and self.field.annotation is int:
            return [f"{self.name} is a whole number; set its kind to 'int'"]
        else:
            values = (parameter.low, parameter.high)
        problems: list[str] = []
        for value in values:
            attempt(problems, self.check, value)
        return problems


def _list_settings() -> dict[str, Setting]:
    places: dict[str, type[settings.Section]] = {
        "": settings.Hyperparameters,
        "train": settings.TrainSettings,
        "model": settings.TuningSettings,
        "search": settings.EpochSettings,
    }
    return {
        name: Setting(name=name, section=section, field=field)
        for section, model in places.items()
        for name, field in model.model_fields.items()
    }


SETTINGS: Mapping[str, Setting] = MappingProxyType(_list_settings())


def find_setting(name: str, *, takes_own: bool) -> Setting | None:
    """Return the setting of a name; None if there is none.

    Args:
        name: of the setting.
        takes_own: whether any other name is a setting of a custom training loop, which takes every value.
    """
    if name in SETTINGS or name in CONSTANT or not takes_own:
        return SETTINGS.get(name)
    return Setting(name=name, section="", field=FieldInfo(annotation=Value))


def fix_what_probes_lack(arm: Arm) -> Arm:
    """Return an arm of probes, in which the searched parameters that do nothing are fixed, whatever their ranges are."""
    kept = tuple(parameter for parameter in arm.space.parameters if parameter.name not in UNUSED)
    lacking = {name: UNUSED[name] for name in arm.space.names if name in UNUSED}
    fixed = tuple(sorted({**dict(arm.space.fixed), **lacking}.items()))
    return replace(arm, space=replace(arm.space, parameters=kept, fixed=fixed))


def list_tuning_problems(spec: "StudySpec", arms: Iterable[Arm]) -> list[str]:
    """Return a message for each setting that cached features cannot have, with all arms that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm in arms:
        if PROBE not in (tuning := spec.values_of(arm, TUNING)):
            continue
        for name, nothing in settings.UNMIXED.items():
            if mixes := [value for value in spec.values_of(arm, name) if value != nothing]:
                remedy = f"set {name} to 0" if len(tuning) == 1 else f"make tuning the factor, or set {name} to 0"
                problem = f"trains on features of single images, which {name} = {mixes[-1]:g} cannot mix", remedy
                found.setdefault(problem, []).append(repr(arm.name))
        if (processes := max(spec.processes(arm))) > 1:
            problem = f"trains in one process, but train.processes is {processes}", "set it to 1"
            found.setdefault(problem, []).append(repr(arm.name))
    return [
        f'tuning = "{PROBE}" of {"the arm" if len(names) == 1 else "the arms"} {", ".join(names)} {problem}; {remedy}'
        for (problem, remedy), names in found.items()
    ]


def describe_untrained(spec: "StudySpec") -> list[str]:
    """Return a sentence for each arm that relies on features of a backbone without pretrained weights."""
    if spec.model.weights != "none":
        return []
    return [
        f"the arm {arm.name!r} relies on features of an untrained backbone, because model.weights is none; set it to imagenet, "
        "a file or a folder, unless the backbone brings its own weights"
        for arm in spec.arms()
        if {*spec.values_of(arm, TUNING)} - {"full"} or PROBE in spec.values_of(arm, "head_init")
    ]


def fix_what_presets_set(arm: Arm, words: Sequence[Value], sizes: Sequence[Value], given: Collection[str]) -> Arm:
    """Return the arm with the parameters fixed that its preset sets, such as CutMix, except those that the spec gives itself.

    So "none" is no augmentation, and no parameter of its preset is searched, in an arm whose space has `cutmix_probability`.

    Args:
        arm: An arm of a search.
        words: The presets that its trials may have.
        sizes: The image sizes that its trials may have; what depends on the size is not fixed where there are several.
        given: Names of the parameters that the spec gives: in a table `search.space`, in `search.ranges`, in
            `search.fixed`, or as the factor.
    """
    if len(words) > 1:
        return arm
    first, *others = (settings.resolve_preset(str(words[0]), int(size)) for size in sizes)
    values = {name: value for name, value in first.items() if all(other[name] == value for other in others)}
    chosen = {name: values[name] for name in arm.space.names if name in values and name not in given}
    return replace(arm, space=arm.space.with_fixed(chosen))


def list_excluded_keys(words: Sequence[Value], given: Iterable[str]) -> list[str]:
    """Return a message if [train] gives keys that no arm uses, because the presets of all arms set them; else an empty list.

    Args:
        words: The presets of the arms of the study.
        given: Keys of [train] that the spec gives.
    """
    if settings.DEFAULT_PRESET in words:
        return []
    excluded = ", ".join(f"train.{name}" for name in given if name in settings.PRESET_KEYS)
    choice = " and ".join(f'"{word}"' for word in words)
    message = (
        f"augmentation {choice} sets every key of the augmentation; remove {excluded}, or use augmentation "
        f'"{settings.DEFAULT_PRESET}"'
    )
    return [message] if excluded else []

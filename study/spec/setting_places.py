"""The settings of `search_spaces.settings` as parts of a spec: where the constant value of each stands, and its valid values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from search_spaces.config import Value
from search_spaces.errors import UserInputError, collect_problems
from search_spaces.settings import EpochSettings, Hyperparameters, Section, TrainSettings, TuningSettings
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, Parameter
from study.spec import sections

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
        return collect_problems(("", partial(self.check, value)) for value in values)


def _list_settings() -> dict[str, Setting]:
    places: dict[str, type[Section]] = {
        "": Hyperparameters,
        "train": TrainSettings,
        "model": TuningSettings,
        "search": EpochSettings,
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

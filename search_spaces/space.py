"""`SearchSpace`: parameters with inclusive bounds, some of which exist only under a condition."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from search_spaces.config import Value
from search_spaces.errors import UserInputError, nearest_name, refuse_any
from search_spaces.extensions import is_location, list_entry_points


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The condition that the parameter `parent` has one of `values`."""

    parent: str
    values: tuple[Value, ...]

    def holds(self, chosen: Mapping[str, Value]) -> bool:
        """Return whether the condition holds, given the values chosen so far."""
        return self.parent in chosen and chosen[self.parent] in self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """What every parameter has: a name and, for one that does not always exist, the condition under which it does."""

    name: str
    condition: Condition | None = None

    def applies(self, chosen: Mapping[str, Value]) -> bool:
        """Return whether the parameter exists, given the values chosen so far."""
        return self.condition is None or self.condition.holds(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatParameter(_Parameter):
    """A real number in [low, high], both ends included; sampled log-uniformly if `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise UserInputError(f"{self.name}: low <= high must hold, but got [{self.low}, {self.high}]")
        if self.log and self.low <= 0:
            raise UserInputError(f"{self.name}: a log range needs low > 0, but got {self.low}")

    def check(self, value: Value) -> float:
        """Return `value` as a float; raise UserInputError if it is not a number in [low, high]."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserInputError(f"{self.name} must be a number, but got {value!r}")
        if not self.low <= value <= self.high:
            raise UserInputError(f"{self.low} <= {self.name} <= {self.high} must hold, but got {value}")
        return float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntParameter(_Parameter):
    """An integer in [low, high], both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise UserInputError(f"{self.name}: low <= high must hold, but got [{self.low}, {self.high}]")

    def check(self, value: Value) -> int:
        """Return `value`; raise UserInputError if it is not an int in [low, high]."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserInputError(f"{self.name} must be a whole number, but got {value!r}")
        if not self.low <= value <= self.high:
            raise UserInputError(f"{self.low} <= {self.name} <= {self.high} must hold, but got {value}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalParameter(_Parameter):
    """One of `choices`.

    With `entry_points`, `SearchSpace.with_range` and `with_fixed` also take names of that group of entry points and names with a
    prefix, as in "package.module:function".
    """

    choices: tuple[Value, ...]
    entry_points: str = ""

    def __post_init__(self) -> None:
        if not self.choices or len(set(self.choices)) != len(self.choices):
            raise UserInputError(f"{self.name} needs distinct choices, but got {list(self.choices)}")

    def check(self, value: Value) -> Value:
        """Return `value`; raise UserInputError with the nearest choice if it is not taken."""
        if self.takes(value):
            return value
        if not self.entry_points:
            raise UserInputError(
                f"{self.name} has no level {value!r}{nearest_name(str(value), map(str, self.choices))}"
            )
        near = nearest_name(str(value), [*map(str, self.choices), *list_entry_points(self.entry_points)])
        bare = str(value).strip(":")
        others = f"those of a library have its name before theirs, such as torchvision:{bare} and timm:{bare}"
        raise UserInputError(f"{self.name} has no level {value!r}{near}; {others}")

    def takes(self, value: Value) -> bool:
        """Whether `value` is a choice or, with `entry_points`, a name of that group or with a prefix."""
        if value in self.choices or not self.entry_points:
            return value in self.choices
        return value in list_entry_points(self.entry_points) or (isinstance(value, str) and is_location(value))


Parameter = FloatParameter | IntParameter | CategoricalParameter


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """A named search space.

    Attributes:
        name: Name of the space.
        parameters: Searched parameters; the parent of a condition comes before the parameters that depend on it.
        fixed: Names and values of the parameters that are fixed instead of searched.

    Raises:
        UserInputError: If a name is repeated, or a parameter's parent does not come before it.
    """

    name: str
    parameters: tuple[Parameter, ...]
    fixed: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        known = set(dict(self.fixed))
        for parameter in self.parameters:
            if parameter.name in known:
                raise UserInputError(f"{self.name}: the parameter {parameter.name!r} is defined twice")
            condition = parameter.condition
            if condition is not None and condition.parent not in known:
                raise UserInputError(
                    f"{self.name}: {parameter.name!r} depends on {condition.parent!r}, which does not come before it"
                )
            known.add(parameter.name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the searched parameters, in their order."""
        return tuple(p.name for p in self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        """Return the searched parameter `name`; raise UserInputError with the nearest name if there is none."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise UserInputError(f"the space {self.name!r} has no parameter {name!r}{nearest_name(name, self.names)}")

    def values_of(self, name: str) -> tuple[Value, ...]:
        """Return the one value of a fixed parameter, the choices of a searched one, or the ends of its range; else ()."""
        if name in dict(self.fixed):
            return (dict(self.fixed)[name],)
        if name not in self.names:
            return ()
        parameter = self[name]
        return parameter.choices if isinstance(parameter, CategoricalParameter) else (parameter.low, parameter.high)

    def with_parameter(self, parameter: Parameter) -> "SearchSpace":
        """Return the space with one more parameter, or with `parameter` in place of the one of the same name."""
        if parameter.name in self.names:
            changed = tuple(parameter if p.name == parameter.name else p for p in self.parameters)
            return replace(self, parameters=tuple(p for p in changed if _can_apply(p, changed, dict(self.fixed))))
        return replace(self, parameters=(*self.parameters, parameter))

    def middle(self) -> dict[str, Value]:
        """Return the configuration in the middle of the space: the (geometric) mean of each range, and first choices."""
        chosen: dict[str, Value] = dict(self.fixed)
        for parameter in self.parameters:
            if parameter.applies(chosen):
                chosen[parameter.name] = middle_value(parameter)
        return chosen

    def with_fixed(self, values: Mapping[str, Value]) -> "SearchSpace":
        """Return the space with some parameters fixed instead of searched.

        Conditional parameters whose condition can no longer hold are dropped.

        Args:
            values: Values by the parameters' names.

        Raises:
            UserInputError: For an unknown name, a value outside its parameter's range, or a conditional parameter whose
                condition does not hold.
        """
        fixed = dict(self.fixed)
        for name, value in values.items():
            fixed[name] = self[name].check(value)
        remaining = tuple(p for p in self.parameters if p.name not in fixed)
        for name in values:
            condition = self[name].condition
            if condition is not None and condition.parent in fixed and fixed[condition.parent] not in condition.values:
                raise UserInputError(
                    f"{name} applies only where {condition.parent} is one of {list(condition.values)}, "
                    f"but {condition.parent} is fixed at {fixed[condition.parent]!r}; remove it"
                )
        alive = tuple(p for p in remaining if _can_apply(p, remaining, fixed))
        return replace(self, parameters=alive, fixed=tuple(sorted(fixed.items())))

    def with_range(self, name: str, values: Sequence[Value]) -> "SearchSpace":
        """Return the space with a narrower range of the parameter `name`.

        Args:
            name: Name of the parameter.
            values: [low, high] for a numeric parameter, the remaining choices for a categorical one.

        Raises:
            UserInputError: For an unknown name, a value outside the present range, or a range that is not a pair.
        """
        old = self[name]
        new: Parameter
        if isinstance(old, CategoricalParameter):
            new = replace(old, choices=tuple(old.check(v) for v in values))
        else:
            if len(values) != 2:
                raise UserInputError(f"the range of {name} must be [low, high], but got {list(values)}")
            # Each kind of parameter checks for numbers of its own type.
            new = replace(old, low=old.check(values[0]), high=old.check(values[1]))  # type: ignore[arg-type]
        return self.with_parameter(new)

    def check(self, hyperparameters: Mapping[str, Value]) -> dict[str, Value]:
        """Return `hyperparameters`, validated, together with the space's fixed values.

        Raises:
            UserInputError: Listing unknown and missing names, values outside of their ranges, and conditional parameters that do
                not apply.
        """
        chosen: dict[str, Value] = dict(self.fixed)
        problems = []
        for parameter in self.parameters:
            name, applies = parameter.name, parameter.applies(chosen)
            if applies and name not in hyperparameters:
                problems.append(f"the hyperparameter {name!r} is missing")
            elif applies:
                chosen[name] = hyperparameters[name]
                try:
                    chosen[name] = parameter.check(chosen[name])
                except UserInputError as error:
                    problems.append(str(error))
            elif name in hyperparameters and parameter.condition is not None:
                parent = parameter.condition.parent
                problems.append(f"{name} does not apply where {parent} = {chosen.get(parent)!r}; remove it")
        known = [*self.names, *dict(self.fixed)]
        for name, value in hyperparameters.items():
            if name not in known:
                problems.append(f"the space {self.name!r} has no parameter {name!r}{nearest_name(name, known)}")
            elif chosen.get(name, value) != value:
                problems.append(f"{name} is fixed at {chosen[name]!r}, but got {value!r}")
        refuse_any(problems)
        return chosen


def middle_value(parameter: Parameter) -> Value:
    """Return the (geometric) mean of a range, or the first choice."""
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[0]
    if isinstance(parameter, FloatParameter):
        low, high = parameter.low, parameter.high
        return float((low * high) ** 0.5) if parameter.log else (low + high) / 2
    return (parameter.low + parameter.high) // 2


def _can_apply(parameter: Parameter, parameters: Sequence[Parameter], fixed: Mapping[str, Value]) -> bool:
    """Return whether the parameter's condition holds for a remaining value of its parent."""
    if parameter.condition is None:
        return True
    choices = {p.name: p.choices for p in parameters if isinstance(p, CategoricalParameter)}
    choices |= {name: (value,) for name, value in fixed.items()}
    return any(value in parameter.condition.values for value in choices.get(parameter.condition.parent, ()))

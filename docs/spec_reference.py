"""Generate the reference of docs/spec.md from the models of the spec: `python -m docs.spec_reference`."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.reference_pages import build_page, join_words, wrap, write_page
from search_spaces.settings import Hyperparameters, Section
from search_spaces.space import CategoricalParameter, Parameter
from search_spaces.space_tables import load_space
from study.spec.sections import SearchSpec
from study.spec.study_spec import StudySpec

PAGE, MODULE = "spec.md", "spec_reference"
# Name of what lies outside of all tables.
TOP = "spec"
NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "table"}
VALUE = "value (a number, text, or true or false)"


def list_sections(model: type[BaseModel] = StudySpec, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the name and the model of every section: "spec" for the top level, then "data", "search.asha", ..."""
    yield prefix or TOP, model
    for name, field in model.model_fields.items():
        section = find_section(field)
        if section is not None:
            is_table = "dict" in str(field.annotation)
            yield from list_sections(section, ".".join(filter(None, (prefix, name, "NAME" if is_table else ""))))


def find_section(field: FieldInfo) -> type[Section] | None:
    """Return the section that a field holds, or a table of them; None for a value."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def describe_schema(schema: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema and its bounds in words, such as "whole number, at least 1"."""
    if "anyOf" in schema:
        return _describe_union([kind for kind in schema["anyOf"] if kind.get("type") != "null"])
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if values:
        return join_words([f"`{format_value(value)}`" for value in values])
    if schema["type"] == "array":
        bounds = _describe_bounds(schema.get("minItems"), schema.get("maxItems"))
        return f"list of {_in_plural(schema['items'])}{f'; {bounds} entries' if bounds else ''}"
    if isinstance(of := schema.get("additionalProperties"), dict):
        return f"table of {_in_plural(of)}"
    matches = f" that matches `{schema['pattern']}`" if "pattern" in schema else ""
    parts = [NAMES[schema["type"]] + matches, _describe_range(schema)]
    if schema.get("minLength"):
        parts.append("not empty")
    return ", ".join(filter(None, parts))


def _in_plural(schema: Mapping[str, Any]) -> str:
    found = describe_schema(schema)
    plurals = {VALUE: "values (numbers, texts, or true or false)", "text": "texts"}
    for word in ("number", "table", "list"):
        found = re.sub(rf"^((?:whole )?{word})\b", r"\1s", found)
    return plurals.get(found, found)


def _describe_union(kinds: list[Mapping[str, Any]]) -> str:
    names = {kind.get("type") for kind in kinds}
    if names == {"number", "integer", "string", "boolean"}:
        return VALUE
    return " or ".join(describe_schema(kind) for kind in kinds)


def _describe_range(schema: Mapping[str, Any]) -> str:
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    closed = _describe_bounds(schema.get("minimum"), schema.get("maximum"))
    parts = ["" if above is None else f"above {above:g}", closed, "" if below is None else f"below {below:,.10g}"]
    return ", ".join(filter(None, parts))


def _describe_bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else ""


def format_value(value: object) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_default(field: FieldInfo) -> str:
    """Return the default of a field in words."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "optional" if value is None else f"default `{format_value(value)}`"


def describe_parameter(parameter: Parameter) -> str:
    """Return the range of a parameter of a search space."""
    if isinstance(parameter, CategoricalParameter):
        return join_words([f"`{format_value(choice)}`" for choice in parameter.choices])
    is_log = getattr(parameter, "log", False)
    return f"{parameter.low:g} to {parameter.high:g}{', log-uniform' if is_log else ''}"


def list_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys of a section that are values, not sections."""
    return [name for name, field in model.model_fields.items() if find_section(field) is None]


def build_section(section: str, model: type[BaseModel]) -> str:
    """Return the Markdown of a section: what it is, then each key with type, bounds, default and description."""
    parts = [_title(section), wrap(_intro(model))]
    properties = model.model_json_schema()["properties"]
    for key in list_keys(model):
        facts = f"*{describe_schema(properties[key])}; {describe_default(model.model_fields[key])}*"
        parts += [f"### {_place(section, key)}", wrap(facts), wrap(_describe(model, key))]
    return "\n\n".join(filter(None, parts))


def build_configuration() -> str:
    """Return the Markdown of the values that a configuration sets, with their ranges in the default space."""
    space = load_space(SearchSpec.model_fields["space"].default)
    properties = Hyperparameters.model_json_schema()["properties"]
    parts = ["## Values of a configuration", wrap(_intro(Hyperparameters))]
    for key in Hyperparameters.model_fields:
        facts = f"*{describe_schema(properties[key])}; in the space `{space.name}`: {describe_parameter(space[key])}*"
        parts += [f"### {key}", wrap(facts), wrap(_describe(Hyperparameters, key))]
    return "\n\n".join(parts)


def _intro(model: type[BaseModel]) -> str:
    """Return the docstring of a section without its name."""
    text = re.sub(r"^\[[\w.]+\]: ", "", " ".join((inspect.getdoc(model) or "").split()))
    return text[:1].upper() + text[1:]


def _describe(model: type[BaseModel], key: str) -> str:
    description = model.model_fields[key].description
    if not description:
        raise ValueError(f"describe {model.__name__}.{key} in a text below it")
    return " ".join(description.split())


def _title(section: str) -> str:
    return "## Top level" if section == TOP else f"## [{section}]"


def _place(section: str, key: str) -> str:
    return key if section == TOP else f"{section}.{key}"


def build_reference() -> str:
    """Return the reference of every key of the spec in Markdown."""
    return "\n\n".join([*(build_section(name, model) for name, model in list_sections()), build_configuration()])


if __name__ == "__main__":
    write_page(PAGE, build_page(PAGE, MODULE, build_reference()))

"""Generate the reference of docs/spec.md from the models of the spec: `python -m docs.spec_reference`.

The description of a key is the part of its model's docstring that names it; keys that no docstring names are described in
docs/spec_descriptions.toml.
"""

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.reference_pages import FOLDER, build_page, join_words, wrap, write_page
from search_spaces.named_spaces import load_space
from search_spaces.space import CategoricalParameter, Parameter
from study.spec.sections import SearchSpec, Section
from study.spec.settings import Hyperparameters
from study.spec.study_spec import StudySpec

PAGE, MODULE = "spec.md", "spec_reference"
DESCRIPTIONS = "spec_descriptions.toml"
# Names of the sections that are no tables of a spec.
TOP, CONFIGURATION = "spec", "configuration"
NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "table"}
VALUE = "value (a number, text, or true or false)"
SENTENCE_END = re.compile(r"(?<=\.)\s+(?=[A-Z`\"])")


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionDocs:
    """What the docstring of a section says.

    Attributes:
        intro: Sentences that are about no key.
        keys: Sentences by the first key that they name.
        see: By a key that is named in sentences about others only, the first of those others.
    """

    intro: str
    keys: Mapping[str, str]
    see: Mapping[str, str]


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


def read_docs(model: type[BaseModel], section: str) -> SectionDocs:
    """Return the docstring of a model, divided among its keys.

    A sentence belongs to the first key that it assigns, else to the first that it names. One that names none continues the one
    before it, unless it begins a line; then it is about the section.
    """
    intro: list[str] = []
    keys: dict[str, list[str]] = {}
    see: dict[str, str] = {}
    owner = ""
    for sentence, begins_line in _split_sentences(inspect.getdoc(model) or ""):
        named = _find_keys(sentence, model, section)
        owner = named[0] if named else "" if begins_line else owner
        keys.setdefault(owner, []).append(sentence) if owner else intro.append(sentence)
        for other in named[1:]:
            see.setdefault(other, owner)
    return SectionDocs(intro=" ".join(intro), keys={name: " ".join(found) for name, found in keys.items()}, see=see)


def _split_sentences(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each sentence of a docstring, and whether it begins a line."""
    start = 0
    for end in [*(match.end() for match in SENTENCE_END.finditer(text)), len(text)]:
        sentence = " ".join(re.sub(r"^\[[\w.]+\]: ", "", text[start:end]).split())
        yield sentence[:1].upper() + sentence[1:], start == 0 or text[start - 1] == "\n"
        start = end


def _find_keys(sentence: str, model: type[BaseModel], section: str) -> list[str]:
    """Return the keys of a section that the code in a sentence names, those with a value first."""
    assigned: dict[str, None] = {}
    named: dict[str, None] = {}
    for code in re.findall(r"`([^`]*)`", sentence):
        word = code.lstrip("[").removeprefix(f"{section}.")
        name = re.match(r"\w*", word)
        field = model.model_fields.get(name[0]) if name else None
        is_inside = name is not None and word[len(name[0]) :].startswith(".")
        if name is None or field is None or (is_inside and "dict" not in str(field.annotation)):
            continue
        (assigned if "=" in word else named).setdefault(name[0])
    return list(assigned | named)


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


def read_descriptions() -> dict[str, dict[str, str]]:
    """Return the descriptions of the keys that no docstring names, by section."""
    return tomllib.loads((FOLDER / DESCRIPTIONS).read_text(encoding="utf-8"))


def list_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys of a section that are values, not sections."""
    return [name for name, field in model.model_fields.items() if find_section(field) is None]


def build_section(section: str, model: type[BaseModel], written: Mapping[str, str]) -> str:
    """Return the Markdown of a section.

    Args:
        section: Its name.
        model: Of the section.
        written: Descriptions of the keys that its docstring does not name.

    Raises:
        ValueError: Naming keys that are described nowhere, in both places, or do not exist.
    """
    docs, keys = read_docs(model, section), list_keys(model)
    seen = {key: f"See [{owner}](#{_anchor(section, owner)})." for key, owner in docs.see.items()}
    described = {**seen, **written, **docs.keys}
    wrong = [key for key in keys if key not in described] + [
        key for key in written if key not in keys or key in docs.keys
    ]
    if wrong:
        raise ValueError(f"describe in the docstring of {model.__name__}, else in {DESCRIPTIONS}: {', '.join(wrong)}")
    about_sections = [sentences for key, sentences in docs.keys.items() if key not in keys]
    parts = [_title(section), wrap(" ".join([docs.intro, *about_sections]))]
    properties = model.model_json_schema()["properties"]
    for key in keys:
        facts = f"*{describe_schema(properties[key])}; {describe_default(model.model_fields[key])}*"
        parts += [f"### {_place(section, key)}", wrap(facts), wrap(described[key])]
    return "\n\n".join(filter(None, parts))


def build_configuration(written: Mapping[str, str]) -> str:
    """Return the Markdown of the values that a configuration sets, with their ranges in the default space."""
    space = load_space(SearchSpec.model_fields["space"].default)
    properties = Hyperparameters.model_json_schema()["properties"]
    parts = ["## Values of a configuration", wrap(read_docs(Hyperparameters, CONFIGURATION).intro)]
    for key in Hyperparameters.model_fields:
        facts = f"*{describe_schema(properties[key])}; in the space `{space.name}`: {describe_parameter(space[key])}*"
        parts += [f"### {key}", wrap(facts), wrap(written[key])]
    return "\n\n".join(parts)


def _title(section: str) -> str:
    return "## Top level" if section == TOP else f"## [{section}]"


def _place(section: str, key: str) -> str:
    return key if section == TOP else f"{section}.{key}"


def _anchor(section: str, key: str) -> str:
    return _place(section, key).replace(".", "").lower()


def build_reference() -> str:
    """Return the reference of every key of the spec in Markdown."""
    written = read_descriptions()
    parts = [build_section(name, model, written.pop(name, {})) for name, model in list_sections()]
    parts.append(build_configuration(written.pop(CONFIGURATION)))
    if written:
        raise ValueError(f"{DESCRIPTIONS} has sections that the spec does not have: {', '.join(written)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    write_page(PAGE, build_page(PAGE, MODULE, build_reference()))

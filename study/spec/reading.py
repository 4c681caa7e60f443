"""Reading a spec: TOML files, presets and ``--set`` overrides."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from search_spaces.config import Value
from search_spaces.errors import UserInputError, nearest_name
from study.spec.defaults import CURRENT_VERSION, FIRST_VERSION, VERSION_KEY, fill_defaults
from study.spec.study_spec import StudySpec

# A budget given on the command line replaces the other kind of budget of the file.
OTHER_BUDGET = {"search.num_trials": "device_seconds", "search.device_seconds": "num_trials"}


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
    """Read and validate the spec of a new study.

    Args:
        spec: path of a TOML file, or name of a preset.
        overrides: ``section.key=value`` texts; the value is TOML, or a string without quotes.
        name: replaces the name of the spec.
        configurations: replaces the configurations of the spec. Its `search.epoch_cost`, which names the arms of a search, is
            dropped: each configuration is trained once, whatever it costs.

    Returns:
        The spec, and its TOML text with the overrides: the content of the study's spec.toml.

    Raises:
        UserInputError: if the spec cannot be read or is not valid.
    """
    data = _parse_toml(_read_spec_text(spec), spec)
    for override in overrides:
        _apply_override(data, override)
    if name is not None:
        data["name"] = name
    if configurations is not None:
        data.get("search", {}).pop("epoch_cost", None)
        data["configurations"] = {arm: dict(values) for arm, values in configurations.items()}
    data.setdefault(VERSION_KEY, CURRENT_VERSION)
    validated = validate_spec(data, where=spec)
    validated.check_gpus()
    return validated, tomli_w.dumps(data)


def with_overrides(spec: StudySpec, overrides: Sequence[str], where: str) -> StudySpec:
    """Return `spec` with ``section.key=value`` overrides; raise UserInputError if the result is not valid."""
    data = spec.model_dump(exclude_none=True)
    for override in overrides:
        _apply_override(data, override)
    return validate_spec(data, where=where)


def parse_spec(text: str, where: str) -> StudySpec:
    """Return the spec in the text of a study's spec.toml; raise UserInputError if it is not valid.

    A text that records no version of the defaults is as old as the first version.
    """
    data = _parse_toml(text, where)
    data.setdefault(VERSION_KEY, FIRST_VERSION)
    return validate_spec(data, where=where)


def validate_spec(data: dict[str, Any], where: str) -> StudySpec:
    """Return the spec that `data` describes; raise UserInputError, with one line, for the first value that is not valid."""
    try:
        spec = StudySpec.model_validate(fill_defaults(data, data.get(VERSION_KEY, CURRENT_VERSION)))
        spec.check()
    except ValidationError as error:
        raise UserInputError(f"{where}: {_first_problem(error)}") from None
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
    if problem["type"] == "string_pattern_mismatch":
        message = "Input should be at most 64 letters, digits, '.', '_' or '-', the first a letter or a digit"
    if not place or isinstance(problem["input"], dict):
        return f"{place}: {message}" if place else message
    rule = (
        f"{place} must {message.removeprefix('Input should ')}" if "Input should" in message else f"{place}: {message}"
    )
    return f"{rule}, but got {problem['input']!r}"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Return the valid keys of the section that holds an unknown key."""
    model: Any = StudySpec
    for part in location[:-1]:
        field = model.model_fields[str(part)]
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)

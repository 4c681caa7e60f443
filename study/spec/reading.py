"""Reading a spec: TOML files, presets and ``--set`` overrides; and configurations from JSON files, of an export or by hand."""

import copy
import json
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from search_spaces.config import Value
from search_spaces.errors import UserInputError, attempt, nearest_name
from search_spaces.format import FORMAT, check_format
from study.spec.checks import Location, find_problems, list_problems, remove_value
from study.spec.named_extensions import list_import_problems, list_refusals
from study.spec.setting_places import list_excluded_keys
from study.spec.starts import resolve_search
from study.spec.study_spec import StudySpec

# A budget given on the command line replaces the other kind of budget of the file.
OTHER_BUDGET = {"search.num_trials": "device_seconds", "search.device_seconds": "num_trials"}

LONGEST_NAME = 64
# The name of the file beside every exported model.
EXPORTED_NAME = "study.json"

# Required keys, which conflict with no other section: stand-ins where the spec's own are missing or refused.
NO_CONFLICTS = {"name": "unnamed", "data": {"source": "digits"}}


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped presets."""
    folder = resources.files("study") / "presets"
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def read_preset(name: str) -> str:
    """Return the TOML text of a shipped preset."""
    return (resources.files("study") / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def load_spec(
    spec: str,
    overrides: Sequence[str] = (),
    name: str | None = None,
    configurations: Mapping[str, Mapping[str, Value]] | None = None,
    *,
    runs_code: bool = True,
) -> tuple[StudySpec, str]:
    """Read and validate the spec of a new study.

    Args:
        spec: path of a TOML file, or name of a preset.
        overrides: ``section.key=value`` texts; the value is TOML, or a string without quotes.
        name: replaces the name of the spec.
        configurations: replaces the configurations of the spec. What [search] knows about the arms of a search (`epoch_cost`,
            `start`, `prior`) is dropped: each configuration is trained once.
        runs_code: whether code that the spec names is to run; otherwise nothing of it is imported, nor need it be trusted.

    Returns:
        The spec, and its TOML text with the overrides: the content of the study's spec.toml.

    Raises:
        UserInputError: if the spec cannot be read, or listing everything that is not valid.
    """
    data = _parse_toml(_read_spec_text(spec), spec)
    problems = _apply_overrides(data, overrides)
    if name is not None:
        data["name"] = name
    if configurations is not None:
        for key in ("epoch_cost", "start", "prior"):
            data.get("search", {}).pop(key, None)
        data["configurations"] = {arm: dict(values) for arm, values in configurations.items()}
    problems += _inline_space(data)
    check_format(data.get("format", FORMAT), spec)
    validated, more = _validate(data)
    problems += [*more, *(list_refusals(data) if runs_code else [])]
    if validated is not None and not problems:
        # The spec.toml of a study holds all keys.
        given = () if "format" in data else data.get("train", {})
        keys = list_excluded_keys(validated.setting_values("augmentation"), given)
        imports = list_import_problems(validated) if runs_code else []
        problems = [*keys, *imports]
    if validated is None or problems:
        raise UserInputError(_join_problems(spec, problems))
    return validated, tomli_w.dumps(data)


def _inline_space(data: dict[str, Any]) -> list[str]:
    """Replace the path of a space in `data` by the tables of its file, which a study keeps; return why that failed."""
    search: Any = data.get("search")
    path = search.get("space") if isinstance(search, dict) else None
    if not isinstance(path, str) or not path.endswith(".toml"):
        return []
    try:
        search["space"] = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        del search["space"]
        return [f"search.space: {path} cannot be read: {error}"]
    return []


def with_overrides(spec: StudySpec, overrides: Sequence[str], where: str) -> StudySpec:
    """Return `spec` with ``section.key=value`` overrides; raise UserInputError if the result is not valid."""
    data = spec.model_dump(exclude_none=True)
    problems = _apply_overrides(data, overrides)
    if problems:
        raise UserInputError(_join_problems(where, problems))
    return validate_spec(data, where=where)


def parse_spec(text: str, where: str) -> StudySpec:
    """Return the spec in a TOML text; raise UserInputError if it is not valid."""
    return validate_spec(_parse_toml(text, where), where=where)


def dump_spec(spec: StudySpec) -> str:
    """Return the content of a study's spec.toml: every value, given or default, so that a changed default changes no study."""
    return tomli_w.dumps(resolve_search(spec).model_dump(exclude_none=True))


def validate_spec(data: dict[str, Any], where: str) -> StudySpec:
    """Return the spec that `data` describes; raise UserInputError, with a line for each problem, if it is not valid."""
    spec, problems = _validate(data)
    if spec is None or problems:
        raise UserInputError(_join_problems(where, problems))
    return spec


def _validate(data: dict[str, Any]) -> tuple[StudySpec | None, list[str]]:
    """Return the spec, None if a value has the wrong type or range, and a message for each problem."""
    try:
        spec = StudySpec.model_validate(data)
    except ValidationError as error:
        found = find_problems(error, data)
        return None, [*found.values(), *_list_further_problems(data, tuple(found))]
    return spec, list_problems(spec)


def _list_further_problems(data: dict[str, Any], refused: Sequence[Location]) -> list[str]:
    """Return the conflicts between the sections if the refused values are left out, except those that involve one of them."""
    rest = copy.deepcopy(data)
    for location in refused:
        remove_value(rest, location)
    rest = {**NO_CONFLICTS, **rest}
    try:
        spec = StudySpec.model_validate(rest)
    except ValidationError:
        return []
    names = {str(location[-1]) for location in refused}
    return [problem for problem in list_problems(spec) if not any(name in problem for name in names)]


def _join_problems(where: str, problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return "\n- ".join([f"{where} has {len(problems)} problems:", *problems])


def _read_spec_text(spec: str) -> str:
    path = Path(spec).expanduser()
    if path.is_dir() and spec not in preset_names():
        raise UserInputError(
            f"{spec!r} is a folder, not a spec; `study init {shlex.quote(spec)}` writes a spec for its images"
        )
    if path.suffix == ".toml" or path.is_file():
        try:
            # Editors of Windows begin a file with a byte order mark.
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserInputError(f"the spec {spec!r} cannot be read: {error}") from None
    names = preset_names()
    if spec not in names:
        raise UserInputError(f"there is no spec file and no preset {spec!r}{nearest_name(spec, names)}")
    return read_preset(spec)


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserInputError(f"{where} is not valid TOML: {error}") from None


def _apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Write the overrides into `data`; return a message for each that cannot be written."""
    problems: list[str] = []
    for override in overrides:
        attempt(problems, _apply_override, data, override)
    return problems


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenConfiguration:
    """The configuration of one file.

    Attributes:
        name: of the arm; the stem of the file, or of a file that an export named, the exported arm.
        hyperparameters: of the arm.
        settings: fixed settings of the study in which the configuration was trained; empty if the file has none.
    """

    name: str
    hyperparameters: Mapping[str, Value]
    settings: Mapping[str, Value]


def read_configurations(paths: Sequence[Path]) -> tuple[GivenConfiguration, ...]:
    """Return the configurations in the order of the files; the first is the control.

    A file is the `study.json` of an exported arm, or one object of hyperparameters.

    Raises:
        UserInputError: naming a file that is neither, for fewer than two files, or for two files with the same name.
    """
    if len(paths) < 2:
        raise UserInputError(
            f"--configuration must name two or more files, but got {len(paths)}; the first is the control"
        )
    found = [_read_configuration(path) for path in paths]
    names = [configuration.name for configuration in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserInputError(
            f"an arm has the name of its file, or of the arm that was exported to study.json, but two are named {twice[0]!r}; "
            "copy one to a file with another name"
        )
    return tuple(found)


def default_name(configurations: Sequence[GivenConfiguration]) -> str:
    """Return the default name of a study that compares the configurations, at most `LONGEST_NAME` characters."""
    words = "-vs-".join(c.name for c in configurations)
    return re.sub(r"[^A-Za-z0-9._-]", "-", words)[:LONGEST_NAME]


def describe_changed_settings(
    configurations: Sequence[GivenConfiguration], settings: Mapping[str, Mapping[str, Value]]
) -> tuple[str, ...]:
    """Return a sentence per arm that was trained before with other fixed settings than it has here.

    Args:
        configurations: of the files.
        settings: everything that a configuration sets here, by arm.
    """
    sentences = []
    for configuration in configurations:
        here = settings[configuration.name]
        changed = [
            f"{name} {value} (here {here[name]})"
            for name, value in sorted(configuration.settings.items())
            if name in here and here[name] != value
        ]
        if changed:
            sentences.append(f"{configuration.name} was trained before with {', '.join(changed)}")
    return tuple(sentences)


def _read_configuration(path: Path) -> GivenConfiguration:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserInputError(f"there is no configuration file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserInputError(f"{path} cannot be read as JSON: {error}") from None
    name = path.stem
    if isinstance(data, dict) and isinstance(data.get("configuration"), dict):
        if path.name == EXPORTED_NAME and isinstance(data.get("arm"), str):
            name = data["arm"]
        data = data["configuration"]
    settings: Any = {}
    if isinstance(data, dict) and isinstance(data.get("hyperparameters"), dict):
        settings, data = data.get("fixed", {}), data["hyperparameters"]
    values = (float, int, str, bool)
    if not isinstance(data, dict) or not data or not all(isinstance(v, values) for v in data.values()):
        raise UserInputError(
            f"{path} holds no configuration; it must be a file of `study export`, or an object of hyperparameters such as "
            '{"backbone": "resnet18", "max_lr": 0.1, ...}'
        )
    return GivenConfiguration(name=name, hyperparameters=data, settings=settings if isinstance(settings, dict) else {})

"""Configurations from JSON files, written by `study export` or by hand."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.config import Value
from search_spaces.errors import UserInputError

LONGEST_NAME = 64
# The name of the file beside every exported model.
EXPORTED_NAME = "study.json"


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

"""The problems of a spec in words: one message for each value that a section refuses."""

import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from search_spaces.errors import nearest_name
from study.spec.study_spec import StudySpec

Location = tuple[int | str, ...]


def find_problems(error: ValidationError, data: Mapping[str, Any]) -> dict[Location, str]:
    """Return one message for each refused value, by its location in `data`, in the order of the sections.

    Where a value may have one of several types, the problem found deepest in it is the informative one.
    """
    problems: dict[Location, ErrorDetails] = {}
    for problem in error.errors():
        location = _locate(problem, data)
        if location not in problems or len(problem["loc"]) > len(problems[location]["loc"]):
            problems[location] = problem
    outer = {location[:length] for location in problems for length in range(len(location))}
    return {place: _describe(problem, place) for place, problem in problems.items() if place not in outer}


def remove_value(data: dict[str, Any], location: Location) -> None:
    """Remove the value at `location` from `data`, or the list that holds it."""
    place: Any = data
    for position, part in enumerate(location):
        if not isinstance(place, dict) or part not in place:
            return
        if position == len(location) - 1 or not isinstance(place[part], dict):
            del place[part]
            return
        place = place[part]


def _locate(problem: ErrorDetails, data: Mapping[str, Any]) -> Location:
    """Return the part of pydantic's location that names keys and positions, without its names of types."""
    if problem["type"] == "missing":
        return problem["loc"]
    found: list[int | str] = []
    place: Any = data
    for part in problem["loc"]:
        if (isinstance(place, Mapping) and part in place) or (isinstance(place, list) and isinstance(part, int)):
            place = place[part]  # type: ignore[index]
            found.append(part)
    return tuple(found)


def _describe(problem: ErrorDetails, location: Location) -> str:
    place = ".".join(map(str, location))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place!r}{nearest_name(str(location[-1]), _siblings(location))}"
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
    return f"{rule}, but got {problem['input']!r}{_suggest(problem)}"


def _suggest(problem: ErrorDetails) -> str:
    """Return the choice nearest to a word that is none of them; "" if none is near, because the message lists them all."""
    if problem["type"] != "literal_error" or not isinstance(problem["input"], str):
        return ""
    near = nearest_name(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return near if "did you mean" in near else ""


def _siblings(location: Location) -> list[str]:
    """Return the valid keys of the section that holds an unknown key."""
    model: Any = StudySpec
    parts = iter(location[:-1])
    for part in parts:
        annotation = model.model_fields[str(part)].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # A key that the user chose, such as that of a prior.
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)

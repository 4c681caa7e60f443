"""The problems of a spec in words: a message for each value that a section refuses, and for what several sections contradict."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from search_spaces.designs import Arm
from search_spaces.errors import UserInputError, attempt, nearest_name
from search_spaces.settings import BUILT_IN_LOOP, FOR_GPUS, Hyperparameters
from study.spec import spaces
from study.spec.setting_places import SETTINGS, list_tuning_problems
from study.spec.starts import list_start_problems
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


def list_problems(spec: StudySpec) -> list[str]:
    """Return a message for each value that does not fit another section; an empty list for a spec that can be used."""
    space_problems = _list_space_problems(spec)
    problems = [*space_problems]
    if spec.resources.autoscaling and not spec.resources.max_concurrent:
        problems.append(
            "resources.autoscaling needs resources.max_concurrent >= 1, the number of trials that the cluster grows for"
        )
    try:
        found = spec.arms()
    except UserInputError as error:
        # A problem of the space, which is listed already, leaves no arms to check.
        return problems if space_problems else [*problems, str(error)]
    arms = [arm.name for arm in found]
    problems += _list_recipe_problems(spec, found)
    problems += list_start_problems(spec, found)
    problems += [*_list_budget_problems(spec, arms), *_list_interval_problems(spec)]
    held = {"resources.cpu": spec.resources.cpu, "resources.gpu": spec.resources.gpu}
    tables = {key: value for key, value in held.items() if isinstance(value, dict)}
    wrong = [problem for key, table in tables.items() for problem in _list_arm_problems(key, table, arms)]
    return [*problems, *(wrong or _list_device_problems(spec, found))]


def _list_space_problems(spec: StudySpec) -> list[str]:
    """Return a message for each entry of the ranges, the fixed values and the configurations that does not fit the space."""
    own = spec.takes_own_settings
    problems = spaces.list_base_problems(spec.search, takes_own=own)
    if problems:
        return problems
    space = spec.base_space()
    narrow = partial(spaces.with_range, space, spec.search, takes_own=own)
    fix = partial(spaces.check_fixed, space, takes_own=own)
    for name, levels in spec.search.ranges.items():
        attempt(problems, narrow, name, levels, prefix="search.ranges: ")
    for name, value in spec.search.fixed.items():
        attempt(problems, fix, name, value, prefix="search.fixed: ")
    # What is wrong with the space would make the configurations look wrong, too.
    for place, values in spec.given_values().items() if not problems else ():
        for name, value in values.items():
            attempt(problems, spaces.check_value, name, value, prefix=f"{place}: ")
    for name, values in spec.configurations.items() if not problems else ():
        attempt(problems, spec.make_given_arm, name, spec.search_space(), spec.complete(values))
    return problems


def _list_recipe_problems(spec: StudySpec, arms: Sequence[Arm]) -> list[str]:
    """Return a message for each arm whose recipe is not valid as a whole, or lacks a hyperparameter."""
    problems = []
    for arm in arms:
        fixed = dict(arm.space.fixed)
        recipe = {n: v for n, v in fixed.items() if n in SETTINGS and SETTINGS[n].section == "train"}
        try:
            type(spec.train).model_validate(spec.train.model_dump() | recipe)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            problems.append(f"train of the arm {arm.name!r}: {message}")
        loops = spec.trainables_of(arm)
        if len(loops) > 1:
            problems.append(
                f"trainable cannot vary within the arm {arm.name!r} ({', '.join(loops)}); make it search.factor"
            )
        if loops != (BUILT_IN_LOOP,):
            continue
        missing = [n for n in Hyperparameters.model_fields if not arm.space.values_of(n)]
        if arm.space.values_of("class_weighting") == ("none",) and "class_weight_strength" in missing:
            missing.remove("class_weight_strength")
        if missing:
            problems.append(
                f"the configurations of the arm {arm.name!r} lack {', '.join(missing)}; add them to search.space, "
                "or set them in search.fixed"
            )
    return list(dict.fromkeys(problems + list_tuning_problems(spec, arms)))


def _list_interval_problems(spec: StudySpec) -> list[str]:
    """Return a message if the intervals of [confirm] need more seeds, or other rows."""
    if spec.confirm.intervals == "planned" or not (rows := spec.contrasts()):
        return []
    # Imported here, because they need SciPy.
    from analysis.comparison.other_intervals import compute_fewest_seeds
    from analysis.statistics.moderated_variances import MIN_ROWS

    if spec.confirm.intervals == "anytime":
        fewest = compute_fewest_seeds(1 - spec.confirm.alpha / len(rows))
        return [
            f"anytime-valid intervals are infinite below {fewest} seeds here, but confirm.looks begins at "
            f"{spec.confirm.looks[0]}; begin later, or set confirm.intervals to planned"
        ][: int(spec.confirm.looks[0] < fewest)]
    have_one_control = len({row.control_arms for row in rows}) == 1 and all(row.scale == 1 for row in rows)
    if len(rows) >= MIN_ROWS and have_one_control:
        return []
    return [
        f'confirm.intervals = "moderated" needs {MIN_ROWS} rows or more that are compared with one control, but the comparison '
        f'has {len(rows)}{"" if have_one_control else " with several controls"}; set it to "planned"'
    ]


def _list_budget_problems(spec: StudySpec, arms: Sequence[str]) -> list[str]:
    problems = []
    if spec.num_trials is not None and spec.num_trials < len(arms):
        problems.append(
            f"search.num_trials must be at least the number of arms ({len(arms)}), but got {spec.search.num_trials}"
        )
    most = spec.search.max_trials_per_arm
    if most and not spec.has_given_arms and (spec.num_trials or 0) > most * len(arms):
        problems.append(
            f"search.num_trials is {spec.num_trials}, but {len(arms)} arms of at most {most} trials (search.max_trials_per_arm) "
            f"have {most * len(arms)}; lower the one, or raise the other"
        )
    cost = spec.search.epoch_cost
    if cost is None:
        return problems
    if spec.search.device_seconds is not None:
        problems.append("search.epoch_cost is for a budget of search.num_trials, because device-seconds are measured")
    return [*problems, *_list_arm_problems("search.epoch_cost", cost, arms)]


def _list_device_problems(spec: StudySpec, arms: Sequence[Arm]) -> list[str]:
    """Return a message for what the devices of an arm's trials do not allow: fewer or more than they use, or settings of GPUs."""
    problems, excess = [], []
    on_cpu: dict[str, list[str]] = {name: [] for name in FOR_GPUS}
    for arm in arms:
        processes, device = max(spec.processes(arm)), spec.resources.device
        cpu, gpu = (spec.resources.of_arm(kind, arm.name) for kind in ("cpu", "gpu"))
        kind, has = ("gpu", gpu) if gpu > 0 and device != "cpu" else ("cpu", cpu)
        if processes > 1 and has < processes:
            problems.append(
                f"train.processes = {processes} of the arm {arm.name!r} needs as many {kind.upper()}s, but resources.{kind} is "
                f"{has:g}; raise it, or lower train.processes"
            )
        if gpu > processes:
            excess.append(f"{gpu:g} for the arm {arm.name!r}")
        for name, value in FOR_GPUS.items():
            if device != "cuda" and kind == "cpu" and value in spec.values_of(arm, name):
                on_cpu[name].append(arm.name)
    if excess:
        problems.append(
            "a trial uses one GPU or a fraction of one, or as many as train.processes, so 0 <= resources.gpu <= 1 must hold with "
            f"one process, but got {', '.join(excess)}"
        )
    problems += [
        f"train.{name} = {str(value).lower()} needs a GPU, but trials of {', '.join(on_cpu[name])} run on a CPU; set "
        f"resources.gpu, or {name} to {str(not value).lower()}"
        for name, value in FOR_GPUS.items()
        if on_cpu[name]
    ]
    return problems


def _list_arm_problems(key: str, given: Collection[str], arms: Sequence[str]) -> list[str]:
    """Return a message if a table by arm names an unknown arm, or lacks one."""
    unknown = [f"{key} names the arm {arm!r}{nearest_name(arm, arms)}" for arm in given if arm not in arms]
    missing = [f"{key} has no value for the arm {arm!r}" for arm in arms if arm not in given]
    return ["; ".join([*unknown, *missing])] if unknown or missing else []

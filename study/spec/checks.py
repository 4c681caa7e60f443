"""The checks of a spec that involve several of its sections."""

from collections.abc import Iterable, Sequence
from functools import partial

from pydantic import ValidationError

from search_spaces.arms import Arm
from search_spaces.errors import Check, UserInputError, collect_problems, nearest_name
from search_spaces.settings import BUILT_IN_LOOP, Hyperparameters
from study.spec import spaces
from study.spec.settings import SETTINGS
from study.spec.starts import list_start_problems
from study.spec.study_spec import StudySpec
from study.spec.tuning import list_tuning_problems
from trainables.training.recipe_rules import FOR_GPUS


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
    problems += [*_list_epoch_problems(spec, found), *_list_recipe_problems(spec, found)]
    problems += list_start_problems(spec, found)
    problems += [*_list_budget_problems(spec, arms), *_list_interval_problems(spec)]
    problems += _list_gpu_problems(spec)
    num_before = len(problems)
    for kind in ("cpu", "gpu"):
        value = getattr(spec.resources, kind)
        if isinstance(value, dict):
            wrong = _list_unknown_arms(f"resources.{kind}", value, arms)
            wrong += [f"resources.{kind} has no value for the arm {arm!r}" for arm in arms if arm not in value]
            problems += ["; ".join(wrong)] if wrong else []
        if any(number < 0 for number in (value.values() if isinstance(value, dict) else [value])):
            problems.append(f"resources.{kind} must not be negative, but got {value}")
    return problems if len(problems) > num_before else [*problems, *_list_process_problems(spec, found)]


def _list_space_problems(spec: StudySpec) -> list[str]:
    """Return a message for each entry of the ranges, the fixed values and the configurations that does not fit the space."""
    own = spec.takes_own_settings
    problems = spaces.list_base_problems(spec.search, takes_own=own)
    if problems:
        return problems
    space = spec.base_space()
    ranges, fixed = spec.search.ranges, spec.search.fixed
    checks: list[Check] = [
        *(
            ("search.ranges: ", partial(spaces.with_range, space, spec.search, n, v, takes_own=own))
            for n, v in ranges.items()
        ),
        *(("search.fixed: ", partial(spaces.check_fixed, space, n, v, takes_own=own)) for n, v in fixed.items()),
    ]
    problems = collect_problems(checks)
    if problems:
        return problems
    problems = collect_problems(
        (f"{place}: ", partial(SETTINGS[name].check, value))
        for place, values in spec.given_values().items()
        for name, value in values.items()
        if name in SETTINGS and SETTINGS[name].section
    )
    if problems:
        return problems
    return collect_problems(
        ("", partial(spec.make_given_arm, name, spec.search_space(), spec.complete(values)))
        for name, values in spec.configurations.items()
    )


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
        problems += list_tuning_problems(spec, arm)
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
    return list(dict.fromkeys(problems))


def _list_epoch_problems(spec: StudySpec, arms: Sequence[Arm]) -> list[str]:
    if not spec.search.asha.enabled or spec.has_given_arms:
        return []
    if any(len(arm.space.values_of("max_epochs")) > 1 for arm in arms):
        return [
            "ASHA compares the trials of an arm after equal numbers of epochs, so max_epochs cannot vary within an arm; "
            "make it search.factor, or set search.asha.enabled = false"
        ]
    last, first = min((spec.max_epochs(arm), spec.first_rung(arm)) for arm in arms)
    if first > last:
        return [f"search.asha.first_rung must lie in 1..max_epochs ({last}), but got {first}"]
    return []


def _list_gpu_problems(spec: StudySpec) -> list[str]:
    """Return a message for each setting of GPUs that an arm has whose trials run on a CPU."""
    gpu, device = spec.resources.gpu, spec.resources.device
    problems = []
    for name, value in FOR_GPUS.items():
        on_cpu = []
        for arm in spec.arms():
            held = gpu.get(arm.name, 0.0) if isinstance(gpu, dict) else gpu
            is_cpu = device == "cpu" or (device == "auto" and held == 0)
            if is_cpu and dict(arm.space.fixed).get(name, getattr(spec.train, name)) is value:
                on_cpu.append(arm.name)
        if on_cpu:
            problems.append(
                f"train.{name} = {str(value).lower()} needs a GPU, but trials of {', '.join(on_cpu)} run on a CPU; set "
                f"resources.gpu, or {name} to {str(not value).lower()}"
            )
    return problems


def _list_interval_problems(spec: StudySpec) -> list[str]:
    """Return a message if the intervals of [confirm] need more seeds, or other rows."""
    if spec.confirm.intervals == "planned" or not (rows := spec.contrasts()):
        return []
    # Imported here, because they need SciPy.
    from analysis.statistics.anytime import compute_fewest_seeds
    from analysis.statistics.shared_variance import MIN_ROWS

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
    cost = spec.search.epoch_cost
    if cost is None:
        return problems
    if spec.search.device_seconds is not None:
        problems.append("search.epoch_cost is for a budget of search.num_trials, because device-seconds are measured")
    problems += _list_unknown_arms("search.epoch_cost", cost, arms)
    missing = [arm for arm in arms if arm not in cost]
    if missing:
        problems.append(f"search.epoch_cost must name every arm, but lacks {', '.join(missing)}")
    return problems


def _list_process_problems(spec: StudySpec, arms: Sequence[Arm]) -> list[str]:
    """Return a message for each arm whose trials hold fewer devices than they have processes, or more GPUs than they use."""
    problems, excess = [], []
    for arm in arms:
        processes = max(spec.processes(arm))
        cpu, gpu = (spec.resources.of_arm(kind, arm.name) for kind in ("cpu", "gpu"))
        on_gpu = gpu > 0 and spec.resources.device != "cpu"
        kind, has = ("gpu", gpu) if on_gpu else ("cpu", cpu)
        if processes > 1 and has < processes:
            problems.append(
                f"train.processes = {processes} of the arm {arm.name!r} needs as many {kind.upper()}s, but resources.{kind} is "
                f"{has:g}; raise it, or lower train.processes"
            )
        if gpu > processes:
            excess.append(f"{gpu:g} for the arm {arm.name!r}")
    if excess:
        problems.append(
            "a trial uses one GPU or a fraction of one, or as many as train.processes, so 0 <= resources.gpu <= 1 must hold with "
            f"one process, but got {', '.join(excess)}"
        )
    return problems


def _list_unknown_arms(option: str, given: Iterable[str], arms: Sequence[str]) -> list[str]:
    return [f"{option} names the arm {arm!r}{nearest_name(arm, arms)}" for arm in given if arm not in arms]

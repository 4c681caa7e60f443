"""What a search knows before it starts: the configurations that each arm tries first, and the priors of its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from search_spaces.config import Value
from search_spaces.designs import Arm
from search_spaces.errors import attempt, nearest_name
from search_spaces.portfolios import PORTFOLIOS, Start, fit_recipe
from search_spaces.settings import BUILT_IN_LOOP
from search_spaces.space import CategoricalParameter, FloatParameter, SearchSpace
from study.spec.sections import PriorSpec
from study.spec.setting_places import SETTINGS
from study.spec.study_spec import StudySpec

# Key of a start that says where it comes from.
SOURCE = "source"
UNNAMED = "search.start"
# Backbones that are searched together, beyond which recipes are tried with the first one alone.
MOST_BACKBONES = 4


def list_starts(spec: StudySpec, arm: Arm) -> tuple[Start, ...]:
    """Return the configurations that an arm tries first: those of the spec, else the portfolio of its optimizer.

    The portfolio is for arms that fine-tune all layers of pretrained networks; equal configurations are tried once, and so are
    recipes that differ in values alone that were moved into the ranges. Where the
    backbone is searched among a few, each recipe is tried with each of them.
    """
    if spec.has_given_arms:
        return ()
    if spec.search.start is not None:
        return tuple(
            Start(source=str(entry.get(SOURCE, f"{UNNAMED} {number}")), hyperparameters=_check_entry(entry, arm))
            for number, entry in enumerate(spec.search.start, start=1)
            if _is_for(entry, arm)
        )
    optimizers = arm.space.values_of("optimizer") or (spec.train.optimizer,)
    if not _takes_portfolio(spec, arm) or len(optimizers) > 1:
        return ()
    defaults = {
        name: spec.constant_value(name) for name in arm.space.names if name in SETTINGS and SETTINGS[name].section
    }
    fitted = [
        fit_recipe(recipe, space, defaults)
        for recipe in PORTFOLIOS[str(optimizers[0])]
        for space in _split_by_backbone(arm.space)
    ]
    return _leave_out_repeated(fitted)


def _leave_out_repeated(fitted: Sequence[Start]) -> tuple[Start, ...]:
    kept: list[Start] = []
    for recipe in fitted:
        place = next((place for place, earlier in enumerate(kept) if recipe.repeats(earlier)), None)
        if place is None:
            kept.append(recipe)
        else:
            text = f"{recipe.source} ({', '.join(recipe.moved)})" if recipe.moved else recipe.source
            kept[place] = replace(kept[place], repeated_by=(*kept[place].repeated_by, text))
    return tuple(kept)


def describe_starts(spec: StudySpec) -> tuple[str, ...]:
    """Return a sentence for each published recipe that the arms try first, with what was moved, and what was left out for it."""
    found: dict[str, dict[str, list[str]]] = {}
    for arm in spec.arms():
        published = [start for start in list_starts(spec, arm) if not start.source.startswith(UNNAMED)]
        for start in published:
            found.setdefault(start.source, {}).setdefault(start.changes, []).append(arm.name)
    return tuple(
        f"{', '.join(dict.fromkeys(arms))}: {source}{changes}"
        for source, by_change in found.items()
        for changes, arms in by_change.items()
    )


def resolve_search(spec: StudySpec) -> StudySpec:
    """Return the spec with the starts of the portfolio, and the number of weights that are kept, as it would give them itself."""
    if spec.has_given_arms:
        return spec
    starts: list[dict[str, Value]] = spec.search.start or []
    if spec.search.start is None:
        found = [start for arm in spec.arms() for start in list_starts(spec, arm)]
        starts = [{SOURCE: f"{start.source}{start.changes}", **start.hyperparameters} for start in found]
    kept = "all" if spec.num_kept_weights is None else spec.num_kept_weights
    search = spec.search.model_copy(update={"start": starts, "keep_weights": kept})
    return spec.model_copy(update={"search": search})


def describe_knowledge(spec: StudySpec) -> tuple[str, ...]:
    """Return what the search knows before it starts as sentences: its first configurations and its priors."""
    sentences = [f"The search started with {text}." for text in describe_starts(spec)]
    if num_own := sum(SOURCE not in entry for entry in spec.search.start or ()):
        sentences.append(f"The search started with the {num_own} configurations of search.start.")
    sentences += [
        f"At first, {name} came from a prior (center {prior.center:g}, width {prior.width:g}); later ever more rarely."
        for name, prior in spec.search.prior.items()
    ]
    return tuple(sentences)


def list_start_problems(spec: StudySpec, arms: Sequence[Arm]) -> list[str]:
    """Return a message for everything that is wrong with `search.start` and `search.prior`."""
    problems = []
    for number, entry in enumerate(spec.search.start or (), start=1):
        wanted = [arm for arm in arms if _is_for(entry, arm)]
        found = [] if wanted else [_describe_no_arm(entry, arms)]
        for arm in wanted:
            attempt(found, _check_entry, entry, arm)
        problems += [f"search.start {number}: {problem}" for problem in dict.fromkeys(found)]
    for name, prior in spec.search.prior.items():
        problems += [f"search.prior.{name}: {text}" for text in _list_prior_problems(name, prior, arms)]
    return problems


def _takes_portfolio(spec: StudySpec, arm: Arm) -> bool:
    frozen = spec.values_of(arm, "tuning") != ("full",) or spec.values_of(arm, "freeze_depth") != (0,)
    is_network = spec.trainables_of(arm) == (BUILT_IN_LOOP,)
    return is_network and spec.model.weights != "none" and not frozen and "max_lr" in arm.space.names


def _split_by_backbone(space: SearchSpace) -> tuple[SearchSpace, ...]:
    """Return the space once for each backbone that is searched; as it is for one, or for more than `MOST_BACKBONES`."""
    choices = space.values_of("backbone") if "backbone" in space.names else ()
    if not 1 < len(choices) <= MOST_BACKBONES:
        return (space,)
    return tuple(space.with_fixed({"backbone": choice}) for choice in choices)


def _is_for(entry: Mapping[str, Value], arm: Arm) -> bool:
    """Return whether the arm has the levels that an entry names: values that are fixed in the arm and in no other way."""
    fixed = dict(arm.space.fixed)
    return all(fixed[name] == value for name, value in entry.items() if name in fixed)


def _check_entry(entry: Mapping[str, Value], arm: Arm) -> dict[str, Value]:
    """Return an entry as a configuration of an arm; raise UserInputError if the search does not have it."""
    # Of names, the search has the choices alone.
    parameters = [
        replace(p, entry_points="") if isinstance(p, CategoricalParameter) else p for p in arm.space.parameters
    ]
    values = {name: value for name, value in entry.items() if name != SOURCE}
    return replace(arm.space, parameters=tuple(parameters)).check(values)


def _describe_no_arm(entry: Mapping[str, Value], arms: Sequence[Arm]) -> str:
    levels = {name: {dict(arm.space.fixed).get(name) for arm in arms} for name in entry}
    other = [
        f"{name} = {entry[name]!r}"
        for name, values in levels.items()
        if None not in values and entry[name] not in values
    ]
    return f"no arm of the search has {' and '.join(other) or 'these values'}"


def _list_prior_problems(name: str, prior: PriorSpec, arms: Sequence[Arm]) -> list[str]:
    parameters = [arm.space[name] for arm in arms if name in arm.space.names]
    if not parameters:
        known = sorted({parameter for arm in arms for parameter in arm.space.names})
        return [f"the search has no parameter {name!r}{nearest_name(name, known)}"]
    problems = []
    for parameter in parameters:
        if isinstance(parameter, CategoricalParameter):
            problems.append("a prior is for a number; try choices first with search.start")
            continue
        if not parameter.low <= prior.center <= parameter.high:
            problems.append(f"{parameter.low:g} <= center <= {parameter.high:g} must hold, but got {prior.center:g}")
        if isinstance(parameter, FloatParameter) and parameter.log and prior.width <= 1:
            problems.append(
                f"the width of a logarithmic range is a factor, so width > 1 must hold, but got {prior.width:g}"
            )
    return list(dict.fromkeys(problems))

"""What a spec names beyond the product: the source of the images, the sampler, backbones and training loops."""

from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.errors import attempt, refuse_any
from search_spaces.extensions import BACKBONE_ENTRY_POINTS, describe_refusal, find_package, is_code, load_function
from search_spaces.settings import BUILT_IN_LOOP
from study.spec.sections import SAMPLER_ENTRY_POINTS, SAMPLERS
from study.spec.study_spec import StudySpec
from trainables.data.sources import ENTRY_POINTS, SOURCES
from trainables.training.trainable import TRAINABLE_ENTRY_POINTS, find_trainable

# Entry points by the key that names one, and by the setting that does, wherever in `SECTIONS` it stands.
GROUPS = {"data.source": ENTRY_POINTS, "search.sampler": SAMPLER_ENTRY_POINTS}
SETTINGS = {"backbone": BACKBONE_ENTRY_POINTS, "trainable": TRAINABLE_ENTRY_POINTS}
SECTIONS = ("train", "search", "configurations", "design")


def list_named(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the key, the text and the group of entry points of each text in a spec's values that may name an extension."""
    for key, text in _list_texts(data):
        section, *settings = key.split(".")
        groups = [SETTINGS[setting] for setting in settings if setting in SETTINGS and section in SECTIONS]
        if group := GROUPS.get(key) or next(iter(groups), ""):
            yield key, text, group


def list_refusals(data: Mapping[str, Any]) -> list[str]:
    """Return a message for each name of code that may not be imported: it is not trusted, or not of the working folder.

    Args:
        data: The values of a spec, valid or not. Nothing is imported.
    """
    code = {name: (key, group) for key, name, group in list_named(data) if is_code(name, group)}
    return [f"{key}: {why}" for name, (key, group) in code.items() if (why := describe_refusal(name, group))]


def check_trust(spec: StudySpec) -> None:
    """Raise UserInputError, with everything that `list_refusals` finds, if a study names code that may not be imported."""
    refuse_any(list_refusals(spec.model_dump()), f"the study {spec.name!r} names code that may not run:")


def list_packages(spec: StudySpec) -> tuple[str, ...]:
    """Return the installed packages that the spec's backbones, source, sampler and training loops come from, such as timm."""
    return tuple(sorted({find_package(name, group) for _, name, group in list_named(spec.model_dump())} - {""}))


def list_import_problems(spec: StudySpec) -> list[str]:
    """Return a message for each function or custom training loop that cannot be imported here.

    Not in `study.spec.checks.list_problems`: a study can be read where its functions are not installed.
    """
    loops = {name for arm in spec.arms() for name in spec.trainables_of(arm)} - {BUILT_IN_LOOP}
    problems: list[str] = []
    for name in sorted(loops):
        attempt(problems, find_trainable, name, prefix="train.trainable: ")
    if (source := spec.data.source) not in SOURCES:
        attempt(problems, load_function, source, ENTRY_POINTS, "the function", prefix="data.source: ")
    if (sampler := spec.search.sampler) not in SAMPLERS:
        attempt(problems, load_function, sampler, SAMPLER_ENTRY_POINTS, "the function", prefix="search.sampler: ")
    return problems


def _list_texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key and the value of every text in the values of a spec."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _list_texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _list_texts(inner, key)
    elif isinstance(value, str):
        yield key, value

"""What a spec names of other packages or one's own: backbones, the source of the images, the sampler and training loops."""

from search_spaces.config import BUILT_IN_LOOP
from search_spaces.errors import UserInputError
from search_spaces.extensions import find_package, import_function, list_entry_points
from study.spec.sections import SAMPLER_ENTRY_POINTS, SAMPLERS
from study.spec.study_spec import StudySpec
from trainables.data.sources import ENTRY_POINTS as SOURCE_ENTRY_POINTS
from trainables.data.sources import SOURCES
from trainables.models.catalog import ENTRY_POINTS as BACKBONE_ENTRY_POINTS
from trainables.training.trainable import find_trainable


def list_import_problems(spec: StudySpec) -> list[str]:
    """Return a message for each function or training loop of one's own that cannot be imported here.

    Not in `study.spec.checks.list_problems`: a study can be read where its functions are not installed.
    """
    problems = []
    for key, name, shipped, group in (
        ("data.source", spec.data.source, SOURCES, SOURCE_ENTRY_POINTS),
        ("search.sampler", spec.search.sampler, SAMPLERS, SAMPLER_ENTRY_POINTS),
    ):
        if name in shipped:
            continue
        try:
            import_function(name, list_entry_points(group).get(name, name), "the function")
        except UserInputError as error:
            problems.append(f"{key}: {error}")
    for name in _list_own_loops(spec):
        try:
            find_trainable(name)
        except UserInputError as error:
            problems.append(f"train.trainable: {error}")
    return problems


def list_packages(spec: StudySpec) -> tuple[str, ...]:
    """Return the installed packages that the spec's backbones, source, sampler and training loops come from, such as timm."""
    backbones = {str(level) for arm in spec.arms() for level in arm.space.values_of("backbone")}
    named = [(name, BACKBONE_ENTRY_POINTS) for name in backbones]
    named += [(name, "") for name in _list_own_loops(spec)]
    named += [(spec.data.source, SOURCE_ENTRY_POINTS), (spec.search.sampler, SAMPLER_ENTRY_POINTS)]
    return tuple(sorted({find_package(name, group) for name, group in named} - {""}))


def _list_own_loops(spec: StudySpec) -> list[str]:
    return sorted({name for arm in spec.arms() for name in spec.trainables_of(arm)} - {BUILT_IN_LOOP})

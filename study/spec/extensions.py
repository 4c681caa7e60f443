"""What a spec names of one's own: the source of the images, the sampler and training loops."""

from search_spaces.config import BUILT_IN_LOOP
from search_spaces.errors import UserInputError
from search_spaces.extensions import import_function, list_entry_points
from study.spec.sections import SAMPLER_ENTRY_POINTS, SAMPLERS
from study.spec.study_spec import StudySpec
from trainables.data.sources import ENTRY_POINTS, SOURCES
from trainables.training.trainable import find_trainable


def list_import_problems(spec: StudySpec) -> list[str]:
    """Return a message for each function or training loop of one's own that cannot be imported here.

    Not in `study.spec.checks.list_problems`: a study can be read where its functions are not installed.
    """
    problems = []
    for key, name, shipped, group in (
        ("data.source", spec.data.source, SOURCES, ENTRY_POINTS),
        ("search.sampler", spec.search.sampler, SAMPLERS, SAMPLER_ENTRY_POINTS),
    ):
        if name in shipped:
            continue
        try:
            import_function(name, list_entry_points(group).get(name, name), "the function")
        except UserInputError as error:
            problems.append(f"{key}: {error}")
    loops = {name for arm in spec.arms() for name in spec.trainables_of(arm)} - {BUILT_IN_LOOP}
    for name in sorted(loops):
        try:
            find_trainable(name)
        except UserInputError as error:
            problems.append(f"train.trainable: {error}")
    return problems

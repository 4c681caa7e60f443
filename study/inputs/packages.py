"""The installed packages that a spec names something of, whose versions belong to the passport."""

from search_spaces.config import BUILT_IN_LOOP
from search_spaces.extensions import find_package
from study.spec.sections import SAMPLER_ENTRY_POINTS
from study.spec.study_spec import StudySpec
from trainables.data.sources import ENTRY_POINTS as SOURCE_ENTRY_POINTS
from trainables.models.catalog import ENTRY_POINTS as BACKBONE_ENTRY_POINTS


def list_packages(spec: StudySpec) -> tuple[str, ...]:
    """Return the installed packages that the spec's backbones, source, sampler and training loops come from, such as timm."""
    named = [(spec.data.source, SOURCE_ENTRY_POINTS), (spec.search.sampler, SAMPLER_ENTRY_POINTS)]
    for arm in spec.arms():
        named += [(str(name), BACKBONE_ENTRY_POINTS) for name in arm.space.values_of("backbone")]
        named += [(name, "") for name in spec.trainables_of(arm) if name != BUILT_IN_LOOP]
    return tuple(sorted({find_package(name, group) for name, group in dict.fromkeys(named)} - {""}))

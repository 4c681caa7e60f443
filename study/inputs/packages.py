"""The installed packages that a spec names something of, whose versions belong to the passport."""

from search_spaces.extensions import find_package
from study.spec.extensions import list_named
from study.spec.study_spec import StudySpec


def list_packages(spec: StudySpec) -> tuple[str, ...]:
    """Return the installed packages that the spec's backbones, source, sampler and training loops come from, such as timm."""
    return tuple(sorted({find_package(name, group) for _, name, group in list_named(spec.model_dump())} - {""}))

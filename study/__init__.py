"""The life of a study: spec, search, confirmation, comparison, report, reproduction, command line.

From Python, `study.load(uri)` opens a study for reading.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.views.notebook import Study, load

__all__ = ["Study", "load"]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `study --help` does not wait for torch.
    if name in __all__:
        from study.views import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'study' has no attribute {name!r}")

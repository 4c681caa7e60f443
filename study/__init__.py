"""Studies: spec, search, confirmation, comparison, report, reproduction, and the command line `study`.

In Python, `study.load` opens a study for reading:

    >>> import study
    >>> demo = study.load("studies/demo")  # doctest: +SKIP
    >>> demo.records()  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.views.notebook import Study, load

__all__ = ["Study", "load"]


def __getattr__(name: str) -> Any:
    # Imported on first use, because the notebook module needs torch.
    if name in __all__:
        from study.views import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'study' has no attribute {name!r}")

"""The interventions by name: those of this package, and those that installed packages add as entry points."""

import re
from collections.abc import Mapping

from analysis.interventions.built_in import (
    BackgroundSwap,
    ColorJitter,
    CutMix,
    HardExamples,
    HeadBalanced,
    HeadGroups,
    HeadRingSwaps,
    LeaveOutDoubtful,
    OtherBackbone,
    OtherInterpolation,
    WeightedLoss,
)
from analysis.interventions.intervention import Intervention
from search_spaces.errors import UserInputError
from search_spaces.extensions import list_entry_points, load_object

ENTRY_POINTS = "abstudy.interventions"
CONTROL = "control"
BUILT_IN: tuple[type[Intervention], ...] = (
    HeadRingSwaps,
    HeadGroups,
    HeadBalanced,
    WeightedLoss,
    HardExamples,
    CutMix,
    OtherBackbone,
    OtherInterpolation,
    BackgroundSwap,
    ColorJitter,
    LeaveOutDoubtful,
)


def load_interventions() -> Mapping[str, Intervention]:
    """Return every intervention by its name, those of this package first.

    Raises:
        UserInputError: listing every entry point that cannot be used, with the reason.
    """
    found: dict[str, Intervention] = {made.name: made for made in (kind() for kind in BUILT_IN)}
    problems = []
    for entry, location in list_entry_points(ENTRY_POINTS).items():
        try:
            added = _load(load_object(entry, ENTRY_POINTS, "the intervention"))
        except Exception as error:  # The code of another package may raise anything.
            problems.append(f"{entry} = {location!r}: {error}")
            continue
        if added.name in found:
            problems.append(f"{entry} = {location!r}: there is an intervention {added.name!r} already")
        else:
            found[added.name] = added
    if problems:
        raise UserInputError(
            f"entry points of {ENTRY_POINTS} cannot be used; fix or uninstall their packages: {'; '.join(problems)}"
        )
    return found


def _load(kind: object) -> Intervention:
    if not (isinstance(kind, type) and issubclass(kind, Intervention)):
        raise TypeError(f"it is no subclass of {Intervention.__module__}.{Intervention.__qualname__}")
    made = kind()
    name, title = getattr(made, "name", ""), getattr(made, "title", "")
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name)) or name == CONTROL:
        raise TypeError(f"its name must consist of letters, digits and '_' and not be {CONTROL!r}, but is {name!r}")
    if not (isinstance(title, str) and title):
        raise TypeError("it has no title")
    return made

"""Contrasts of groups of classes, such as rigid and deformable objects, with classes as the unit."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.findings.class_findings import ClassScore, GroupContrast
from search_spaces.errors import UserInputError, nearest_name

# The exact test is left out where the classes can be divided in more ways than this.
MAX_DIVISIONS = 2_000_000


def compute_group_contrasts(
    scores: Sequence[ClassScore], groups: Mapping[str, Sequence[str]]
) -> tuple[GroupContrast, ...]:
    """Return, for each pair of groups, the difference of their mean F1 with an exact permutation test over the classes.

    The units are the classes, regardless of the number of images: the test enumerates every division of the two groups' classes
    into groups of the same sizes (Fisher's exact permutation test, two-sided).

    Args:
        scores: one per class.
        groups: names of classes by the name of their group. Two that share classes have no contrast; the group of an
            intervention and one of the study may.

    Raises:
        UserInputError: for a group with an unknown class.
    """
    f1 = {score.class_name: score.f1.estimate for score in scores}
    problems = list_unknown_classes(groups, tuple(f1))
    if problems:
        raise UserInputError("; ".join(problems))
    found = []
    for one, other in itertools.combinations(groups, 2):
        if set(groups[one]) & set(groups[other]):
            continue
        contrast = _compare(one, other, [f1[c] for c in groups[one]], [f1[c] for c in groups[other]])
        if contrast is not None:
            found.append(contrast)
    return tuple(found)


def list_unknown_classes(groups: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> list[str]:
    """Return which groups of classes name classes that do not exist."""
    return [
        f"the group {group!r} names the class {name!r}{nearest_name(name, class_names)}"
        for group, classes in groups.items()
        for name in classes
        if name not in class_names
    ]


def list_group_problems(groups: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> list[str]:
    """Return what is wrong with groups of classes: classes that do not exist, and classes in two groups."""
    problems = list_unknown_classes(groups, class_names)
    for one, other in itertools.combinations(groups, 2):
        both = set(groups[one]) & set(groups[other])
        if both:
            problems.append(f"the groups {one!r} and {other!r} must not share classes, but both have {min(both)!r}")
    return problems


def _compare(one: str, other: str, first: list[float], second: list[float]) -> GroupContrast | None:
    values = np.array(first + second)
    total, size = len(values), len(first)
    if not first or not second or math.comb(total, size) > MAX_DIVISIONS:
        return None
    chosen = np.array(list(itertools.combinations(range(total), size)))
    means = values[chosen].mean(axis=1)
    differences = means - (values.sum() - means * size) / (total - size)
    observed = float(differences[0])
    # A rounding error must not make a division look less extreme than itself.
    p_value = float(np.mean(np.abs(differences) >= abs(observed) - 1e-12))
    return GroupContrast(
        groups=(one, other),
        difference=observed,
        p_value=p_value,
        smallest_p=1 / len(chosen) if size * 2 != total else 2 / len(chosen),
        num_classes=total,
    )

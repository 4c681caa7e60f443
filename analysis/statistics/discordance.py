"""The images on which two sides differ: how many there are, and how far one of them moves the difference in macro-F1.

Where few images differ, the variance between images is an estimate from these few, and zero where none does. Two rules guard
against that: the variance has pseudo-observations (`variances.guard_image_variance`), and EQUIVALENT needs `MIN_DISCORDANT`.
"""

from typing import NamedTuple

import numpy as np

from analysis.statistics.arm_predictions import Side
from analysis.statistics.variances import Guard

# With fewer, equality is not tested. In simulated rows of one seed and 300 to 20,000 images whose arms differ by the margin,
# EQUIVALENT was wrong in up to 10 % without this rule where all discordant images favor one arm, in 4 % with 3 images, and never
# with 5. Where a quarter of them favor the other arm, it is at most 3.0 %, whatever the number (margin .5 pp, 400,000 rows).
MIN_DISCORDANT = 5


class Discordance(NamedTuple):
    """How two sides differ image by image.

    Attributes:
        number: images whose predictions differ between any two arms with any seed; of groups, those with such an image.
        guard: how far such an image, or group, moves the difference in macro-F1.
        units: what is counted, in words: "40 test images".
    """

    number: int
    guard: Guard
    units: str


def measure_discordance(treatment: Side, control: Side) -> Discordance:
    """Return how many images differ between two paired sides, and how far one of them moves the difference.

    An image of class c moves macro-F1 by about 1 / (K n_c), where n_c of the images have this class. The size is Kish's effective
    number of images (1965, Survey Sampling, section 11.2) with these weights, K^2 / sum of 1 / n_c: N for equal classes. Pseudo-
    observations as large as an image of the smallest class would widen every interval, those as small as an average image would
    guard against nothing in a class of few images. A group counts as the share of its images that differ, as the root mean
    square over the groups with such an image, and as all of its images where there is none.

    Args:
        treatment: one side.
        control: the other, with the same images; of different numbers of seeds, as many as both have are compared.
    """
    num_seeds = min(len(side.seeds) for side in (treatment, control))
    first, *others = (member.predicted[:num_seeds] for side in (treatment, control) for member in side.members)
    differs = np.any([(other != first).any(axis=0) for other in others], axis=0)
    class_sizes, scale = np.bincount(treatment.labels), treatment.scale
    size = treatment.num_classes**2 / float((1 / class_sizes[class_sizes > 0]).sum())
    if treatment.groups is None:
        return Discordance(int(differs.sum()), Guard(size, scale), f"{len(differs):,} test images")
    groups = np.unique(treatment.groups, return_inverse=True)[1]
    shares = np.bincount(groups, weights=differs) / np.bincount(groups)
    found = shares[shares > 0]
    reach = scale * float(np.sqrt(np.mean(found**2))) if len(found) else scale
    guard = Guard(size * len(shares) / len(groups), reach)
    return Discordance(len(found), guard, f"{len(shares):,} groups of test images")


def describe_few_discordant(found: Discordance, estimate: float, margin: float) -> str:
    """Return why an UNDECIDED row with such an estimate cannot be EQUIVALENT; "" where enough images differ."""
    if found.number >= MIN_DISCORDANT or 2 * abs(estimate) >= margin:
        return ""
    return (
        f"the predictions differ on only {found.number} of the {found.units}, and EQUIVALENT needs {MIN_DISCORDANT}; "
        "more test images are needed"
    )

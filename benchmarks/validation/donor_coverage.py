"""Whether the intervals of a class's ring gap cover its truth on photographs, by the number of donors of each image.

Networks are fine-tuned on some photographs; others are the population, whose gaps are the truth. Small samples of it are audited.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from analysis.shortcuts.ring_audit import measure_narrowest_gaps
from analysis.shortcuts.swaps import AuditImages, Classify, SwapEffects, bound_classes, make_classifier
from analysis.shortcuts.values import NUM_DONORS
from benchmarks.validation.planted_models import FIRST_WORLD
from benchmarks.validation.planted_photographs import (
    PhotographWorld,
    Planted,
    load_photographs,
    read_logits,
    train_networks,
)
from trainables.seeds import numpy_generator

DONORS = (1, 2, 4, NUM_DONORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageWorld:
    """Samples of photographs in which nothing was planted.

    Attributes:
        data: folder of the sets and the weights.
        photographs: set.
        num_population: photographs whose gaps are the truth.
        num_samples, num_images: samples, and images of each.
        num_models: S.
    """

    data: Path
    photographs: str = "cifar10"
    num_population: int = 5000
    num_samples: int = 60
    num_images: int = 400
    num_models: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DonorCoverage:
    """Intervals of the classes of all samples, at 95 % each, for these models.

    Attributes:
        num_donors: of each kind.
        num_intervals, num_covered: of all samples, and those that hold the gap of the population.
        half_width: their mean.
        seconds: of an audit.
    """

    num_donors: int
    num_intervals: int
    num_covered: int
    half_width: float
    seconds: float


def cover_gaps(world: CoverageWorld, seed: int) -> tuple[DonorCoverage, ...]:
    """Return the coverage with each of `DONORS`, of one fine-tuning."""
    seed += FIRST_WORLD
    planted = PhotographWorld(
        photographs=world.photographs, planted=Planted.NOTHING, data=world.data, num_models=world.num_models
    )
    data, population = load_photographs(planted, seed, world.num_population)
    classify = make_classifier(read_logits(train_networks(planted, data)))
    truth = _average(measure_narrowest_gaps(classify, population, seed=seed))
    generator = numpy_generator(seed, "samples of photographs")
    samples = [draw_sample(population, world.num_images, generator) for _ in range(world.num_samples)]
    return tuple(_measure_coverage(classify, samples, truth, num_donors) for num_donors in DONORS)


def draw_sample(population: AuditImages, number: int, generator: np.random.Generator) -> AuditImages:
    """Return images drawn with replacement, equally many of each class."""
    classes = np.unique(population.labels)
    own = [np.flatnonzero(population.labels == c) for c in classes]
    return population.take(np.concatenate([generator.choice(rows, number // len(classes)) for rows in own]))


def _measure_coverage(
    classify: Classify, samples: Sequence[AuditImages], truth: Mapping[str, float], num_donors: int
) -> DonorCoverage:
    started, hits, widths = time.perf_counter(), [], []
    for seed, sample in enumerate(samples):
        gaps = measure_narrowest_gaps(classify, sample, seed=seed, num_donors=num_donors)
        for name, gap in bound_classes(gaps, is_simultaneous=False).items():
            hits.append(gap.models.low <= truth[name] <= gap.models.high)
            widths.append(gap.models.high - gap.models.low)
    return DonorCoverage(
        num_donors=num_donors,
        num_intervals=len(hits),
        num_covered=sum(hits),
        half_width=fmean(widths) / 2,
        seconds=(time.perf_counter() - started) / len(samples),
    )


def _average(gaps: SwapEffects) -> dict[str, float]:
    return {gaps.class_names[c]: float(gaps.values[:, gaps.labels == c].mean()) for c in np.unique(gaps.labels)}

"""The semantic gap: which classes a frozen backbone cannot tell apart, and what smaller images lose."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.images.probe import (
    AREA_VARIANCE_FACTOR,
    CONFIDENCE,
    Probe,
    ProbeImages,
    compute_image_interval,
    compute_pair_auc,
    compute_probe_difference,
    fit_probe,
)
from analysis.images.values import PairLoss, PairSeparability, Rung
from analysis.statistics.metrics import compute_confusion_counts

LADDER = (8, 16, 24, 32, 64, 128, 256, 512)
# With more pairs of classes, those that the probe confuses most are compared.
MAX_PAIRS = 1000
NUM_LOST_PAIRS, NUM_WEAKEST_PAIRS = 3, 10


def list_sides(native: int, image_size: int) -> tuple[int, ...]:
    """Return the sides of the ladder, descending: the native one, and those of `LADDER` below it and below the model's input."""
    return (native, *(side for side in reversed(LADDER) if side < min(native, image_size)))


def choose_pairs(probe: Probe) -> tuple[tuple[int, int], ...]:
    """Return the pairs of the probe's classes that are compared: all, or the `MAX_PAIRS` most confused ones."""
    pairs = list(itertools.combinations(range(probe.images.num_classes), 2))
    if len(pairs) <= MAX_PAIRS:
        return tuple(pairs)
    rates = _confusion_rates(probe)
    order = np.argsort([-rates[pair] for pair in pairs], kind="stable")
    return tuple(pairs[i] for i in order[:MAX_PAIRS])


def rank_pairs(probe: Probe, pairs: Sequence[tuple[int, int]]) -> tuple[PairSeparability, ...]:
    """Return the separability of pairs of the probe's classes, the least separable first."""
    rates, classes = _confusion_rates(probe), probe.images.classes
    found = []
    for first, second in pairs:
        area, influence = compute_pair_auc(probe, first, second)
        interval = compute_image_interval(area, influence, probe.images, low=0.0, variance_factor=AREA_VARIANCE_FACTOR)
        found.append(
            PairSeparability(
                first=int(classes[first]),
                second=int(classes[second]),
                area=interval,
                confusion_rate=float(rates[first, second]),
            )
        )
    return tuple(sorted(found, key=lambda p: p.area.estimate))


def climb_down(
    compute: Callable[[int], NDArray[np.floating]], images: ProbeImages, sides: Sequence[int]
) -> tuple[Rung, ...]:
    """Return the rungs of the ladder: a probe at each side, on the same images and folds, and what each step loses.

    Args:
        compute: returns (N, D) features of the probe's images at a side.
        images: of all probes.
        sides: descending.
    """
    rungs: list[Rung] = []
    larger: Probe | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    for side in sides:
        probe = fit_probe(compute(side), images)
        pairs = pairs or choose_pairs(probe)
        rungs.append(
            Rung(
                side=side,
                macro_f1=probe.macro_f1,
                loss=None if larger is None else compute_probe_difference(larger, probe),
                weakest=rank_pairs(probe, pairs)[:NUM_WEAKEST_PAIRS],
                lost_pairs=() if larger is None else _find_lost_pairs(larger, probe, pairs),
            )
        )
        larger = probe
    return tuple(rungs)


def _find_lost_pairs(larger: Probe, smaller: Probe, pairs: Sequence[tuple[int, int]]) -> tuple[PairLoss, ...]:
    classes = larger.images.classes
    confidence = 1 - (1 - CONFIDENCE) / len(pairs)
    found = []
    for first, second in pairs:
        before, before_influence = compute_pair_auc(larger, first, second)
        after, after_influence = compute_pair_auc(smaller, first, second)
        influence = before_influence - after_influence
        loss = compute_image_interval(
            before - after, influence, larger.images, confidence=confidence, variance_factor=AREA_VARIANCE_FACTOR
        )
        found.append(PairLoss(first=int(classes[first]), second=int(classes[second]), loss=loss))
    return tuple(sorted(found, key=lambda p: -p.loss.estimate)[:NUM_LOST_PAIRS])


def _confusion_rates(probe: Probe) -> NDArray[np.float64]:
    """Return (K, K), symmetric: the share of two classes' images that are predicted as the other one."""
    counts = compute_confusion_counts(probe.images.labels, probe.predicted, probe.images.num_classes)
    sizes = counts.sum(axis=1)
    return np.asarray((counts + counts.T) / (sizes[:, None] + sizes[None]), dtype=np.float64)

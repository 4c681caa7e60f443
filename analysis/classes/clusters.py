"""Clusters of confused classes: pairs that are confused significantly more often than by chance, and stable groups of them.

The null distribution keeps the number of seeds that are wrong on each image, and how often each class is wrongly predicted. It
permutes the wrong labels over the images, never onto an image of the label's own class. The unit is the image: the wrong labels
of all seeds on an image move together. The statistic of a pair is standardized, and p-values are adjusted over all pairs (max-T:
Westfall and Young 1993, Resampling-Based Multiple Testing). The permutations come from a Markov chain, started such that the
test is exact (Besag and Clifford 1989, Biometrika 76:633).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from analysis.classes.confusion_matrix import check_class_names
from analysis.classes.pair_rates import compute_pair_rates
from analysis.findings.class_findings import ConfusedPair, ConfusionCluster
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import FloatArray, IntArray, divide_or_zero
from trainables.seeds import numpy_generator

NUM_PERMUTATIONS = 1000
NUM_SWEEPS = 40
NUM_BOOTSTRAPS = 400
NUM_FIT_ROUNDS = 50
ALPHA = 0.05
# Classes form a group while at least half of the pairs between them are significant.
LINKAGE_CUT = 0.5
STABILITY = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTest:
    """The test of all pairs of classes.

    Attributes:
        observed: (K, K) symmetric: wrong labels between the two classes, summed over seeds.
        expected: (K, K) mean of the null distribution.
        deviation: (K, K) standard deviation of the null distribution.
        z: (K, K) (observed - expected) / deviation; -inf where the deviation is 0.
        p_adjusted: (K, K) p-values, adjusted over all pairs; 1 on the diagonal.
        critical: z above which a pair is significant at `ALPHA` over all pairs.
    """

    observed: FloatArray
    expected: FloatArray
    deviation: FloatArray
    z: FloatArray
    p_adjusted: FloatArray
    critical: float


def find_clusters(
    arm: ArmPredictions, class_names: Sequence[str]
) -> tuple[tuple[ConfusedPair, ...], tuple[ConfusionCluster, ...]]:
    """Return the significant pairs, the strongest first, and the clusters that are stable in 95 % of bootstraps over images.

    The test is stepwise: the strongest pair is tested, then set aside with its images, and the rest is tested again. Otherwise
    a strong pair would bias the other pairs: because the margins are fixed, its errors are missing from their null distribution.

    Args:
        arm: S seeds over N images.
        class_names: K names; a class indexes them.

    Raises:
        UserInputError: for names that do not fit.
    """
    check_class_names(arm, class_names)
    generator = numpy_generator(0, "clusters", arm.name)
    first = test = compute_pair_test(arm, generator)
    related = np.zeros(test.z.shape, dtype=bool)
    found: list[tuple[int, int]] = []
    expected: list[float] = []
    p_values: list[float] = []
    while True:
        i, j = (int(c) for c in np.unravel_index(np.argmax(test.z), test.z.shape))
        if test.p_adjusted[i, j] > ALPHA:
            break
        found.append((min(i, j), max(i, j)))
        expected.append(float(test.expected[i, j] / (len(arm.seeds) * np.isin(arm.labels, (i, j)).sum())))
        p_values.append(max([float(test.p_adjusted[i, j]), *p_values]))
        related[i, j] = related[j, i] = True
        test = compute_pair_test(arm, generator, set_aside=related)
    pairs = tuple(
        ConfusedPair(
            classes=(class_names[i], class_names[j]), rate=rate, expected_rate=by_chance, p_adjusted=p_adjusted
        )
        for (i, j), rate, by_chance, p_adjusted in zip(
            found, compute_pair_rates(arm, found, 1 - ALPHA), expected, p_values, strict=True
        )
    )
    return pairs, _find_cores(arm, class_names, related, first, generator) if pairs else ()


def compute_pair_test(
    arm: ArmPredictions,
    generator: np.random.Generator,
    num_permutations: int = NUM_PERMUTATIONS,
    set_aside: NDArray[np.bool_] | None = None,
) -> PairTest:
    """Return the permutation test of all pairs of an arm's classes.

    Args:
        arm: S seeds over N images.
        generator: of the permutations.
        num_permutations: B.
        set_aside: (K, K) symmetric, True for pairs that are not tested: images with such a confusion keep their predictions,
            and no permutation produces one. None tests all pairs.
    """
    k = arm.num_classes
    aside = np.zeros((k, k), dtype=bool) if set_aside is None else set_aside
    observed, permuted = np.zeros((k, k)), np.zeros((num_permutations, k, k))
    wrong = arm.predicted != arm.labels
    num_wrong = np.where(aside[arm.labels[None], arm.predicted].any(axis=0), 0, wrong.sum(axis=0))
    for number in range(1, len(arm.seeds) + 1):
        images = np.flatnonzero(num_wrong == number)
        if not len(images):
            continue
        # (n, number): the wrong labels of each image, in the order of the seeds.
        profiles = arm.predicted[:, images].T[wrong[:, images].T].reshape(len(images), number)
        labels = arm.labels[images]
        # (K, n): which profiles must not move to an image of which class.
        forbidden = np.any((np.eye(k, dtype=bool) | aside)[:, profiles], axis=2)
        observed += _count(labels, profiles[None], k)[0]
        permuted += _count(labels, profiles[_permute(labels, forbidden, generator, num_permutations)], k)
    return _test(_symmetric(observed), _symmetric(permuted))


def _permute(
    labels: IntArray, forbidden: NDArray[np.bool_], generator: np.random.Generator, num_permutations: int
) -> NDArray[np.int32]:
    """Return (B, n), the index of the profile at each image after random exchanges.

    From the observed state, `NUM_SWEEPS` sweeps lead back to a hub; from the hub, as many sweeps lead forward, independently B
    times, along the same pairings. Given the pairings, the observed state and the B others are exchangeable.
    """
    n = len(labels)
    half = n // 2
    pairings = [generator.permutation(n) for _ in range(NUM_SWEEPS)]
    # The B permutations of an image are contiguous, so that whole rows are read and written.
    state = np.arange(n, dtype=np.int32)[:, None]
    for pairing in reversed(pairings):
        _sweep(state, pairing[:half], pairing[half : 2 * half], labels, forbidden, generator)
    state = np.repeat(state, num_permutations, axis=1)
    for pairing in pairings:
        _sweep(state, pairing[:half], pairing[half : 2 * half], labels, forbidden, generator)
    return state.T


def _sweep(
    state: NDArray[np.int32],
    one: IntArray,
    other: IntArray,
    labels: IntArray,
    forbidden: NDArray[np.bool_],
    generator: np.random.Generator,
) -> None:
    """Exchange the profiles in (n, B) at `one` and `other` with probability 1/2, unless one becomes its image's own class."""
    n = forbidden.shape[1]
    left, right = state[one], state[other]
    flat, starts = forbidden.ravel(), (labels * n).astype(np.int32)
    stays = flat.take(right + starts[one][:, None]) | flat.take(left + starts[other][:, None])
    stays |= generator.integers(0, 2, size=left.shape, dtype=np.uint8).view(np.bool_)
    state[one], state[other] = np.where(stays, left, right), np.where(stays, right, left)


def _count(labels: IntArray, profiles: IntArray, num_classes: int) -> FloatArray:
    """Return (B, K, K) counts, true class by wrong label, from labels (n,) and profiles (B, n, m)."""
    batch = np.arange(len(profiles))[:, None, None]
    cells = (batch * num_classes + labels[None, :, None]) * num_classes + profiles
    counts = np.bincount(cells.ravel(), minlength=len(profiles) * num_classes**2)
    return np.asarray(counts.reshape(len(profiles), num_classes, num_classes), dtype=np.float64)


def _symmetric(counts: FloatArray) -> FloatArray:
    return counts + np.swapaxes(counts, -1, -2)


def _test(observed: FloatArray, permuted: FloatArray) -> PairTest:
    every = np.concatenate([observed[None], permuted])
    expected, deviation = every.mean(axis=0), every.std(axis=0)
    safe = np.where(deviation > 0, deviation, 1.0)
    z = np.where(deviation > 0, (every - expected) / safe, -np.inf)
    upper = np.triu_indices(len(observed), 1)
    largest = z[:, *upper].max(axis=1)
    p_adjusted = np.ones_like(expected)
    exceeding = (largest[1:, None] >= z[0][upper][None]).sum(axis=0)
    p_adjusted[upper] = (1 + exceeding) / len(every)
    p_adjusted.T[upper] = p_adjusted[upper]
    # The observed state counts as one of the permutations, as in the p-values.
    rank = int(np.floor(ALPHA * len(every)))
    critical = float(np.sort(largest)[::-1][max(rank - 1, 0)])
    return PairTest(
        observed=observed, expected=expected, deviation=deviation, z=z[0], p_adjusted=p_adjusted, critical=critical
    )


def _find_cores(
    arm: ArmPredictions,
    class_names: Sequence[str],
    related: NDArray[np.bool_],
    test: PairTest,
    generator: np.random.Generator,
) -> tuple[ConfusionCluster, ...]:
    groups = _group(related)
    significant = _find_significant(_bootstrap_counts(arm, generator), test)
    together = np.mean([np.equal.outer(found, found) for found in map(_group, significant)], axis=0)
    cores = _group(together >= STABILITY, cut=0.0, method="complete")
    clusters = []
    for core in sorted(set(cores.tolist())):
        members = np.flatnonzero(cores == core)
        if len(members) < 2 or len(np.unique(groups[members])) > 1:
            continue
        stability = float(together[np.ix_(members, members)].min())
        clusters.append(ConfusionCluster(classes=tuple(class_names[int(i)] for i in members), stability=stability))
    return tuple(clusters)


def _group(
    related: NDArray[np.bool_], cut: float = LINKAGE_CUT, method: Literal["average", "complete"] = "average"
) -> IntArray:
    """Return (K,) group numbers; classes are linked while at most the share `cut` of their pairs is unrelated on average."""
    distance = 1.0 - related
    np.fill_diagonal(distance, 0.0)
    merges = linkage(squareform(distance), method)
    return np.asarray(fcluster(merges, cut + 1e-9, criterion="distance"), dtype=np.int64)


def _bootstrap_counts(arm: ArmPredictions, generator: np.random.Generator) -> FloatArray:
    """Return (B, K, K) counts of resampled images, drawn with replacement within each class, over all seeds."""
    k = arm.num_classes
    counts = np.zeros((NUM_BOOTSTRAPS, k, k))
    for label in range(k):
        images = np.flatnonzero(arm.labels == label)
        if len(images):
            votes = (arm.predicted[:, images, None] == np.arange(k)).sum(axis=0)
            weights = generator.multinomial(len(images), np.full(len(images), 1 / len(images)), size=NUM_BOOTSTRAPS)
            counts[:, label] = weights @ votes
    return counts


def _find_significant(counts: FloatArray, test: PairTest) -> NDArray[np.bool_]:
    """Return (B, K, K) whether each pair would be significant with these counts, stepwise as in `find_clusters`.

    Expected counts are those of quasi-independence with the same margins; deviation and critical z are those of `test`.
    """
    wrong = counts * (1 - np.eye(counts.shape[-1]))
    safe = np.where(test.deviation > 0, test.deviation, np.inf)
    found = np.zeros(counts.shape, dtype=bool)
    every = np.arange(len(counts))
    while True:
        rest = np.where(found, 0.0, wrong)
        z = np.where(found, -np.inf, _symmetric(rest - fit_quasi_independence(rest, found)) / safe)
        strongest = z.reshape(len(z), -1).argmax(axis=1)
        i, j = np.unravel_index(strongest, z.shape[1:])
        new = z[every, i, j] >= test.critical
        if not new.any():
            return found
        found[every[new], i[new], j[new]] = found[every[new], j[new], i[new]] = True


def fit_quasi_independence(wrong: FloatArray, structural_zeros: NDArray[np.bool_]) -> FloatArray:
    """Return expected counts under quasi-independence, by iterative proportional fitting.

    Args:
        wrong: (..., K, K) counts with a diagonal of 0, whose row and column sums are fitted.
        structural_zeros: (..., K, K) True at further cells that must be 0.
    """
    fitted = np.broadcast_to(1.0 - np.eye(wrong.shape[-1]), wrong.shape).copy()
    fitted[structural_zeros] = 0.0
    for _ in range(NUM_FIT_ROUNDS):
        for axis in (-1, -2):
            fitted *= divide_or_zero(wrong.sum(axis=axis, keepdims=True), fitted.sum(axis=axis, keepdims=True))
    return fitted

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

from analysis.confusions.class_scores import check_class_names
from analysis.confusions.rates import compute_pair_rates
from analysis.confusions.values import ConfusedPair, ConfusionCluster
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray, divide_or_zero
from trainables.seeds import numpy_generator

NUM_PERMUTATIONS = 1000
NUM_SWEEPS = 40
NUM_BOOTSTRAPS = 400
NUM_FIT_ROUNDS = 50
FIT_TOLERANCE = 1e-7
ALPHA = 0.05
# One step of the test sets aside one in so many pairs, and at least one.
PAIRS_PER_STEP = 500
BLOCK = 64
# Classes form a group while at least half of the pairs between them are significant.
LINKAGE_CUT = 0.5
STABILITY = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTest:
    """The test of all pairs of classes.

    Attributes:
        expected: (K, K) symmetric, mean of the null distribution: wrong labels between the two classes, summed over seeds.
        deviation: (K, K) standard deviation of the null distribution.
        z: (K, K) (observed number - expected) / deviation; -inf where the deviation is 0.
        p_adjusted: (K, K) p-values, adjusted over all pairs; 1 on the diagonal.
        critical: z above which a pair is significant at `ALPHA` over all pairs.
    """

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
    With 46 classes or more, a step sets aside up to 0.2 % of all pairs at once.

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
    found: dict[tuple[int, int], tuple[float, float]] = {}
    p_adjusted = 0.0
    while strongest := _find_strongest(test):
        for i, j in strongest:
            by_chance = float(test.expected[i, j] / (len(arm.seeds) * np.isin(arm.labels, (i, j)).sum()))
            p_adjusted = max(p_adjusted, float(test.p_adjusted[i, j]))
            found[i, j] = by_chance, p_adjusted
            related[i, j] = related[j, i] = True
        test = compute_pair_test(arm, generator, set_aside=related)
    rates = compute_pair_rates(arm, list(found), 1 - ALPHA)
    pairs = tuple(
        ConfusedPair(classes=(class_names[i], class_names[j]), rate=rate, expected_rate=by_chance, p_adjusted=p)
        for ((i, j), (by_chance, p)), rate in zip(found.items(), rates, strict=True)
    )
    return pairs, _find_cores(arm, class_names, related, first, generator) if pairs else ()


def _find_strongest(test: PairTest) -> list[tuple[int, int]]:
    """Return the significant pairs that one step sets aside, the strongest first."""
    upper = np.triu_indices(len(test.z), 1)
    order = np.argsort(-test.z[upper], kind="stable")[: _step_size(len(test.z))]
    found = [(int(upper[0][place]), int(upper[1][place])) for place in order]
    return [pair for pair in found if test.p_adjusted[pair] <= ALPHA]


def _step_size(num_classes: int) -> int:
    return max(num_classes * (num_classes - 1) // 2 // PAIRS_PER_STEP, 1)


def compute_pair_test(
    arm: ArmPredictions,
    generator: np.random.Generator,
    num_permutations: int = NUM_PERMUTATIONS,
    set_aside: BoolArray | None = None,
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
    pairs = _number_pairs(k)
    counts = np.zeros((1 + num_permutations, k * (k - 1) // 2))
    wrong = arm.predicted != arm.labels
    num_wrong = np.where(aside[arm.labels[None], arm.predicted].any(axis=0), 0, wrong.sum(axis=0))
    forbidden = _list_forbidden(np.eye(k, dtype=bool) | aside)
    for number in range(1, len(arm.seeds) + 1):
        images = np.flatnonzero(num_wrong == number)
        if not len(images):
            continue
        # (n, number): the wrong labels of each image, in the order of the seeds.
        profiles = arm.predicted[:, images].T[wrong[:, images].T].reshape(len(images), number)
        labels = arm.labels[images]
        states = _permute(profiles.astype(forbidden.dtype), forbidden[labels], generator, num_permutations)
        counts += _count(pairs[labels], np.concatenate([profiles.T[:, :, None], states], axis=2), counts.shape[1])
    return _test(counts, pairs)


def _number_pairs(num_classes: int) -> IntArray:
    """Return (K, K) symmetric numbers of the pairs of different classes, from 0; -1 on the diagonal."""
    pairs = np.full((num_classes, num_classes), -1, dtype=np.int64)
    upper = np.triu_indices(num_classes, 1)
    pairs[upper] = pairs.T[upper] = np.arange(len(upper[0]))
    return pairs


def _list_forbidden(forbidden: BoolArray) -> NDArray[np.integer]:
    """Return (K, m) the labels that must not move to an image of each class, from a (K, K) mask; rows repeat to fill up."""
    num_classes = len(forbidden)
    listed = np.tile(np.arange(num_classes)[:, None], (1, int(forbidden.sum(axis=1).max())))
    for label, row in enumerate(forbidden):
        listed[label, : row.sum()] = np.flatnonzero(row)
    return listed.astype(np.min_scalar_type(num_classes))


def _permute(
    profiles: NDArray[np.integer], forbidden: NDArray[np.integer], generator: np.random.Generator, num_permutations: int
) -> NDArray[np.integer]:
    """Return (m, n, B), the m wrong labels at each of n images after random exchanges, from (n, m) profiles.

    From the observed state, `NUM_SWEEPS` sweeps lead back to a hub; from the hub, as many sweeps lead forward, independently B
    times, along the same pairings. Given the pairings, the observed state and the B others are exchangeable.
    """
    n = len(profiles)
    half = n // 2
    pairings = [generator.permutation(n) for _ in range(NUM_SWEEPS)]
    # The B permutations of an image are contiguous, so that whole rows are read and written.
    state = np.ascontiguousarray(profiles.T[:, :, None])
    for pairing in reversed(pairings):
        _sweep(state, pairing[:half], pairing[half : 2 * half], forbidden, generator)
    state = np.repeat(state, num_permutations, axis=2)
    for pairing in pairings:
        _sweep(state, pairing[:half], pairing[half : 2 * half], forbidden, generator)
    return state


def _sweep(
    state: NDArray[np.integer],
    one: IntArray,
    other: IntArray,
    forbidden: NDArray[np.integer],
    generator: np.random.Generator,
) -> None:
    """Exchange the wrong labels in (m, n, B) at `one` and `other` with probability 1/2, unless one is forbidden at its image."""
    left, right = state[:, one], state[:, other]
    moves = generator.integers(0, 2, size=left.shape[1:], dtype=np.uint8).view(np.bool_)
    for barred_left, barred_right in zip(forbidden[one].T, forbidden[other].T, strict=True):
        moves &= (right != barred_left[:, None]).all(axis=0)
        moves &= (left != barred_right[:, None]).all(axis=0)
    # Exclusive or: where both differ in `change`, the exchange adds it to each of them.
    change = (left ^ right) * moves
    left ^= change
    right ^= change
    state[:, one], state[:, other] = left, right


def _count(pairs: IntArray, states: NDArray[np.integer], num_pairs: int) -> FloatArray:
    """Return (B, pairs) how often each pair is confused, from the pairs (n, K) of each image and wrong labels (m, n, B)."""
    counts = np.zeros((states.shape[2], num_pairs))
    # The bins of one block fit into the processor's cache.
    for start in range(0, len(counts), BLOCK):
        block = counts[start : start + BLOCK]
        offsets = np.arange(len(block)) * num_pairs
        for wrong in states[:, :, start : start + BLOCK]:
            cells = np.take_along_axis(pairs, wrong.astype(np.int64), axis=1) + offsets
            block += np.bincount(cells.ravel(), minlength=block.size).reshape(block.shape)
    return counts


def _test(counts: FloatArray, pairs: IntArray) -> PairTest:
    """Return the test from (1 + B, pairs) counts, the observed ones first, and the (K, K) numbers of the pairs."""
    expected, deviation = counts.mean(axis=0), counts.std(axis=0)
    varies = deviation > 0
    largest = np.full(len(counts), -np.inf)
    z = np.full(len(expected), -np.inf)
    if varies.any():
        every = (counts[:, varies] - expected[varies]) / deviation[varies]
        largest, z[varies] = every.max(axis=1), every[0]
    # The observed state counts as one of the permutations.
    exceeding = len(counts) - 1 - np.searchsorted(np.sort(largest[1:]), z, side="left")
    rank = int(np.floor(ALPHA * len(counts)))

    def square(values: FloatArray, diagonal: float) -> FloatArray:
        return np.where(pairs >= 0, values[pairs], diagonal)

    return PairTest(
        expected=square(expected, 0.0),
        deviation=square(deviation, 0.0),
        z=square(z, -np.inf),
        p_adjusted=square((1 + exceeding) / len(counts), 1.0),
        critical=float(np.sort(largest)[::-1][max(rank - 1, 0)]),
    )


def _find_cores(
    arm: ArmPredictions, class_names: Sequence[str], related: BoolArray, test: PairTest, generator: np.random.Generator
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
    related: BoolArray, cut: float = LINKAGE_CUT, method: Literal["average", "complete"] = "average"
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


def _find_significant(counts: FloatArray, test: PairTest) -> BoolArray:
    """Return (B, K, K) whether each pair would be significant with these counts, stepwise as in `find_clusters`.

    Expected counts are those of quasi-independence with the same margins; deviation and critical z are those of `test`.
    """
    wrong = counts * (1 - np.eye(counts.shape[-1]))
    safe = np.where(test.deviation > 0, test.deviation, np.inf)
    upper = np.triu_indices(counts.shape[-1], 1)
    found = np.zeros(counts.shape, dtype=bool)
    scales: FloatArray | None = None
    every = np.arange(len(counts))[:, None]
    while True:
        rest = np.where(found, 0.0, wrong)
        fitted, scales = _fit(rest, found, scales)
        excess = rest - fitted
        z = np.where(found, -np.inf, (excess + np.swapaxes(excess, -1, -2)) / safe)[:, *upper]
        strongest = np.argpartition(-z, _step_size(counts.shape[-1]) - 1, axis=1)[:, : _step_size(counts.shape[-1])]
        new = z[every, strongest] >= test.critical
        if not new.any():
            return found
        images, places = np.nonzero(new)
        i, j = upper[0][strongest[images, places]], upper[1][strongest[images, places]]
        found[images, i, j] = found[images, j, i] = True


def _fit(wrong: FloatArray, structural_zeros: BoolArray, scales: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Return expected counts under quasi-independence, by iterative proportional fitting, and the (..., K, 1) column scales.

    `wrong` are (..., K, K) counts with a diagonal of 0, whose row and column sums are fitted; further cells that must be 0 are
    True in `structural_zeros`. Expected counts are row scale times column scale. The limit does not depend on the start, so that
    a fit may start from the column scales of one with fewer structural zeros. A fit ends after `NUM_FIT_ROUNDS` rounds, or if
    the scales no longer change.
    """
    free = np.where(structural_zeros, 0.0, 1.0 - np.eye(wrong.shape[-1]))
    turned = np.swapaxes(free, -1, -2)
    rows, columns = wrong.sum(axis=-1)[..., None], wrong.sum(axis=-2)[..., None]
    columns_scale = np.ones(columns.shape) if scales is None else scales
    for _ in range(NUM_FIT_ROUNDS):
        previous = columns_scale
        rows_scale = divide_or_zero(rows, free @ columns_scale)
        columns_scale = divide_or_zero(columns, turned @ rows_scale)
        if np.allclose(columns_scale, previous, rtol=FIT_TOLERANCE, atol=0.0):
            break
    return free * rows_scale * np.swapaxes(columns_scale, -1, -2), columns_scale

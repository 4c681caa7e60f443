"""Stratified draws: images, or whole groups of images, that preserve the shares of the classes."""

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.seeds import derive_seed

Indices = NDArray[np.int64]


def choose_stratified(labels: Indices, count: int, generator: np.random.Generator, min_per_class: int = 0) -> Indices:
    """Return `count` positions in `labels`, sorted, which preserve the share of each class to within one image.

    Quotas of the classes follow the largest-remainder method. Unlike scikit-learn's stratified split, a part may hold fewer
    images than there are classes.

    Args:
        labels: (N,) int64 >= 0.
        count: 0 <= count <= N.
        generator: Draws the images of each class.
        min_per_class: At least this many of each class, or a third of its images if that is less; rare classes then have more
            than their share, at the cost of the most frequent ones.

    Returns:
        (count,) int64; more than `count` only if `min_per_class` needs more.
    """
    assert 0 <= count <= len(labels)
    num_per_class = np.bincount(labels)
    quotas = _compute_quotas(labels, count, min_per_class)
    order = np.lexsort((generator.random(len(labels)), labels))
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(num_per_class) - num_per_class, num_per_class)
    return np.sort(order[rank_in_class < quotas[labels[order]]]).astype(np.int64)


def _compute_quotas(labels: Indices, count: int, min_per_class: int) -> Indices:
    """Return (K,) how many of `count` images each class gives, see `choose_stratified`."""
    num_per_class = np.bincount(labels)
    numerators = num_per_class * count
    quotas = numerators // len(labels)
    remainders = numerators - quotas * len(labels)
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1
    lowest = np.minimum(min_per_class, num_per_class // 3)
    quotas = np.maximum(quotas, lowest)
    while quotas.sum() > count and (quotas > lowest).any():
        quotas[np.argmax(quotas - lowest)] -= 1
    return quotas


def cut_folds(labels: Indices, groups: Indices | None, number: int, seed: int) -> Indices:
    """Return the fold of each image, from 1 to `number`: stratified by class, with every group of images in one fold.

    Args:
        labels: (N,) int64 >= 0; each class has images, or groups, for every fold.
        groups: (N,) int64; None where images are independent.
        number: 2 or more.
        seed: Of the shuffle.

    Returns:
        (N,) int64.
    """
    # Imported here, because it is slow and only folds need it.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    is_independent = groups is None or len(np.unique(groups)) == len(groups)
    kind = StratifiedKFold if is_independent else StratifiedGroupKFold
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = kind(n_splits=number, shuffle=True, random_state=derive_seed(seed, "folds") % 2**32)
    for place, (_, held_out) in enumerate(splitter.split(labels, labels, groups), start=1):
        folds[held_out] = place
    return folds


def choose_groups(
    labels: Indices, groups: Indices, count: int, generator: np.random.Generator, min_per_class: int = 0
) -> Indices:
    """Return sorted positions of about `count` images in whole groups, which preserve the shares of the classes approximately.

    Groups are taken in a random order, those that bring the images of each class nearer to its quota.

    Args:
        labels: (N,) int64 >= 0.
        groups: (N,) int64.
        count: 0 < count < N.
        generator: Draws the order.
        min_per_class: At least this many groups of each class, or a third of its groups if that is less; the smallest ones.

    Raises:
        UserInputError: If there are fewer than two groups.
    """
    owners = np.unique(groups, return_inverse=True)[1]
    if len(owners) == 0 or owners.max() == 0:
        raise UserInputError(
            f"a split by groups needs two groups or more, but {len(labels)} images are left in one; give images of more groups, "
            'or remove data.group, and for near-duplicates that are independent images set data.near_duplicates = "ignore"'
        )
    pairs, counts = np.unique(np.stack([owners, labels]), axis=1, return_counts=True)
    members: list[list[tuple[int, int]]] = [[] for _ in range(owners.max() + 1)]
    for owner, label, number in zip(*pairs.tolist(), counts.tolist(), strict=True):
        members[owner].append((label, number))
    left = _compute_quotas(labels, count, min_per_class).tolist()
    taken: set[int] = set()

    def take(owner: int) -> None:
        taken.add(owner)
        for label, number in members[owner]:
            left[label] -= number

    order = generator.permutation(len(members)).tolist()
    for owner in order:
        if sum(abs(left[label]) - abs(left[label] - number) for label, number in members[owner]) > 0:
            take(owner)
    by_class: list[list[int]] = [[] for _ in left]
    for owner in sorted(order, key=np.bincount(owners).tolist().__getitem__):
        for label, _ in members[owner]:
            by_class[label].append(owner)
    for having in by_class:
        missing = min(min_per_class, len(having) // 3) - sum(owner in taken for owner in having)
        for owner in [owner for owner in having if owner not in taken][: max(missing, 0)]:
            take(owner)
    return np.flatnonzero(np.isin(owners, list(taken))).astype(np.int64)

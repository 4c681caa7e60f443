"""Stratified draws: images, or whole groups of images, that preserve the shares of the classes."""

import warnings

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.seeds import derive_seed

# Folds from which a split by groups is put together.
MAX_FOLDS = 20

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
    numerators = num_per_class * count
    quotas = numerators // len(labels)
    remainders = numerators - quotas * len(labels)
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1
    lowest = np.minimum(min_per_class, num_per_class // 3)
    quotas = np.maximum(quotas, lowest)
    while quotas.sum() > count and (quotas > lowest).any():
        quotas[np.argmax(quotas - lowest)] -= 1
    order = np.lexsort((generator.random(len(labels)), labels))
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(num_per_class) - num_per_class, num_per_class)
    return np.sort(order[rank_in_class < quotas[labels[order]]]).astype(np.int64)


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

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = kind(n_splits=number, shuffle=True, random_state=derive_seed(seed, "folds") % 2**32)
    for place, (_, held_out) in enumerate(splitter.split(labels, labels, groups), start=1):
        folds[held_out] = place
    return folds


def choose_groups(labels: Indices, groups: Indices, count: int, seed: int) -> Indices:
    """Return sorted positions of about `count` images in whole groups, which preserve the shares of the classes approximately.

    They are the first folds of scikit-learn's StratifiedGroupKFold, so many that they come nearest to the share.

    Args:
        labels: (N,) int64 >= 0.
        groups: (N,) int64.
        count: 0 < count < N.
        seed: Shuffles the groups.

    Raises:
        UserInputError: If there are fewer than two groups, or two images of no class.
    """
    # Imported here, because it is slow and only groups need it.
    from sklearn.model_selection import StratifiedGroupKFold

    num_groups = len(np.unique(groups))
    if num_groups < 2 or np.bincount(labels).max() < 2:
        raise UserInputError(
            "a split by groups needs two groups or more, and two images of a class, but "
            f"{len(labels)} images are left in {num_groups}; remove data.group, or give images of more groups"
        )
    most = max(2, min(MAX_FOLDS, num_groups, int(np.bincount(labels)[np.unique(labels)].min())))
    share = count / len(labels)
    choices = [(abs(taken / folds - share), folds, taken) for folds in range(2, most + 1) for taken in range(1, folds)]
    _, num_folds, num_taken = min(choices)
    splitter = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer images than folds is refused later, where a split lacks it.
        warnings.simplefilter("ignore", UserWarning)
        folds = [chosen for _, chosen in splitter.split(labels, labels, groups)]
    return np.sort(np.concatenate(folds[:num_taken])).astype(np.int64)

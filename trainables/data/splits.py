"""The splits train, search, confirm and test: disjoint, stratified, and the same for all trials of a study."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserInputError
from trainables.data.image_array import CHUNK_IMAGES
from trainables.data.images import ImageSet
from trainables.data.pixel_files import recall
from trainables.data.problems import Problem, make_error
from trainables.data.stratified import choose_groups, choose_stratified
from trainables.seeds import numpy_generator

SPLIT_NAMES = ("train", "search", "confirm", "test")

Indices = NDArray[np.int64]
# Fractions of search, confirm and test split.
Shares = tuple[float, float, float | None]

# Images of each class that the test split needs, and gets where the class has enough: an interval needs two.
MIN_TEST_PER_CLASS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Sample ids of the four splits.

    Attributes:
        train: (N_train,) int64, sorted; the images that models are fitted to.
        search: (N_search,) int64, sorted; the images that the search selects configurations on.
        confirm: (N_confirm,) int64, sorted; the images that rank the selected configurations.
        test: (N_test,) int64, sorted; the images of the final comparison.
        data_fingerprint: Fingerprint of the images and labels.
        num_avoided_leaks: Test images that would have a near-duplicate in training if near-duplicates were not kept together.
    """

    train: Indices
    search: Indices
    confirm: Indices
    test: Indices
    data_fingerprint: str
    num_avoided_leaks: int = 0

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of SHA-256 of the data's fingerprint and the four index arrays."""
        digest = hashlib.sha256(self.data_fingerprint.encode())
        for name in SPLIT_NAMES:
            indices: Indices = getattr(self, name)
            digest.update(f"{name}:{len(indices)}:".encode())
            digest.update(np.ascontiguousarray(indices, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]


def compute_data_fingerprint(image_set: ImageSet) -> str:
    """Return the first 16 hex digits of SHA-256 of the shape, the images, the labels, the class names and the units, if any.

    It is kept beside the file of the pixels, where there is one.
    """
    header = repr((image_set.images.shape, image_set.class_names)).encode()
    rest = np.ascontiguousarray(image_set.labels, dtype="<i8").tobytes()
    if (units := image_set.units) is not None:
        rest += np.ascontiguousarray(units, dtype="<i8").tobytes()

    def compute() -> bytes:
        digest = hashlib.sha256(header)
        for first in range(0, len(image_set), CHUNK_IMAGES):
            digest.update(np.ascontiguousarray(image_set.images[first : first + CHUNK_IMAGES]).data)
        digest.update(rest)
        return digest.hexdigest()[:16].encode()

    # The lengths of the parts follow from the shape, but for the units, which exist or not.
    others = hashlib.sha256(repr((header, len(rest))).encode() + rest).hexdigest()[:32]
    return recall(image_set.images, f"fingerprint-{others}", compute).decode()


def make_splits(
    image_set: ImageSet,
    *,
    seed: int,
    search_fraction: float,
    confirm_fraction: float,
    test_fraction: float | None = None,
    num_test_images: int | None = None,
) -> Splits:
    """Return stratified, disjoint splits, which depend on the images' labels and units and on `seed` alone.

    Images of one group, and near-duplicates, stay in one split; the sizes and the shares of the classes are then approximate.
    Splits that are published stay as they are; near-duplicates across them are counted by `describe_near_duplicates`.

    Args:
        image_set: Images; a published test set becomes the test split, and published validation images become search and confirm.
        seed: Seed of the draw.
        search_fraction: Share of the search split in the images outside a published test set. Published validation images are
            divided in the proportion of `search_fraction` and `confirm_fraction`.
        confirm_fraction: Share of the confirm split in the same images.
        test_fraction: Share of the test split in the images outside the published validation set; only without a published
            test set.
        num_test_images: Size of a stratified part of the published test set; None takes all of it.

    Raises:
        UserInputError: If a fraction or a number is out of range or does not apply, if splits lack classes or the test
            split has too few images of some (all are named), or if groups have images in several of the published sets.
    """
    shares = search_fraction, confirm_fraction, test_fraction
    _check_request(image_set, shares, num_test_images)
    _check_published_groups(image_set)
    parts, num_avoided_leaks = _draw_all(image_set, image_set.units, seed, shares, num_test_images), 0
    if image_set.official_test is None and image_set.units is not image_set.groups:
        apart = _draw_all(image_set, image_set.groups, seed, shares, num_test_images)
        num_avoided_leaks = _count_leaks(image_set, apart["train"], apart["test"])
    splits = Splits(**parts, data_fingerprint=compute_data_fingerprint(image_set), num_avoided_leaks=num_avoided_leaks)
    rare = list_rare_classes(image_set, splits)
    if any(problem.is_fatal for problem in rare):
        raise make_error(f"the source {image_set.source!r}", [problem.problem for problem in rare])
    return splits


def describe_near_duplicates(image_set: ImageSet, splits: Splits) -> dict[str, str]:
    """Return sentences on the images that share a group of near-duplicates, and on those across published splits, by name.

    Nothing where nobody looked for near-duplicates, or there are none.
    """
    found = image_set.near_duplicates
    if found is None or not len(sizes := found.sizes):
        return {}
    is_published = image_set.official_test is not None or image_set.official_validation is not None
    published = ", unless that is published" if is_published else ""
    said = (
        f"{sizes.sum():,} of {len(image_set):,} images have a near-duplicate, with which they stay in one split{published}: "
        f"{len(sizes):,} group{'' if len(sizes) == 1 else 's'}, the largest of {sizes[0]:,}"
    )
    if image_set.official_test is None:
        said += f"; otherwise, {splits.num_avoided_leaks:,} test images would have one in training"
    if number := int(np.not_equal(*found.groups[found.pairs[:, :2]].T).sum()):
        said += f"; {number:,} pairs in different groups look alike, too, but others of these groups do not"
    described = {"near_duplicates": said}
    for name, is_inside in (("test", image_set.official_test), ("validation", image_set.official_validation)):
        held_out = splits.test if name == "test" else np.concatenate([splits.search, splits.confirm])
        if is_inside is not None and (number := _count_leaks(image_set, splits.train, held_out)):
            described[f"{name}_leak"] = (
                f"{number:,} of {len(held_out):,} published {name} images have a near-duplicate in training, so that scores on "
                "them are too high"
            )
    return described


def _count_leaks(image_set: ImageSet, train: Indices, held_out: Indices) -> int:
    """Return how many held-out images share a group of near-duplicates with a training image."""
    assert image_set.near_duplicates is not None
    groups = image_set.near_duplicates.groups
    return int(np.isin(groups[held_out], groups[train]).sum())


def _draw_all(
    image_set: ImageSet, units: Indices | None, seed: int, shares: Shares, num_test_images: int | None
) -> dict[str, Indices]:
    """Return the four splits by name, see `make_splits`; images of one unit stay in one split, unless it is published."""
    labels, nothing = image_set.labels, np.zeros(len(image_set), dtype=bool)

    def draw(split: str, pool: Indices, count: int, units: Indices | None, min_per_class: int) -> Indices:
        count = min(count, len(pool))  # Rounding may ask for one image more than is left of a tiny set.
        generator = numpy_generator(seed, "splits", split)
        if units is not None:
            return pool[choose_groups(labels[pool], units[pool], count, generator, min_per_class)]
        return pool[choose_stratified(labels[pool], count, generator, min_per_class)].astype(np.int64)

    search_fraction, confirm_fraction, test_fraction = shares
    is_test = nothing if image_set.official_test is None else image_set.official_test
    is_validation = nothing if image_set.official_validation is None else image_set.official_validation
    pool, validation = np.flatnonzero(~is_test & ~is_validation), np.flatnonzero(is_validation)
    if image_set.official_test is not None:
        test, rest = np.flatnonzero(is_test), pool
        test = draw("test", test, num_test_images or len(test), None, MIN_TEST_PER_CLASS)
    else:
        assert test_fraction is not None
        test = draw("test", pool, round(test_fraction * len(pool)), units, MIN_TEST_PER_CLASS)
        rest = np.setdiff1d(pool, test, assume_unique=True)
    if image_set.official_validation is not None:
        share = confirm_fraction / (search_fraction + confirm_fraction)
        confirm = draw("confirm", validation, round(share * len(validation)), units, 1)
        search, train = np.setdiff1d(validation, confirm, assume_unique=True), rest
    else:
        # A class of which a split would get none gets an image if three of it are left.
        confirm = draw("confirm", rest, round(confirm_fraction * len(pool)), units, 1)
        rest = np.setdiff1d(rest, confirm, assume_unique=True)
        search = draw("search", rest, round(search_fraction * len(pool)), units, 1)
        train = np.setdiff1d(rest, search, assume_unique=True)
    return {"train": train, "search": search, "confirm": confirm, "test": test}


@dataclass(frozen=True, slots=True)
class RareClasses:
    """Classes with few images in a split.

    Attributes:
        problem: their names, and what to do.
        is_fatal: whether a split has no image of them, so that macro-F1 is not defined on it, or the test split too few for an
            interval; otherwise a split has one image, so that their recall on it is 0 or 1.
    """

    problem: Problem
    is_fatal: bool


def list_rare_classes(image_set: ImageSet, splits: Splits) -> list[RareClasses]:
    """Return the classes that a split lacks, those with too few test images or groups, and those with one image in a split.

    Args:
        image_set: N images.
        splits: Their splits.

    Returns:
        One value per kind that occurs, each with the names of all of its classes; the last kind is not refused.
    """
    counts = np.stack(
        [np.bincount(image_set.labels[getattr(splits, s)], minlength=image_set.num_classes) for s in SPLIT_NAMES]
    )
    is_missing = counts == 0
    is_test = (np.array(SPLIT_NAMES) == "test")[:, None]
    is_short = is_test & (counts < MIN_TEST_PER_CLASS) & ~is_missing
    is_alike = is_test & (_count_groups(image_set, splits.test) < MIN_TEST_PER_CLASS) & ~(is_missing | is_short)
    is_single = (counts == 1) & ~(is_missing | is_short).any(axis=0)
    short = f"the comparison needs {MIN_TEST_PER_CLASS} test images of each class, but has fewer of"
    alike = f"the comparison needs test images of {MIN_TEST_PER_CLASS} groups in each class, but has fewer of"
    kinds = (
        ("each split needs an image of each class, but a split has none of", "none", is_missing),
        (short, "too few", is_short),
        (alike, "too few groups", is_alike),
        ("a split has one image only of", "one", is_single),
    )
    found = []
    for rule, word, cells in kinds:
        rare = np.flatnonzero(cells.any(axis=0))
        if len(rare):
            names = tuple(_name_rare(image_set, int(k), word, cells[:, k]) for k in rare)
            affected = [split for split, row in zip(SPLIT_NAMES, cells, strict=True) if row.any()]
            rule = f"{rule} {len(rare)} of the {image_set.num_classes} classes"
            found.append(RareClasses(Problem(rule, names, _advise(image_set, affected)), cells is not is_single))
    return found


def _count_groups(image_set: ImageSet, chosen: Indices) -> Indices:
    """Return (K,) the units that the chosen images of each class belong to; independent images are units of their own."""
    units = chosen if image_set.units is None else image_set.units[chosen]
    pairs = np.unique(np.stack([image_set.labels[chosen], units]), axis=1)
    return np.bincount(pairs[0], minlength=image_set.num_classes)


def _name_rare(image_set: ImageSet, label: int, word: str, cells: NDArray[np.bool_]) -> str:
    where = ", ".join(split for split, is_rare in zip(SPLIT_NAMES, cells, strict=True) if is_rare)
    in_all = int((image_set.labels == label).sum())
    return f"{image_set.class_names[label]} ({in_all} in all, {word} in {where})"


def _check_published_groups(image_set: ImageSet) -> None:
    """Raise UserInputError, with all names, if groups have images in several of training, published validation and test set."""
    if image_set.groups is None:
        return
    problems = []
    for split, inside in (("test", image_set.official_test), ("validation", image_set.official_validation)):
        if inside is None:
            continue
        straddling = np.intersect1d(image_set.groups[inside], image_set.groups[~inside])
        if len(straddling):
            cut = np.isin(image_set.groups, straddling)
            rule = (
                f"images of one group must be in one split, but {len(straddling)} groups have {int((cut & inside).sum())} images "
                f"in the published {split} set and {int((cut & ~inside).sum())} outside it"
            )
            advice = f"move each group to one side, or merge the published {split} set into the training images"
            problems.append(Problem(rule, tuple(image_set.name_group(int(group)) for group in straddling), advice))
    if problems:
        raise make_error(f"the source {image_set.source!r}", problems)


def _check_request(image_set: ImageSet, shares: Shares, num_test_images: int | None) -> None:
    official, (search, confirm, test) = image_set.official_test, shares
    if official is None and test is None:
        raise UserInputError(f"the source {image_set.source!r} has no test set of its own; set data.test_fraction")
    if official is not None and test is not None:
        raise UserInputError(
            f"the source {image_set.source!r} has a test set of its own, so data.test_fraction does not apply, "
            f"but got {test}; remove it (data.num_test_images limits the test set)"
        )
    if official is None and num_test_images is not None:
        raise UserInputError(
            f"data.num_test_images limits a published test set, but the source {image_set.source!r} has none; "
            "set data.test_fraction instead"
        )
    for name, fraction in (("search", search), ("confirm", confirm), ("test", test)):
        if fraction is not None and not 0 < fraction < 1:
            raise UserInputError(
                f"0 < data.{name}_fraction < 1 must hold, but got {fraction}; set it to 0.15, for example"
            )
    total = search + confirm + (test or 0.0)
    if total >= 1 and image_set.official_validation is None:
        raise UserInputError(
            f"the fractions of search, confirm and test must add up to less than 1, but add up to {total:g} and leave no "
            "images to train on; lower one"
        )
    num_official = 0 if official is None else int(official.sum())
    if num_test_images is not None and not 1 <= num_test_images <= num_official:
        raise UserInputError(
            f"1 <= data.num_test_images <= {num_official} must hold (the published test set), but got {num_test_images}"
        )


def _advise(image_set: ImageSet, splits: list[str]) -> str:
    """Return what to do about classes that are rare in `splits`."""
    advice = []
    for split in splits:
        if split == "train":
            advice.append("lower the fractions of the other splits")
        elif split == "test" and image_set.official_test is not None:
            advice.append("raise data.num_test_images")
        elif split != "test" and image_set.official_validation is not None:
            advice.append("change the proportion of data.search_fraction and data.confirm_fraction")
        else:
            advice.append(f"raise data.{split}_fraction")
    more = "give more images of these classes, or drop them"
    if image_set.units is not image_set.groups:
        more += ' (near-duplicates stay in one split; where they are independent images, set data.near_duplicates = "ignore")'
    return ", ".join([*dict.fromkeys(advice), more])

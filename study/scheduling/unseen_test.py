"""A warm start must not leak the test split: the other study may not have searched on images that this study tests on."""

import json

import numpy as np

from search_spaces.errors import UserInputError
from study.inputs.preparation import Prepared, find_near_duplicate_groups, load_images, make_spec_splits
from study.scheduling.warm_start import WarmStart
from study.spec.study_spec import StudySpec
from study.state.budget_extensions import launched_spec
from study.state.paths import PASSPORT, open_study
from study.state.sealed_files import read_sealed_json
from trainables.data.image_audit import hash_images
from trainables.data.images import ImageSet
from trainables.data.splits import SPLIT_NAMES, Splits

# The scores that a warm start takes over depend on these splits; the other two splits are read after the search.
SEARCHED_SPLITS = ("train", "search")
SPLIT_KEYS = (
    "search_fraction",
    "confirm_fraction",
    "test_fraction",
    "num_images",
    "num_test_images",
    "near_duplicates",
)


class _UnknownOverlapError(Exception):
    """The images that the other study searched on cannot be compared with this study's test images; the message is the reason."""


def check_test_is_unseen(warm_start: WarmStart, spec: StudySpec, prepared: Prepared) -> WarmStart:
    """Check that the other study did not train or search on this study's test images.

    Studies with equal images and splits pass, since neither has searched on the test split. Otherwise the other study's splits
    are made again: equal image sets are compared by sample ids, others by the bytes of their images. An image that this study's
    own data holds both in the test split and in another split does not count; `study inspect` reports those.

    Args:
        warm_start: of `collect_warm_start`.
        spec: the spec of the new study.
        prepared: the data of the new study.

    Returns:
        The warm start, with a note if the other study's images come from another source and could not be compared.

    Raises:
        UserInputError: if test images were trained or searched on, or if this cannot be excluded for the same source.
    """
    store = open_study(warm_start.root)
    other, recorded = launched_spec(store), read_sealed_json(store, PASSPORT)["data"]
    if recorded["splits"] == prepared.splits.fingerprint:
        return warm_start
    try:
        num_seen = _count_seen(other, recorded, prepared)
    except _UnknownOverlapError as unknown:
        if (other.data.source, other.data.path) == (spec.data.source, spec.data.path):
            raise UserInputError(
                "search.warm_start must name a study that did not search on this study's test images, but this cannot be "
                f"checked for {store.root}: {unknown}; {_advise(other, spec)}"
            ) from None
        note = f"whether {store.root} searched on this study's test images was not checked: {unknown}"
        return warm_start.model_copy(update={"note": note})
    if num_seen:
        raise UserInputError(
            f"search.warm_start must name a study that did not search on this study's test images, but {num_seen} of the "
            f"{len(prepared.splits.test)} test images are in the train or search split of {store.root}; {_advise(other, spec)}"
        )
    return warm_start


def _count_seen(other: StudySpec, recorded: dict[str, str], prepared: Prepared) -> int:
    """Return the number of this study's test images that the other study trained or searched on."""
    has_equal_images = recorded["fingerprint"] == prepared.splits.data_fingerprint
    image_set, splits = _load_again(other, recorded, prepared.image_set if has_equal_images else None)
    searched = np.concatenate([getattr(splits, name) for name in SEARCHED_SPLITS])
    if has_equal_images:
        return int(np.isin(prepared.splits.test, searched).sum())
    theirs, ours = image_set.images.shape[1:3], prepared.image_set.images.shape[1:3]
    if theirs != ours:
        raise _UnknownOverlapError(f"its images have {theirs[1]}x{theirs[0]} pixels, here {ours[1]}x{ours[0]}")
    seen = set(hash_images(image_set.images, searched).values())
    own = np.concatenate([getattr(prepared.splits, name) for name in SPLIT_NAMES if name != "test"])
    seen -= set(hash_images(prepared.image_set.images, own).values())
    return sum(digest in seen for digest in hash_images(prepared.image_set.images, prepared.splits.test).values())


def _load_again(other: StudySpec, recorded: dict[str, str], image_set: ImageSet | None) -> tuple[ImageSet, Splits]:
    """Return the other study's images, loaded unless they are given, and its splits."""
    try:
        image_set = image_set or find_near_duplicate_groups(other, load_images(other))
        splits, _ = make_spec_splits(other, image_set)
    except UserInputError as error:
        raise _UnknownOverlapError(f"its images cannot be loaded again ({error})") from None
    if splits.fingerprint != recorded["splits"]:
        raise _UnknownOverlapError("its images or splits are no longer those that it was launched with")
    return image_set, splits


def _advise(other: StudySpec, spec: StudySpec) -> str:
    """Return the keys that would give both studies the same splits, or the advice to go without a warm start."""
    differing = [] if other.seed == spec.seed else [f"seed={other.seed}"]
    for key in SPLIT_KEYS:
        there, here = getattr(other.data, key), getattr(spec.data, key)
        if there != here and there is not None:
            differing.append(f"data.{key}={json.dumps(there)}")
        elif there != here:
            differing.append(f"no data.{key}")
    same_source = (other.data.source, other.data.path) == (spec.data.source, spec.data.path)
    if not differing or not same_source:
        return "remove search.warm_start"
    return f"give both studies the same splits ({', '.join(differing)}), or remove search.warm_start"

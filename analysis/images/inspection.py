"""All that is computed on images before anything is trained, and the values that the page and the terminal show."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.confusions.label_issues import list_label_issues
from analysis.confusions.values import MAX_ISSUES, LabelIssue
from analysis.images import appearance
from analysis.images import probe as probes
from analysis.images.aspects import show_aspects
from analysis.images.values import ImageFindings, ImagePair, NetworkFindings, Rung
from analysis.statistics.metrics import IntArray, compute_confusion_counts
from trainables.data.image_array import ImageArray
from trainables.data.image_audit import are_gray, hash_images
from trainables.data.images import ImageSet
from trainables.data.near_duplicates import group_near_duplicates
from trainables.data.splits import SPLIT_NAMES, Splits
from trainables.models.backbones import count_forward_flops
from trainables.training.frozen_features import FrozenBackbone, digest_images
from trainables.training.predictions import Predictions


def find_exact_duplicates(images: ImageArray, labels: IntArray, splits: Splits) -> tuple[ImagePair, ...]:
    """Return each image of the splits whose pixels equal those of an earlier one, with the first of them.

    A copy is paired with the first image of its kind in another split as well, if there is one.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) classes.
        splits: of the images.

    Returns:
        The pairs across splits first, then those with different labels, then by sample id.
    """
    split_of = name_splits(splits, len(images))
    used = np.flatnonzero(split_of != "")
    kinds: dict[bytes, list[int]] = {}
    for image, digest in sorted(hash_images(images, used).items()):
        kinds.setdefault(digest, []).append(image)
    pairs = []
    for members in kinds.values():
        for place, image in enumerate(members[1:], start=1):
            other = next((m for m in members[:place] if split_of[m] != split_of[image]), members[0])
            pairs.append(_make_pair(other, image, labels, split_of, None))
    return sort_pairs(pairs)


def find_near_duplicates(image_set: ImageSet, splits: Splits) -> tuple[ImagePair, ...]:
    """Return the pairs of images of the splits that show the same, see `group_near_duplicates`; equal images are left out.

    Each image of a group is paired with the first of it, and images that look alike but are in two groups with each other.

    Args:
        image_set: the images; where nobody looked for near-duplicates, this does.
        splits: of the images.

    Returns:
        The pairs in the order of `find_exact_duplicates`, but nearer ones first.
    """
    split_of = name_splits(splits, len(image_set))
    found = image_set.near_duplicates or group_near_duplicates(image_set.images)
    used = found.pairs[(split_of[found.pairs[:, :2]] != "").all(axis=1)]
    return sort_pairs([_make_pair(a, b, image_set.labels, split_of, distance) for a, b, distance in used.tolist()])


def name_splits(splits: Splits, num_images: int) -> NDArray[np.str_]:
    """Return the name of each image's split, or "" if it is in none; (N,)."""
    found = np.full(num_images, "", dtype="<U8")
    for name in SPLIT_NAMES:
        found[getattr(splits, name)] = name
    return found


def sort_pairs(pairs: Sequence[ImagePair]) -> tuple[ImagePair, ...]:
    """Return pairs across splits first, then those with different labels, then the nearest."""
    return tuple(sorted(pairs, key=lambda p: (not p.is_across, not p.is_conflict, p.distance or 0, p.first, p.second)))


def find_copies(pairs: Sequence[ImagePair]) -> IntArray:
    """Return the sample ids of the second image of every pair, sorted: without them no pair is left."""
    return np.unique(np.array([pair.second for pair in pairs], dtype=np.int64))


def _make_pair(
    first: int, second: int, labels: IntArray, split_of: NDArray[np.str_], distance: int | None
) -> ImagePair:
    return ImagePair(
        first=first,
        second=second,
        splits=(str(split_of[first]), str(split_of[second])),
        labels=(int(labels[first]), int(labels[second])),
        distance=distance,
    )


# Floating-point operations of one pass over a probe's images on a CPU: 5,000 images of 64 px through ResNet18, 16 s of one core.
# Each rung below the native side takes a part of them.
CPU_FLOPS = 1.6e12
MIN_PROBE_IMAGES, MAX_PROBE_IMAGES = 1000, 5000
GPU_PROBE_IMAGES = 20_000
LADDER_PART, MIN_LADDER_IMAGES = 0.5, 500
NUM_RANKED_PAIRS = 10


def inspect_images(image_set: ImageSet, splits: Splits, *, image_size: int, seed: int) -> ImageFindings:
    """Return the duplicates, the odd images, the colors and the spectra of an image set.

    Args:
        image_set: the images.
        splits: of the images; all of them count for duplicates and odd images, all but the test split for probes.
        image_size: side of the model's input.
        seed: of samples and folds.
    """
    images, labels = image_set.images, image_set.labels
    exact = find_exact_duplicates(images, labels, splits)
    near = find_near_duplicates(image_set, splits)
    used = np.concatenate([splits.train, splits.search, splits.confirm, splits.test])
    seen = _seen_images(splits)
    sizes = None if image_set.origin is None else image_set.origin.sizes
    chosen = choose_probe_images(image_set, splits, (*exact, *near), num_images=MAX_PROBE_IMAGES, seed=seed)
    spectra, resized = None, {}
    if not _has_input_size(image_set, image_size):
        spectra = appearance.compute_spectra(images[splits.train[: appearance.MAX_SPECTRUM_IMAGES]], image_size)
        first = np.unique(labels[splits.train], return_index=True)[1][: appearance.NUM_RESIZED]
        resized = appearance.resize_examples(np.array(images[splits.train[first]]), image_size)
    is_gray = are_gray(images, seen)
    return ImageFindings(
        exact=exact,
        near=near,
        oddities=appearance.find_oddities(images, np.sort(used), sizes),
        class_colors=appearance.compute_class_colors(images, seen, labels, image_set.num_classes),
        are_gray=is_gray,
        num_color_images=0 if chosen is None else len(chosen.sample_ids),
        color_probes=() if chosen is None else appearance.probe_colors(images, chosen, are_gray=is_gray),
        spectra=spectra,
        resized=resized,
        squared=show_aspects(image_set, splits.train),
    )


def inspect_features(
    backbone: FrozenBackbone,
    image_set: ImageSet,
    splits: Splits,
    copies: tuple[ImagePair, ...],
    *,
    seed: int,
    report: Callable[[str], None] = lambda _: None,
) -> NetworkFindings | None:
    """Return what probes on a frozen backbone show; None where fewer than two classes have two images.

    Args:
        backbone: pretrained.
        image_set: the images.
        splits: of the images; those of the test split are left out, because the test split is read once.
        copies: pairs of equal or nearly equal images, of which the second is left out: a copy in another fold is no new image.
        seed: of samples and folds.
        report: called with each step's name.
    """
    config = backbone.config
    num_images = count_probe_images(backbone, image_set.num_classes)
    chosen = choose_probe_images(image_set, splits, copies, num_images=num_images, seed=seed)
    if chosen is None:
        return None
    images = np.array(image_set.images[chosen.sample_ids])
    report(f"features of {len(images):,} images")
    digest = digest_images(images)
    features = backbone.compute(images, digest)
    probe = probes.fit_probe(features, chosen)
    gain = None
    if not _has_input_size(image_set, config.whole("image_size")):
        other = "bilinear" if config.word("interpolation") == "bicubic" else "bicubic"
        report(f"features with {other} interpolation")
        second = probes.fit_probe(backbone.compute(images, digest, interpolation=other), chosen)
        both = (probe, second) if other == "bilinear" else (second, probe)
        gain = probes.compute_probe_difference(*both)
    pairs = probes.choose_pairs(probe)
    part, rungs = _climb_down(backbone, chosen, images, features, seed, report)
    return NetworkFindings(
        backbone=config.word("backbone"),
        interpolation=config.word("interpolation"),
        num_images=len(images),
        classes=chosen.classes,
        macro_f1=probe.macro_f1,
        confusion=compute_confusion_counts(chosen.labels, probe.predicted, chosen.num_classes),
        pairs=probes.rank_pairs(probe, pairs)[:NUM_RANKED_PAIRS],
        num_pairs=len(pairs),
        num_ladder_images=len(part.sample_ids),
        rungs=rungs,
        label_issues=find_label_issues(probe, image_set.class_names),
        bicubic_gain=gain,
    )


def count_probe_images(backbone: FrozenBackbone, num_classes: int) -> int:
    """Return how many images the probe takes at most: on a CPU, as many as `CPU_FLOPS` pay for."""
    if backbone.device.type == "cuda":
        return GPU_PROBE_IMAGES
    flops = count_forward_flops(backbone.config, num_classes)
    return int(np.clip(CPU_FLOPS / flops, MIN_PROBE_IMAGES, MAX_PROBE_IMAGES))


def choose_probe_images(
    image_set: ImageSet, splits: Splits, copies: tuple[ImagePair, ...], *, num_images: int, seed: int
) -> probes.ProbeImages | None:
    """Return a sample of the images outside the test split, without copies; None where no probe is possible."""
    candidates = np.setdiff1d(_seen_images(splits), find_copies(copies))
    return probes.choose_images(candidates, image_set.labels, image_set.units, num_images=num_images, seed=seed)


def find_doubtful_labels(
    backbone: FrozenBackbone, image_set: ImageSet, train: IntArray, *, seed: int, most: int
) -> tuple[LabelIssue, ...]:
    """Return the training images whose labels a probe on a frozen backbone and confident learning contradict.

    Args:
        backbone: pretrained.
        image_set: the images.
        train: sample ids of the training split; a stratified sample of them if there are too many for the probe.
        seed: of the sample and the folds.
        most: images that are returned, the most doubtful first.

    Returns:
        The issues; none where fewer than two classes have two images.
    """
    num_images = count_probe_images(backbone, image_set.num_classes)
    chosen = probes.choose_images(train, image_set.labels, image_set.units, num_images=num_images, seed=seed)
    if chosen is None:
        return ()
    images = np.array(image_set.images[chosen.sample_ids])
    probe = probes.fit_probe(backbone.compute(images, digest_images(images)), chosen)
    return find_label_issues(probe, image_set.class_names, most)


def find_label_issues(
    probe: probes.Probe, class_names: tuple[str, ...], most: int = MAX_ISSUES
) -> tuple[LabelIssue, ...]:
    """Return the images whose label both the probe and confident learning contradict, the most doubtful first."""
    chosen = probe.images
    names = [class_names[k] for k in chosen.classes]
    predictions = Predictions(
        sample_ids=chosen.sample_ids,
        labels=chosen.labels,
        logits=probe.log_probabilities.astype(np.float32),
        split="probe",
    )
    return list_label_issues([predictions], names, most)


def _climb_down(
    backbone: FrozenBackbone,
    chosen: probes.ProbeImages,
    images: NDArray[np.uint8],
    features: NDArray[np.float32],
    seed: int,
    report: Callable[[str], None],
) -> tuple[probes.ProbeImages, tuple[Rung, ...]]:
    """Return the images of the ladder and its rungs, given the images of the probe and their features."""
    native = min(images.shape[1:3])
    part = chosen.draw_part(max(MIN_LADDER_IMAGES, int(LADDER_PART * len(images))), seed)
    places = np.searchsorted(chosen.sample_ids, part.sample_ids)
    few = images[places]
    digest = digest_images(few)

    def compute(side: int) -> NDArray[np.float32]:
        if side == native:
            return features[places]
        report(f"features of {len(few):,} images at {side} px")
        return backbone.compute(few, digest, side=side)

    return part, probes.climb_down(compute, part, probes.list_sides(native, backbone.config.whole("image_size")))


def _seen_images(splits: Splits) -> IntArray:
    """Return the sample ids outside the test split, ascending."""
    return np.sort(np.concatenate([splits.train, splits.search, splits.confirm]))


def _has_input_size(image_set: ImageSet, image_size: int) -> bool:
    return image_set.images.shape[1:3] == (image_size, image_size)

"""All that is computed on images before anything is trained, and the values that the page and the terminal show."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.confusions.label_issues import list_label_issues
from analysis.confusions.values import MAX_ISSUES, LabelIssue
from analysis.images.appearance import compute_class_colors, find_oddities, probe_colors
from analysis.images.aspects import show_aspects
from analysis.images.duplicates import find_copies, find_exact_duplicates, find_near_duplicates
from analysis.images.preprocessing import MAX_SPECTRUM_IMAGES, NUM_RESIZED, compute_spectra, resize_examples
from analysis.images.probe import Probe, ProbeImages, choose_images, compute_probe_difference, fit_probe
from analysis.images.semantic_gap import choose_pairs, climb_down, list_sides, rank_pairs
from analysis.images.values import ImageFindings, ImagePair, NetworkFindings, Rung
from analysis.statistics.metrics import compute_confusion_counts
from trainables.data.image_audit import are_gray
from trainables.data.images import ImageSet
from trainables.data.splits import Splits
from trainables.models.backbones import count_forward_flops
from trainables.training.frozen_features import FrozenBackbone, digest_images
from trainables.training.predictions import Predictions

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
        spectra = compute_spectra(images[splits.train[:MAX_SPECTRUM_IMAGES]], image_size)
        first = np.unique(labels[splits.train], return_index=True)[1][:NUM_RESIZED]
        resized = resize_examples(np.array(images[splits.train[first]]), image_size)
    is_gray = are_gray(images, seen)
    return ImageFindings(
        exact=exact,
        near=near,
        oddities=find_oddities(images, np.sort(used), sizes),
        class_colors=compute_class_colors(images, seen, labels, image_set.num_classes),
        are_gray=is_gray,
        num_color_images=0 if chosen is None else len(chosen.sample_ids),
        color_probes=() if chosen is None else probe_colors(images, chosen, are_gray=is_gray),
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
    probe = fit_probe(features, chosen)
    gain = None
    if not _has_input_size(image_set, config.whole("image_size")):
        other = "bilinear" if config.word("interpolation") == "bicubic" else "bicubic"
        report(f"features with {other} interpolation")
        second = fit_probe(backbone.compute(images, digest, interpolation=other), chosen)
        gain = (
            compute_probe_difference(probe, second) if other == "bilinear" else compute_probe_difference(second, probe)
        )
    pairs = choose_pairs(probe)
    part, rungs = _climb_down(backbone, chosen, images, features, seed, report)
    return NetworkFindings(
        backbone=config.word("backbone"),
        interpolation=config.word("interpolation"),
        num_images=len(images),
        classes=chosen.classes,
        macro_f1=probe.macro_f1,
        confusion=compute_confusion_counts(chosen.labels, probe.predicted, chosen.num_classes),
        pairs=rank_pairs(probe, pairs)[:NUM_RANKED_PAIRS],
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
) -> ProbeImages | None:
    """Return a sample of the images outside the test split, without copies; None where no probe is possible."""
    candidates = np.setdiff1d(_seen_images(splits), find_copies(copies))
    return choose_images(candidates, image_set.labels, image_set.units, num_images=num_images, seed=seed)


def find_doubtful_labels(
    backbone: FrozenBackbone, image_set: ImageSet, train: NDArray[np.int64], *, seed: int, most: int
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
    chosen = choose_images(train, image_set.labels, image_set.units, num_images=num_images, seed=seed)
    if chosen is None:
        return ()
    images = np.array(image_set.images[chosen.sample_ids])
    probe = fit_probe(backbone.compute(images, digest_images(images)), chosen)
    return find_label_issues(probe, image_set.class_names, most)


def find_label_issues(probe: Probe, class_names: tuple[str, ...], most: int = MAX_ISSUES) -> tuple[LabelIssue, ...]:
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
    chosen: ProbeImages,
    images: NDArray[np.uint8],
    features: NDArray[np.float32],
    seed: int,
    report: Callable[[str], None],
) -> tuple[ProbeImages, tuple[Rung, ...]]:
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

    return part, climb_down(compute, part, list_sides(native, backbone.config.whole("image_size")))


def _seen_images(splits: Splits) -> NDArray[np.int64]:
    """Return the sample ids outside the test split, ascending."""
    return np.sort(np.concatenate([splits.train, splits.search, splits.confirm]))


def _has_input_size(image_set: ImageSet, image_size: int) -> bool:
    return image_set.images.shape[1:3] == (image_size, image_size)

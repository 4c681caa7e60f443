"""What an inspection finds on images, without a network and with probes on a frozen backbone, in words and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.confusions.values import MAX_ISSUES
from analysis.formats.numbers import format_count, format_interval, format_percent, format_signed_pp, join_intervals
from analysis.formats.text_sections import InspectionSection, Row, make_section
from analysis.images.values import ODDITY_THRESHOLD, ImagePair, Inspection, Oddities, PairLoss, PairSeparability, Rung
from analysis.statistics.interval import Interval
from search_spaces.errors import count_noun
from trainables.data.near_duplicates import MAX_DISTANCE, MIN_CORRELATION
from trainables.data.splits import SPLIT_NAMES, describe_near_duplicates

# Pairs with different labels that a sentence names.
MOST_CONFLICTS = 5
ODDITY_UNITS = {
    "blurred": "variance of the Laplacian",
    "dark": "mean gray level, 0 to 255",
    "bright": "mean gray level, 0 to 255",
    "small": "root of the area in px",
    "large": "root of the area in px",
    "wide": "width / height",
    "tall": "width / height",
}


def describe_stages(found: Inspection) -> InspectionSection:
    """Return the section on shapes and values, from the files to the logits."""
    rows = tuple(
        (
            stage.name,
            "x".join(map(str, stage.shape)),
            stage.dtype,
            f"{stage.minimum:g}",
            f"{stage.maximum:g}",
            stage.layout,
            stage.problem or "none",
        )
        for stage in found.stages
    )
    lines = []
    origin = found.image_set.origin
    if origin is not None:
        kinds = ", ".join(f"{kind} {format_count(number)}" for kind, number in origin.kinds.items())
        lines.append(f"files: {format_count(len(origin.names))}; kinds: {kinds}")
        if len(origin.sizes):
            lines.append(f"sizes: {describe_sizes(origin.sizes)}")
            if cut := describe_cut(origin.sizes):
                lines.append(cut)
        if origin.skipped:
            names = "; ".join(f"{s.name}: {s.reason}" for s in origin.skipped[:5])
            more = f"; and {len(origin.skipped) - 5} more" if len(origin.skipped) > 5 else ""
            lines.append(f"not used: {len(origin.skipped)} files ({names}{more})")
        lines += origin.notes
    else:
        lines.append("the source records no files: images and labels come as arrays")
    columns = ("stage", "shape", "dtype", "min", "max", "layout", "problem")
    title = "Dimensional audit: from file to logits"
    note = "N images, H rows, W columns, C channels, K classes, D features. The range of files is that of their sides in px."
    return make_section("stages", title, lines, columns, rows, text=(3, 6, 7), note=note)


def describe_sizes(sizes: NDArray[np.integer[Any]]) -> str:
    """Return the sizes of images in words: the one that all have, or the range of sides and ratios; (N, 2) width and height."""
    width, height = sizes.T
    if (sizes == sizes[0]).all():
        return f"{width[0]}x{height[0]} px"
    return (
        f"width {width.min()} to {width.max()} px (median {np.median(width):g}), height {height.min()} to "
        f"{height.max()} px (median {np.median(height):g}), width / height {(width / height).min():.2f} to "
        f"{(width / height).max():.2f}"
    )


def describe_cut(sizes: NDArray[np.integer[Any]]) -> str:
    """Return what share of the area a crop of the center cuts, on average; "" where all are squares; (N, 2) width and height."""
    share = float((1 - sizes.min(axis=1) / sizes.max(axis=1)).mean())
    return f"sides differ: a crop of the center cuts {format_percent(share)} of the area on average" if share else ""


def describe_class_counts(names: Sequence[str], counts: Mapping[str, Sequence[int]], most: int) -> InspectionSection:
    """Return the section on the images of each class, the most frequent class first.

    Args:
        names: of the classes.
        counts: images of each class, by split.
        most: classes that are listed; of more, it lists those with the most and the fewest training images.
    """
    totals = np.array(counts["train"])
    order = np.argsort(-totals, kind="stable")
    largest, smallest = most // 2, most - most // 2
    if len(order) > most:
        order = np.concatenate([order[:largest], order[-smallest:]])
    by_class = {names[k]: [counts[split][k] for split in SPLIT_NAMES] for k in order}
    by_class["all"] = [sum(counts[split]) for split in SPLIT_NAMES]
    rows = tuple((name, *map(format_count, (*own, sum(own)))) for name, own in by_class.items())
    rarest, commonest = int(totals.argmin()), int(totals.argmax())
    ratio = f"{totals[commonest] / totals[rarest]:.1f} times" if totals[rarest] else "infinitely many times"
    lines = [f"the largest class, {names[commonest]}, has {ratio} the training images of the smallest, {names[rarest]}"]
    if totals[commonest] == totals[rarest]:
        lines = [f"balanced: {format_count(totals[commonest])} training images of each class"]
    if len(names) > most:
        lines.append(f"the {largest} largest and the {smallest} smallest of {len(names)} classes are listed")
    rare = [f"{names[k]} in {split}" for split in SPLIT_NAMES for k in range(len(names)) if counts[split][k] < 2]
    if rare:
        more = f" and {len(rare) - 10} more" if len(rare) > 10 else ""
        named = f"{', '.join(rare[:10])}{more}"
        lines.append(f"fewer than two images: {named}; intervals need two: add images, merge or drop classes")
    return make_section("balance", "Images per class", lines, ("class", *SPLIT_NAMES, "all"), rows)


def describe_duplicates(found: Inspection, most: int) -> InspectionSection:
    """Return the section on equal and nearly equal images; at most `most` pairs are listed."""
    lines = []
    for name, pairs in (("exact duplicates", found.images.exact), ("near-duplicates", found.images.near)):
        across, num_conflicts = sum(p.is_across for p in pairs), sum(p.is_conflict for p in pairs)
        counted = f"{count_noun(len(pairs), 'pair')}, {across} across splits, {num_conflicts} with different labels"
        lines.append(f"{name}: {counted if pairs else 'none'}")
    lines += describe_near_duplicates(found.image_set, found.splits).values()
    pairs = (*found.images.exact, *found.images.near)
    if any(p.is_across for p in pairs):
        lines.append(
            "a pair across splits makes scores on held-out images too high: remove one of the two, or give both one group"
        )
    conflicts = [p for p in pairs if p.is_conflict]
    if conflicts:
        named = "; ".join(_name_conflict(found, p) for p in conflicts[:MOST_CONFLICTS])
        more = f"; and {len(conflicts) - MOST_CONFLICTS} more" if len(conflicts) > MOST_CONFLICTS else ""
        lines.append(f"different labels: {named}{more}")
    pairs = tuple(sorted(pairs, key=lambda p: (not p.is_across, not p.is_conflict)))
    if len(pairs) > most:
        lines.append(f"the first {most} of {len(pairs)} pairs are listed")
    rows = tuple(_pair_row(found, pair) for pair in pairs[:most])
    columns = ("image", "split", "image", "split", "labels", "kind")
    title = "Duplicates and near-duplicates"
    note = (
        f"Near: perceptual hashes differ in at most {MAX_DISTANCE} of 64 bits, and gray thumbnails without the terms of the "
        f"light correlate by {MIN_CORRELATION} or more. Each image of a group is listed with the first of it. Copies that "
        "were compressed, resized or brightened are found, and one object under several lights; cropped ones often not; "
        "different images may look alike."
    )
    return make_section("duplicates", title, lines, columns, rows, text=(2, 3, 4, 5, 6), note=note)


def _name_conflict(found: Inspection, pair: ImagePair) -> str:
    names = found.name_image(pair.first), found.name_image(pair.second)
    labels = (found.image_set.class_names[k] for k in pair.labels)
    return " and ".join(f"{name} ({label})" for name, label in zip(names, labels, strict=True))


def _pair_row(found: Inspection, pair: ImagePair) -> Row:
    first, second = (found.image_set.class_names[k] for k in pair.labels)
    labels = f"CONFLICT: {first} / {second}" if pair.is_conflict else first
    kind = "equal pixels" if pair.distance is None else f"{pair.distance} of 64 bits differ"
    names = found.name_image(pair.first), found.name_image(pair.second)
    return names[0], pair.splits[0], names[1], pair.splits[1], labels, kind


def describe_oddities(found: Inspection) -> InspectionSection:
    """Return the section on images that stand out."""
    rows = []
    for odd in found.images.oddities:
        listed = ", ".join(
            f"{found.name_image(i)} ({_format_measure(v)})"
            for i, v in zip(odd.sample_ids[:3], odd.values[:3], strict=True)
        )
        rows.append((odd.kind, str(odd.num_beyond), _format_measure(odd.median), ODDITY_UNITS[odd.kind], listed or "—"))
    lines = [
        "worth a look, not a verdict: these images are far from the median of this set, which may be as it should be"
    ]
    if found.image_set.origin is None:
        lines.append("sizes and shapes: the source records none")
    columns = ("kind", "images", "median", "measure", "most extreme")
    note = (
        "Images whose modified z-score (distance from the median over the scaled median absolute deviation) exceeds "
        f"{ODDITY_THRESHOLD:g}; sharpness, size and shape on a logarithmic scale."
    )
    title = "Blurred, dark, bright and odd-sized images"
    return make_section("odd", title, lines, columns, rows, text=(4, 5), note=note)


def describe_oddity(odd: Oddities) -> str:
    """Return a caption for the images of one kind."""
    return f"{odd.kind}: {format_count(odd.num_beyond)} images; {ODDITY_UNITS[odd.kind]}, median {_format_measure(odd.median)}"


def _format_measure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def describe_colors(found: Inspection, most: int) -> InspectionSection:
    """Return the section on color; at most `most` classes are listed."""
    names, colors, is_gray = found.image_set.class_names, found.images.class_colors, found.images.are_gray
    columns = ("mean gray level", "gray") if is_gray else ("mean color", "red", "green", "blue")
    rows = tuple(
        (names[k], *("—" if np.isnan(value) else f"{value:.0f}" for value in colors[k][: len(columns) - 1]))
        for k in range(len(names))[:most]
    )
    lines = [
        f"{probe.features}: macro-F1 {format_interval(probe.macro_f1)}, {format_percent(probe.chance)} expected by chance"
        for probe in found.images.color_probes
    ]
    subject = "the gray level" if is_gray else "color"
    if not lines:
        lines = [f"what {subject} predicts: a probe needs two classes with two images each (or two groups)"]
    else:
        lines[0] = (
            f"what {subject} alone predicts on {format_count(found.images.num_color_images)} images, out of fold: {lines[0]}"
        )
    if is_gray:
        lines.insert(0, "the images are gray: red, green and blue are equal, so there is no color to compare")
    if len(names) > most:
        lines.append(f"the first {most} of {len(names)} classes are listed")
    note = f"A network may use what {subject} alone predicts. Intervals, at 95 %, are for new images."
    return make_section("color", "Color", lines, columns, rows, note=note)


def describe_label_issues(found: Inspection, most: int) -> InspectionSection:
    """Return the section on labels that the probe contradicts; at most `most` are listed."""
    title = "Labels to check"
    if found.network is None:
        return make_section("labels", title, [found.network_note])
    issues = found.network.label_issues
    number = f"{len(issues)} or more" if len(issues) == MAX_ISSUES else str(len(issues))
    lines = [
        f"{number} of {format_count(found.network.num_images)} labels are contradicted by an out-of-fold linear probe and "
        "by confident learning (cleanlab), the most doubtful first"
        if issues
        else "no label is contradicted by both an out-of-fold linear probe and confident learning (cleanlab)"
    ]
    lines.append(f"the probe errs too: its macro-F1 is {format_interval(found.network.macro_f1)}")
    rows = tuple(
        (found.name_image(int(i.sample_id)), i.label, i.suggested, f"{i.label_quality:.3f}") for i in issues[:most]
    )
    columns = ("image", "label", "probe predicts", "label quality")
    note = f"At most {MAX_ISSUES} labels are listed. Images of the test split are not part of the probe."
    return make_section("labels", title, lines, columns, rows, text=(2, 3), note=note if issues else "")


def describe_gap(found: Inspection, most: int) -> InspectionSection:
    """Return the section on the classes that the backbone cannot separate; at most `most` pairs are listed."""
    title = "Semantic gap: what the pretrained backbone cannot tell apart"
    if found.network is None:
        return make_section("gap", title, [found.network_note])
    network = found.network
    side = min(found.image_set.images.shape[1:3])
    weakest = network.pairs[0]
    lines = (
        f"a linear probe on the frozen {network.backbone} at {side} px (to {found.image_size} px, {network.interpolation}): "
        f"macro-F1 {format_interval(network.macro_f1)} on {format_count(network.num_images)} images, out of fold",
        f"least separable of {format_count(network.num_pairs)} pairs: {_name_pair(found, weakest)}, "
        f"{format_interval(weakest.area)}",
    )
    rows = tuple(
        (_name_pair(found, pair), format_interval(pair.area), format_percent(pair.confusion_rate))
        for pair in network.pairs[:most]
    )
    columns = ("pair of classes", "separability", "confused")
    note = (
        "Separability: the probability that the probe orders an image of each class rightly (area under the ROC curve of "
        "the difference of their log probabilities; Hand and Till 2001); 50 % is chance. Confused: share of the two classes' "
        "images predicted as the other. Intervals, at 95 %, are for new images, each for its row alone. The test split and "
        "copies are left out."
    )
    return make_section("gap", title, lines, columns, rows, note=note)


def describe_ladder(found: Inspection, num_named: int) -> InspectionSection:
    """Return the section on smaller images; each side names at most `num_named` pairs."""
    title = "What smaller images lose"
    if found.network is None:
        return make_section("ladder", title, [found.network_note])
    network = found.network
    rows = tuple(_rung_row(found, rung, num_named) for rung in network.rungs)
    lines = [
        f"{format_count(network.num_ladder_images)} images, downscaled to each side and then resized to {found.image_size} px"
    ]
    if network.num_ladder_images < network.num_images:
        lines[0] += ", a stratified part of the images above"
    if len(network.rungs) < 2:
        lines.append("the images are as small as the smallest side of the ladder")
    columns: Row = ("side", "macro-F1", "lost in this step", "lost most by", "least separable")
    if num_named == 1:
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    note = (
        "Each step is paired with the next larger side: the same images and folds. The interval of a pair's loss in "
        "separability is adjusted for all pairs of its step; up to three pairs whose interval excludes 0 are named, else the "
        "largest loss with its interval."
    )
    return make_section("ladder", title, lines, columns, rows, text=(4, 5), note=note)


def _rung_row(found: Inspection, rung: Rung, num_named: int) -> Row:
    weakest = ", ".join(f"{_name_pair(found, p)} {format_percent(p.area.estimate)}" for p in rung.weakest[:num_named])
    if rung.loss is None:
        return f"{rung.side} px", format_interval(rung.macro_f1), "—", "—", weakest
    sure = [p for p in rung.lost_pairs if p.loss.low > 0] or rung.lost_pairs[:1]
    lost = ", ".join(f"{_name_pair(found, p)} {_format_loss(p.loss)}" for p in sure[:num_named])
    return f"{rung.side} px", format_interval(rung.macro_f1), _format_loss(rung.loss), lost, weakest


def _format_loss(loss: Interval) -> str:
    """Return a loss in percentage points: "12.3 pp [8.1, 16.5]"."""
    return join_intervals(loss, lambda x: f"{100 * x + 0.0:.1f}", " pp")


def describe_interpolation(found: Inspection) -> InspectionSection:
    """Return the section on bicubic and bilinear interpolation."""
    title = "Bicubic and bilinear interpolation"
    spectra = found.images.spectra
    if spectra is None:
        line = f"the images have the model's {found.image_size} px already and are not resampled: interpolation changes nothing"
        return make_section("interpolation", title, [line])
    upper = spectra.frequencies > 0.25
    power = {name: values[upper].sum() for name, values in spectra.power.items()}
    low = {name: values[~upper].sum() for name, values in spectra.power.items()}
    lines = [
        f"from {min(found.image_set.images.shape[1:3])} to {found.image_size} px, bicubic leaves "
        f"{power['bicubic'] / power['bilinear']:.2f} times the power of bilinear above a quarter cycle per pixel, and "
        f"{low['bicubic'] / low['bilinear']:.2f} times below"
        if power["bilinear"] > 0 and low["bilinear"] > 0
        else "the images have no contrast in some frequencies, so the power of the two is not compared"
    ]
    if found.network is None:
        lines.append(found.network_note)
    else:
        difference = found.network.bicubic_gain
        assert difference is not None
        verdict = f"{'bicubic' if difference.low > 0 else 'bilinear'} is better for the frozen backbone"
        verdict = "no difference is shown" if difference.low <= 0 <= difference.high else verdict
        lines.append(
            f"macro-F1 of the linear probe, bicubic minus bilinear: {format_signed_pp(difference)}, paired on "
            f"{format_count(found.network.num_images)} images: {verdict}"
        )
    note = "The interval, at 95 %, is for new images. Fine-tuning may lessen or reverse the difference."
    return make_section("interpolation", title, lines, note=note)


def _name_pair(found: Inspection, pair: PairSeparability | PairLoss) -> str:
    names = found.image_set.class_names
    return f"{names[pair.first]}-{names[pair.second]}"

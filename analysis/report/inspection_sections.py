"""The sections of an inspection in words and tables, which the terminal and the page share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.classes.label_issues import MAX_ISSUES
from analysis.findings.interval import Interval
from analysis.images.duplicates import MAX_DISTANCE, MIN_CORRELATION, ImagePair
from analysis.images.inspection import Inspection, NetworkFindings
from analysis.images.oddities import THRESHOLD, Oddities
from analysis.images.semantic_gap import Rung
from analysis.report.number_formats import format_count, format_interval, format_percent, format_signed_pp
from trainables.data.splits import SPLIT_NAMES

Row = tuple[str, ...]

ODDITY_UNITS = {
    "blurred": "variance of the Laplacian",
    "dark": "mean gray level, 0 to 255",
    "bright": "mean gray level, 0 to 255",
    "small": "root of the area in px",
    "large": "root of the area in px",
    "wide": "width / height",
    "tall": "width / height",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionTable:
    """A table.

    Attributes:
        columns: headings.
        rows: cells as text.
        text: numbers of the columns beside the first that hold text, counted from 1.
    """

    columns: Row
    rows: tuple[Row, ...]
    text: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionSection:
    """One section.

    Attributes:
        anchor: its id.
        title: its heading.
        lines: sentences.
        tables: after the sentences.
        note: how to read it, for the page.
    """

    anchor: str
    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[SectionTable, ...] = ()
    note: str = ""


def describe_inspection(found: Inspection, *, most: int, num_named: int) -> tuple[InspectionSection, ...]:
    """Return the sections on images, in the order in which they are shown.

    Args:
        found: everything that is known.
        most: rows of a list that may be long.
        num_named: pairs of classes that each side of the ladder names.
    """
    return (
        _describe_stages(found),
        _describe_balance(found, most),
        _describe_duplicates(found, most),
        _describe_oddities(found),
        _describe_label_issues(found, most),
        _describe_gap(found, most),
        _describe_ladder(found, num_named),
        _describe_interpolation(found),
        _describe_colors(found, most),
    )


def _describe_stages(found: Inspection) -> InspectionSection:
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
            width, height = origin.sizes.T
            lines.append(
                f"sizes: width {width.min()} to {width.max()} px (median {np.median(width):g}), height {height.min()} to "
                f"{height.max()} px (median {np.median(height):g}), width / height {(width / height).min():.2f} to "
                f"{(width / height).max():.2f}"
            )
        if origin.skipped:
            names = "; ".join(f"{s.name}: {s.reason}" for s in origin.skipped[:5])
            more = f"; and {len(origin.skipped) - 5} more" if len(origin.skipped) > 5 else ""
            lines.append(f"not used: {len(origin.skipped)} files ({names}{more})")
    else:
        lines.append("the source records no files: images and labels come as arrays")
    columns = ("stage", "shape", "dtype", "min", "max", "layout", "problem")
    return InspectionSection(
        anchor="stages",
        title="Dimensional audit: from file to logits",
        lines=tuple(lines),
        tables=(SectionTable(columns=columns, rows=rows, text=(3, 6, 7)),),
        note="N images, H rows, W columns, C channels, K classes, D features. The range of files is that of their sides in px.",
    )


def _describe_balance(found: Inspection, most: int) -> InspectionSection:
    names = found.image_set.class_names
    counts = found.audit.class_counts
    totals = np.array(counts["train"])
    order = np.arange(len(names)) if len(names) <= most else np.argsort(totals, kind="stable")[:most]
    rows = tuple((names[k], *(str(counts[split][k]) for split in SPLIT_NAMES)) for k in order)
    total = ("all", *(format_count(sum(counts[split])) for split in SPLIT_NAMES))
    rarest, largest = int(totals.argmin()), int(totals.argmax())
    ratio = f"{totals[largest] / totals[rarest]:.1f} times" if totals[rarest] else "infinitely many times"
    lines = [f"the largest class, {names[largest]}, has {ratio} the training images of the smallest, {names[rarest]}"]
    if totals[largest] == totals[rarest]:
        lines = [f"balanced: {format_count(totals[largest])} training images of each class"]
    if len(names) > most:
        lines.append(f"the {most} smallest of {len(names)} classes are listed")
    rare = [f"{names[k]} in {split}" for split in SPLIT_NAMES for k in range(len(names)) if counts[split][k] < 2]
    if rare:
        more = f" and {len(rare) - 10} more" if len(rare) > 10 else ""
        lines.append(
            f"fewer than two images: {', '.join(rare[:10])}{more}; intervals need two: add images, merge or drop classes"
        )
    return InspectionSection(
        anchor="balance",
        title="Images per class",
        lines=tuple(lines),
        tables=(SectionTable(columns=("class", *SPLIT_NAMES), rows=(*rows, total)),),
    )


def _describe_duplicates(found: Inspection, most: int) -> InspectionSection:
    exact, near = found.images.exact, found.images.near
    lines = []
    for name, pairs in (("exact duplicates", exact), ("near-duplicates", near)):
        across = sum(p.is_across for p in pairs)
        conflicts = sum(p.is_conflict for p in pairs)
        lines.append(
            f"{name}: {_count_pairs(len(pairs))}, {across} across splits, {conflicts} with different labels"
            if pairs
            else f"{name}: none"
        )
    if any(p.is_across for p in (*exact, *near)):
        lines.append(
            "a pair across splits makes scores on held-out images too high: remove one of the two, or give both one group"
        )
    pairs = (*exact, *near)
    pairs = tuple(sorted(pairs, key=lambda p: (not p.is_across, not p.is_conflict)))
    if len(pairs) > most:
        lines.append(f"the first {most} of {len(pairs)} pairs are listed")
    rows = tuple(_pair_row(found, pair) for pair in pairs[:most])
    columns = ("image", "split", "image", "split", "labels", "kind")
    return InspectionSection(
        anchor="duplicates",
        title="Duplicates and near-duplicates",
        lines=tuple(lines),
        tables=(SectionTable(columns=columns, rows=rows, text=(2, 3, 4, 5, 6)),) if rows else (),
        note=(
            f"Near: perceptual hashes (ImageHash, phash) differ in at most {MAX_DISTANCE} of 64 bits, and gray thumbnails "
            f"correlate by {MIN_CORRELATION} or more. Copies that were compressed, "
            "resized or brightened are found; cropped ones often are not."
        ),
    )


def _pair_row(found: Inspection, pair: ImagePair) -> Row:
    first, second = (found.image_set.class_names[k] for k in pair.labels)
    labels = f"CONFLICT: {first} / {second}" if pair.is_conflict else first
    kind = "equal pixels" if pair.distance is None else f"{pair.distance} of 64 bits differ"
    names = found.name_image(pair.first), found.name_image(pair.second)
    return names[0], pair.splits[0], names[1], pair.splits[1], labels, kind


def _describe_oddities(found: Inspection) -> InspectionSection:
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
    return InspectionSection(
        anchor="odd",
        title="Blurred, dark, bright and odd-sized images",
        lines=tuple(lines),
        tables=(
            SectionTable(
                columns=("kind", "images", "median", "measure", "most extreme"), rows=tuple(rows), text=(4, 5)
            ),
        ),
        note=(
            "Images whose modified z-score (distance from the median over the scaled median absolute deviation) exceeds "
            f"{THRESHOLD:g}; sharpness, size and shape on a logarithmic scale."
        ),
    )


def describe_oddity(odd: Oddities) -> str:
    """Return a caption for the images of one kind."""
    return f"{odd.kind}: {format_count(odd.num_beyond)} images; {ODDITY_UNITS[odd.kind]}, median {_format_measure(odd.median)}"


def _format_measure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _describe_label_issues(found: Inspection, most: int) -> InspectionSection:
    title = "Labels to check"
    if found.network is None:
        return InspectionSection(anchor="labels", title=title, lines=(found.network_note,))
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
    table = SectionTable(columns=("image", "label", "probe predicts", "label quality"), rows=rows, text=(2, 3))
    return InspectionSection(
        anchor="labels", title=title, lines=tuple(lines), tables=(table,) if rows else (), note=_cut_note(issues)
    )


def _cut_note(issues: Sequence[object]) -> str:
    return (
        f"At most {MAX_ISSUES} labels are listed. Images of the test split are not part of the probe." if issues else ""
    )


def _describe_gap(found: Inspection, most: int) -> InspectionSection:
    title = "Semantic gap: what the pretrained backbone cannot tell apart"
    if found.network is None:
        return InspectionSection(anchor="gap", title=title, lines=(found.network_note,))
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
    return InspectionSection(
        anchor="gap",
        title=title,
        lines=lines,
        tables=(SectionTable(columns=columns, rows=rows),),
        note=(
            "Separability: the probability that the probe orders an image of each class rightly (area under the ROC curve of "
            "the difference of their log probabilities; Hand and Till 2001); 50 % is chance. Confused: share of the two classes' "
            "images predicted as the other. Intervals, at 95 %, are for new images, each for its row alone. The test split and "
            "copies are left out."
        ),
    )


def _describe_ladder(found: Inspection, num_named: int) -> InspectionSection:
    title = "What smaller images lose"
    if found.network is None:
        return InspectionSection(anchor="ladder", title=title, lines=(found.network_note,))
    network = found.network
    rows = tuple(_rung_row(found, rung, num_named) for rung in network.rungs)
    lines = [
        f"{format_count(network.num_ladder_images)} images, downscaled to each side and then resized to {found.image_size} px"
    ]
    if network.num_ladder_images < network.num_images:
        lines[0] += ", a stratified part of the images above"
    if len(network.rungs) < 2:
        lines.append("the images are as small as the smallest side of the ladder")
    columns = ("side", "macro-F1", "lost in this step", "lost most by", "least separable")
    return InspectionSection(
        anchor="ladder",
        title=title,
        lines=tuple(lines),
        tables=(SectionTable(columns=columns, rows=rows, text=(4, 5)),),
        note=(
            "Each step is paired with the next larger side: the same images and folds. The interval of a pair's loss in "
            "separability is adjusted for all pairs of its step; up to three pairs whose interval excludes 0 are named, else the "
            "largest loss with its interval."
        ),
    )


def _rung_row(found: Inspection, rung: Rung, num_named: int) -> Row:
    weakest = ", ".join(f"{_name_pair(found, p)} {format_percent(p.area.estimate)}" for p in rung.weakest[:num_named])
    if rung.loss is None:
        return f"{rung.side} px", format_interval(rung.macro_f1), "—", "—", weakest
    sure = [p for p in rung.lost_pairs if p.loss.low > 0] or rung.lost_pairs[:1]
    lost = ", ".join(f"{_name_pair(found, p)} {_format_loss(p.loss)}" for p in sure[:num_named])
    return f"{rung.side} px", format_interval(rung.macro_f1), _format_loss(rung.loss), lost, weakest


def _format_loss(loss: Interval) -> str:
    """Return a loss in percentage points: "12.3 pp [8.1, 16.5]"."""
    estimate, low, high = (100 * x + 0.0 for x in (loss.estimate, loss.low, loss.high))
    return f"{estimate:.1f} pp [{low:.1f}, {high:.1f}]"


def _describe_interpolation(found: Inspection) -> InspectionSection:
    title = "Bicubic and bilinear interpolation"
    spectra = found.images.spectra
    if spectra is None:
        line = f"the images have the model's {found.image_size} px already and are not resampled: interpolation changes nothing"
        return InspectionSection(anchor="interpolation", title=title, lines=(line,))
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
        verdict = "no difference is shown" if difference.low <= 0 <= difference.high else _name_better(difference)
        lines.append(
            f"macro-F1 of the linear probe, bicubic minus bilinear: {format_signed_pp(difference)}, paired on "
            f"{format_count(found.network.num_images)} images: {verdict}"
        )
    return InspectionSection(
        anchor="interpolation",
        title=title,
        lines=tuple(lines),
        note="The interval, at 95 %, is for new images. Fine-tuning may lessen or reverse the difference.",
    )


def _name_better(difference: Interval) -> str:
    return (
        "bicubic is better for the frozen backbone"
        if difference.low > 0
        else "bilinear is better for the frozen backbone"
    )


def _describe_colors(found: Inspection, most: int) -> InspectionSection:
    names, colors = found.image_set.class_names, found.images.class_colors
    rows = tuple(
        (names[k], *("—" if np.isnan(value) else f"{value:.0f}" for value in colors[k]))
        for k in range(len(names))[:most]
    )
    lines = [
        f"{probe.features}: macro-F1 {format_interval(probe.macro_f1)}, {format_percent(probe.chance)} expected by chance"
        for probe in found.images.color_probes
    ]
    if not lines:
        lines = ["what color predicts: a probe needs two classes with two images each (or two groups)"]
    else:
        lines[0] = (
            f"what color alone predicts on {format_count(found.images.num_color_images)} images, out of fold: {lines[0]}"
        )
    if len(names) > most:
        lines.append(f"the first {most} of {len(names)} classes are listed")
    return InspectionSection(
        anchor="color",
        title="Color",
        lines=tuple(lines),
        tables=(SectionTable(columns=("mean color", "red", "green", "blue"), rows=rows),),
        note="A network may use what color alone predicts. Intervals, at 95 %, are for new images.",
    )


def _name_pair(found: Inspection, pair: object) -> str:
    names = found.image_set.class_names
    return f"{names[pair.first]}-{names[pair.second]}"  # type: ignore[attr-defined]


def _count_pairs(number: int) -> str:
    return "1 pair" if number == 1 else f"{format_count(number)} pairs"


def list_network_classes(found: Inspection, network: NetworkFindings) -> list[str]:
    """Return the names of the probe's classes."""
    return [found.image_set.class_names[k] for k in network.classes]

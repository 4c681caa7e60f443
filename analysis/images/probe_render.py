"""What the probes on a frozen backbone show, in words and tables."""

from collections.abc import Sequence

from analysis.confusions.values import MAX_ISSUES
from analysis.formats.numbers import format_count, format_interval, format_percent, format_signed_pp, join_intervals
from analysis.formats.text_sections import InspectionSection, Row, SectionTable
from analysis.images.values import Inspection, PairLoss, PairSeparability, Rung
from analysis.statistics.interval import Interval


def describe_label_issues(found: Inspection, most: int) -> InspectionSection:
    """Return the section on labels that the probe contradicts; at most `most` are listed."""
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


def describe_gap(found: Inspection, most: int) -> InspectionSection:
    """Return the section on the classes that the backbone cannot separate; at most `most` pairs are listed."""
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


def describe_ladder(found: Inspection, num_named: int) -> InspectionSection:
    """Return the section on smaller images; each side names at most `num_named` pairs."""
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
    columns: Row = ("side", "macro-F1", "lost in this step", "lost most by", "least separable")
    if num_named == 1:
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
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
    return join_intervals(loss, lambda x: f"{100 * x + 0.0:.1f}", " pp")


def describe_interpolation(found: Inspection) -> InspectionSection:
    """Return the section on bicubic and bilinear interpolation."""
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


def _name_pair(found: Inspection, pair: PairSeparability | PairLoss) -> str:
    names = found.image_set.class_names
    return f"{names[pair.first]}-{names[pair.second]}"

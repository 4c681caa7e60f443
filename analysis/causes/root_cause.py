"""Root cause of a confusion: the cue whose removal reduces the confusion of two classes more than it reduces other errors.

Some of the seeds choose the images that they confuse; the other seeds measure the margin on them, the logit of the true class
minus that of the other class. Four cues are removed in all sixteen combinations. The Shapley value of a cue is its mean gain in
margin over all orders of removal (Shapley 1953). The same is measured on references and subtracted: errors between other classes
with the same margin (`analysis.causes.confused_images`), because an effect that a removal has on every error is not a cause.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.causes import cues
from analysis.causes.confused_images import (
    CauseModels,
    ConfusedClasses,
    Errors,
    MatchedMargins,
    expect_margins,
    find_errors,
    match_references,
    pool_deviation,
)
from analysis.causes.values import MATERIAL_EFFECT, MIXED, CueEffect, RootCause
from analysis.shortcuts.swaps import AuditImages, Images, take_groups
from analysis.statistics.families import Cell, Scale, compute_family, mean_cell
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.seeds import numpy_generator

ALPHA = 0.05
MIN_IMAGES = 8
MAX_CONFUSED = 120
MAX_REFERENCES = 120
# Largest difference of the margins on the measuring seeds, in standard deviations.
MAX_IMBALANCE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Effects of the cues on the confused images of one confusion, alone and against references.

    Attributes:
        cells: the effect of each cue against the references.
        first: index of the largest.
        others: lead of the first over the second; effect of the first on the confused images alone, and its lead there over the
            largest of the others.
        finding: what is known of the root cause before the effects are judged; its note names the cues that the images lack.
        check: the same measured with a removal of shape that spares more of what is smooth, if shape is the first cue.
    """

    cells: tuple[Cell, ...]
    first: int
    others: tuple[Cell, Cell, Cell]
    finding: RootCause
    check: "_Measured | None" = None


def find_root_causes(
    models: CauseModels, audit_images: AuditImages, confusions: Sequence[ConfusedClasses], *, seed: int = 0
) -> tuple[RootCause, ...]:
    """Return the Shapley value of each cue for each confusion, and the cause if one cue leads significantly.

    A cause is named if its effect lies above MATERIAL_EFFECT and its lead over the next cue above 0 against the references, the
    effect simultaneously over the four cues, and if both lie above 0 on the confused images alone. All of it holds simultaneously
    over the confusions, so that many of them name no more false causes than one. Without the last, the cue
    would be named that other errors suffer most without; without the references, the cue that all images depend on most. Shape
    is named if it is also named where its removal spares more of what is smooth, because permuted patches also remove wide
    patterns behind the object.

    Args:
        models: of an arm.
        audit_images: that the sample ids of `models` index; no model was trained on these.
        confusions: pairs of classes, or directed cells of the confusion matrix.
        seed: of donors, patch orders and the choice among many images.
    """
    errors = find_errors(models, audit_images.labels[models.sample_ids])
    found: list[_Measured | RootCause] = []
    for confusion in confusions:
        generator = numpy_generator(seed, f"root cause {confusion.one} {confusion.other} {confusion.is_directed}")
        found.append(_measure_confusion(errors, models, audit_images, confusion, generator))
    measured = [one for one in found if isinstance(one, _Measured)]
    parts = [part for one in measured for part in (one, one.check) if part is not None]
    judged = iter(_judge(parts, ALPHA / max(len(measured), 1)))
    note = "one model: the images were chosen by its own errors" if models.are_own_errors else ""
    causes = []
    for one in found:
        if isinstance(one, _Measured):
            conditions, check = next(judged), None if one.check is None else next(judged)
            one = _conclude(one, conditions, check, note)
        causes.append(one)
    return tuple(causes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """Intervals of what was measured: of each cue, and of `_Measured.others`."""

    effects: tuple[TwoIntervals, ...]
    others: tuple[TwoIntervals, ...]

    def name(self, first: int, side: Callable[[TwoIntervals], Interval | None]) -> str:
        """Return the first cue if its effect is material and its other intervals lie above 0, all defined; else "mixed"."""
        effect, *others = (side(both) for both in (self.effects[first], *self.others))
        is_above = all(other is not None and other.low > 0 for other in others)
        return cues.CUES[first] if is_above and effect is not None and effect.low > MATERIAL_EFFECT else MIXED


def _judge(measured: Sequence[_Measured], alpha: float) -> list[_Judged]:
    """Return the intervals of what was measured, with the error rate `alpha` for each confusion."""
    effects = iter(
        compute_family(
            [cell for one in measured for cell in one.cells],
            scale=Scale.UNBOUNDED,
            confidence=1 - alpha / len(cues.CUES),
        )
    )
    families = zip(*(one.others for one in measured), strict=True)
    others = [compute_family(family, scale=Scale.UNBOUNDED, confidence=1 - alpha) for family in families]
    return [
        _Judged(effects=tuple(next(effects) for _ in cues.CUES), others=found) for found in zip(*others, strict=True)
    ]


def _measure_confusion(
    errors: Errors,
    models: CauseModels,
    audit_images: AuditImages,
    confusion: ConfusedClasses,
    generator: np.random.Generator,
) -> _Measured | RootCause:
    one, other = confusion.one, confusion.other
    there = (errors.true == one) & (errors.predicted == other)
    back = (errors.true == other) & (errors.predicted == one)
    is_confused = there if confusion.is_directed else there | back
    confused, candidates = errors.take(is_confused), errors.take(~there & ~back)
    confused = confused.take(np.sort(generator.permutation(len(confused.images))[:MAX_CONFUSED]))
    nothing = Interval(estimate=0.0, low=0.0, high=0.0)
    finding = RootCause(
        classes=(audit_images.class_names[one], audit_images.class_names[other]),
        effects=(),
        cause=MIXED,
        recipe_cause=None,
        lead=TwoIntervals(models=nothing, recipe=None),
        num_images=len(confused.images),
        note="",
        is_directed=confusion.is_directed,
    )
    if len(confused.images) < MIN_IMAGES:
        return replace(finding, note="the selecting seeds confuse too few images")
    deviation = pool_deviation(confused.measured, candidates.measured)
    expected, of_candidates = (expect_margins(group.margins, group.measured) for group in (confused, candidates))
    matches = match_references(expected, of_candidates, deviation, MAX_REFERENCES)
    if len(matches.confused) < MIN_IMAGES or len(matches.references) < MIN_IMAGES:
        note = f"no comparable references: {len(matches.confused)} images have other errors of the same margin"
        return replace(finding, note=note)
    both = confused.take(matches.confused).join(candidates.take(matches.references))
    if audit_images.groups is not None:
        parts = np.split(audit_images.groups[both.images], [len(matches.confused)])
        if min(len(np.unique(part)) for part in parts) < 2:
            return replace(finding, note="the confused images or their references belong to one group of images")
    images, folds = audit_images.images[both.images], take_groups(audit_images.folds, both.images)
    removals = _prepare_removals(models, audit_images, both, generator)
    values = _measure(models, both, images, removal := next(removals), folds)
    margins = MatchedMargins(
        margins=values[frozenset()],
        instrument=both.margins,
        weights=matches.weights,
        groups=take_groups(audit_images.groups, both.images),
    )
    imbalance = margins.difference / deviation if deviation > 0 else 0.0
    absent = f"the images have no {' and no '.join(removal.absent)} to remove" if removal.absent else ""
    found, references = len(matches.confused), len(matches.references)
    finding = replace(finding, num_images=found, num_references=references, imbalance=imbalance, note=absent)
    if abs(imbalance) > MAX_IMBALANCE:
        note = f"no comparable references: their margins differ by {abs(imbalance):.2f} standard deviations"
        return replace(finding, note=note)
    measured = _contrast(margins, values, finding)
    if cues.CUES[measured.first] != "shape":
        return measured
    again = _measure(models, both, images, next(removals), folds)
    return replace(measured, check=_contrast(margins, again, finding))


def _prepare_removals(
    models: CauseModels, audit_images: AuditImages, errors: Errors, generator: np.random.Generator
) -> Iterator[cues.CueRemoval]:
    """Yield the removal of cues, and then that which spares more of what is smooth; both have the same donors and orders."""
    labels, folds = audit_images.labels[models.sample_ids], np.zeros(len(audit_images.labels), dtype=np.int64)
    folds = folds if audit_images.folds is None else audit_images.folds
    of_donors = folds[models.sample_ids]
    chosen = [
        generator.choice(models.sample_ids[(labels != t) & (labels != p) & (of_donors == fold)])
        for t, p, fold in zip(errors.true, errors.predicted, folds[errors.images], strict=True)
    ]
    images, donors = audit_images.images[errors.images], audit_images.images[chosen]
    state = generator.bit_generator.state
    for spared_fraction in (cues.SPARED_FRACTION, cues.MORE_SPARED_FRACTION):
        generator.bit_generator.state = state
        yield cues.prepare_removal(images, donors, generator, spared_fraction)


def _measure(
    models: CauseModels, errors: Errors, images: Images, removal: cues.CueRemoval, folds: IntArray | None
) -> dict[frozenset[str], FloatArray]:
    """Return the (S, n) margins of the images of the errors, of (n,) folds, by the set of cues that were removed."""
    n = np.arange(len(images))
    margins = {}
    for missing, removed in cues.remove_every_set(images, removal):
        logits = models.compute_logits(removed) if folds is None else models.compute_logits(removed, folds)
        margins[missing] = logits[:, n, errors.true] - logits[:, n, errors.predicted]
    return margins


def _compute_shapley(cue: str, values: dict[frozenset[str], FloatArray]) -> FloatArray:
    """Return the mean gain from removing `cue` over all orders of removal."""
    players = len(cues.CUES)
    total = np.zeros_like(values[frozenset()])
    for others, value in values.items():
        if cue not in others:
            weight = math.factorial(len(others)) * math.factorial(players - len(others) - 1) / math.factorial(players)
            total += weight * (values[others | {cue}] - value)
    return np.asarray(total)


def _contrast(margins: MatchedMargins, values: dict[frozenset[str], FloatArray], finding: RootCause) -> _Measured:
    """Return the cells of the cues' effects; the confused images come first."""
    num_confused = finding.num_images
    effects = np.stack([_compute_shapley(cue, values) for cue in cues.CUES])
    cells = tuple(margins.contrast(values) for values in effects)
    order = np.argsort([-cell.values.mean() for cell in cells], kind="stable")
    first, second = int(order[0]), int(order[1])
    labels, groups = np.zeros(num_confused, dtype=np.int64), take_groups(margins.groups, np.arange(num_confused))
    own = effects[:, :, :num_confused]
    rival = max((cue for cue in range(len(cues.CUES)) if cue != first), key=lambda cue: float(own[cue].mean()))
    others = (
        margins.contrast(effects[first] - effects[second]),
        mean_cell(own[first], labels, groups),
        mean_cell(own[first] - own[rival], labels, groups),
    )
    return _Measured(cells=cells, first=first, others=others, finding=finding)


def _conclude(measured: _Measured, judged: _Judged, check: _Judged | None, note: str) -> RootCause:
    def name(side: Callable[[TwoIntervals], Interval | None]) -> str:
        cause = judged.name(measured.first, side)
        if measured.check is None or check is None:
            return cause
        return cause if check.name(measured.check.first, side) == cause else MIXED

    return replace(
        measured.finding,
        effects=tuple(CueEffect(cue=cue, effect=effect) for cue, effect in zip(cues.CUES, judged.effects, strict=True)),
        cause=name(lambda both: both.models),
        recipe_cause=None if judged.others[0].recipe is None else name(lambda both: both.recipe),
        lead=judged.others[0],
        note="; ".join(filter(None, (note, measured.finding.note))),
    )

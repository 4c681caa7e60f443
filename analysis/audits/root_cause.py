"""Root cause of a confusion: the cue whose removal reduces the confusion of two classes more than it reduces other errors.

Some of the seeds choose the images that they confuse; the other seeds measure the margin on them, the logit of the true class
minus that of the other class. Four cues are removed in all sixteen combinations. The Shapley value of a cue is its mean gain in
margin over all orders of removal (Shapley 1953). The same is measured on references and subtracted: errors between other classes
with the same margin (`analysis.audits.matched_references`), because an effect that a removal has on every error is not a cause.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.audits.confused_images import CauseModels, ConfusedClasses, Errors, find_errors
from analysis.audits.cues import CUES, prepare_removal, remove_cues
from analysis.audits.matched_references import MatchedMargins, expect_margins, match_references, pool_deviation
from analysis.audits.swap_effects import AuditImages
from analysis.findings.forensic_findings import CueEffect, RootCause
from analysis.findings.interval import Interval, TwoIntervals
from analysis.statistics.families import Cell, Scale, compute_family, mean_cell
from analysis.statistics.metrics import FloatArray
from trainables.seeds import numpy_generator

ALPHA = 0.05
MIN_IMAGES = 8
MAX_CONFUSED = 120
MAX_REFERENCES = 120
# Largest difference of the margins on the measuring seeds, in standard deviations.
MAX_IMBALANCE = 0.2
MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Effects of the cues on the confused images of one confusion, alone and against references.

    Attributes:
        cells: the effect of each cue against the references.
        first: index of the largest.
        lead: of the first over the second.
        own, own_lead: effect of the first cue on the confused images alone, and its lead there over the largest of the others.
        num_images, num_references, imbalance: as in `RootCause`.
    """

    cells: tuple[Cell, ...]
    first: int
    lead: Cell
    own: Cell
    own_lead: Cell
    num_images: int
    num_references: int
    imbalance: float


def find_root_causes(
    models: CauseModels, audit_images: AuditImages, confusions: Sequence[ConfusedClasses], *, seed: int = 0
) -> tuple[RootCause, ...]:
    """Return the Shapley value of each cue for each confusion, and the cause if one cue leads significantly.

    A cause is named if its effect and its lead over the next cue lie above 0 twice: against the references, the effect
    simultaneously over the four cues, and on the confused images alone. Without the second, the cue would be named that other
    errors suffer most without; without the first, the cue that all images depend on most.

    Args:
        models: of an arm.
        audit_images: that the sample ids of `models` index; no model was trained on these.
        confusions: pairs of classes, or directed cells of the confusion matrix.
        seed: of donors, patch orders and the choice among many images.
    """
    names = audit_images.class_names
    errors = find_errors(models, audit_images.labels[models.sample_ids])
    found: list[_Measured | RootCause] = []
    for confusion in confusions:
        generator = numpy_generator(seed, f"root cause {confusion.one} {confusion.other} {confusion.is_directed}")
        found.append(_measure_confusion(errors, models, audit_images, confusion, generator))
    measured = [one for one in found if isinstance(one, _Measured)]
    cells = [cell for one in measured for cell in one.cells]
    effects = iter(compute_family(cells, scale=Scale.UNBOUNDED, confidence=1 - ALPHA / len(CUES)))
    leads, own, own_leads = (
        iter(compute_family(family, scale=Scale.UNBOUNDED, confidence=1 - ALPHA))
        for family in (
            [one.lead for one in measured],
            [one.own for one in measured],
            [one.own_lead for one in measured],
        )
    )
    note = "one model: the images were chosen by its own errors" if models.are_own_errors else ""
    return tuple(
        one
        if isinstance(one, RootCause)
        else _conclude(
            one, [next(effects) for _ in CUES], next(leads), (next(own), next(own_leads)), confusion, names, note
        )
        for one, confusion in zip(found, confusions, strict=True)
    )


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
    names = audit_images.class_names
    if len(confused.images) < MIN_IMAGES:
        return unmeasured_cause(confusion, names, len(confused.images), "the selecting seeds confuse too few images")
    deviation = pool_deviation(confused.measured, candidates.measured)
    expected, of_candidates = (expect_margins(group.margins, group.measured) for group in (confused, candidates))
    matches = match_references(expected, of_candidates, deviation, MAX_REFERENCES)
    if len(matches.confused) < MIN_IMAGES or len(matches.references) < MIN_IMAGES:
        note = f"no comparable references: {len(matches.confused)} images have other errors of the same margin"
        return unmeasured_cause(confusion, names, len(confused.images), note)
    both = confused.take(matches.confused).join(candidates.take(matches.references))
    values = _measure(models, audit_images, both, generator)
    margins = MatchedMargins(margins=values[frozenset()], instrument=both.margins, weights=matches.weights)
    effects = np.stack([_compute_shapley(cue, values) for cue in CUES])
    imbalance = margins.difference / deviation if deviation > 0 else 0.0
    if abs(imbalance) > MAX_IMBALANCE:
        note = f"no comparable references: their margins differ by {abs(imbalance):.2f} standard deviations"
        return replace(
            unmeasured_cause(confusion, names, len(matches.confused), note),
            num_references=len(matches.references),
            imbalance=imbalance,
        )
    return _contrast(margins, effects, len(matches.confused), imbalance)


def _measure(
    models: CauseModels, audit_images: AuditImages, errors: Errors, generator: np.random.Generator
) -> dict[frozenset[str], FloatArray]:
    """Return the (S, n) margins of the images by the set of cues that were removed."""
    images, labels = audit_images.images[errors.images], audit_images.labels[models.sample_ids]
    chosen = [
        generator.choice(models.sample_ids[(labels != t) & (labels != p)])
        for t, p in zip(errors.true, errors.predicted, strict=True)
    ]
    donors = audit_images.images[chosen]
    removal = prepare_removal(images, donors, generator)
    n = np.arange(len(images))
    margins = {}
    for size in range(len(CUES) + 1):
        for cues in itertools.combinations(CUES, size):
            logits = models.compute_logits(remove_cues(images, frozenset(cues), removal))
            margins[frozenset(cues)] = logits[:, n, errors.true] - logits[:, n, errors.predicted]
    return margins


def _compute_shapley(cue: str, values: dict[frozenset[str], FloatArray]) -> FloatArray:
    """Return the mean gain from removing `cue` over all orders of removal."""
    players = len(CUES)
    total = np.zeros_like(values[frozenset()])
    for others, value in values.items():
        if cue not in others:
            weight = math.factorial(len(others)) * math.factorial(players - len(others) - 1) / math.factorial(players)
            total += weight * (values[others | {cue}] - value)
    return np.asarray(total)


def _contrast(margins: MatchedMargins, effects: FloatArray, num_confused: int, imbalance: float) -> _Measured:
    """Return the cells of the (4, S, n) effects, those of the confused images first."""
    cells = tuple(margins.contrast(values) for values in effects)
    order = np.argsort([-cell.values.mean() for cell in cells], kind="stable")
    first, second = int(order[0]), int(order[1])
    labels = np.zeros(num_confused, dtype=np.int64)
    own = effects[:, :, :num_confused]
    rival = max((cue for cue in range(len(CUES)) if cue != first), key=lambda cue: float(own[cue].mean()))
    return _Measured(
        cells=cells,
        first=first,
        lead=margins.contrast(effects[first] - effects[second]),
        own=mean_cell(own[first], labels),
        own_lead=mean_cell(own[first] - own[rival], labels),
        num_images=num_confused,
        num_references=effects.shape[2] - num_confused,
        imbalance=imbalance,
    )


def _conclude(
    measured: _Measured,
    effects: Sequence[TwoIntervals],
    lead: TwoIntervals,
    alone: Sequence[TwoIntervals],
    confusion: ConfusedClasses,
    names: Sequence[str],
    note: str,
) -> RootCause:
    first = measured.first
    conditions = (effects[first], lead, *alone)

    def name(intervals: Sequence[Interval | None]) -> str | None:
        found = [interval for interval in intervals if interval is not None]
        if len(found) < len(intervals):
            return None
        return CUES[first] if all(interval.low > 0 for interval in found) else MIXED

    return RootCause(
        classes=(names[confusion.one], names[confusion.other]),
        effects=tuple(CueEffect(cue=cue, effect=effect) for cue, effect in zip(CUES, effects, strict=True)),
        cause=name([both.models for both in conditions]),
        recipe_cause=name([both.recipe for both in conditions]),
        lead=lead,
        num_images=measured.num_images,
        note=note,
        num_references=measured.num_references,
        imbalance=measured.imbalance,
        is_directed=confusion.is_directed,
    )


def unmeasured_cause(confusion: ConfusedClasses, names: Sequence[str], num_images: int, note: str) -> RootCause:
    """Return a root cause that could not be measured.

    Args:
        confusion: of two classes.
        names: of all classes.
        num_images: confused images that were found.
        note: why it could not be measured.
    """
    nothing = Interval(estimate=0.0, low=0.0, high=0.0)
    return RootCause(
        classes=(names[confusion.one], names[confusion.other]),
        effects=(),
        cause=MIXED,
        recipe_cause=None,
        lead=TwoIntervals(models=nothing, recipe=None),
        num_images=num_images,
        note=note,
        is_directed=confusion.is_directed,
    )

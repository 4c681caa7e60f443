"""Root cause of a confused pair: the cue whose removal reduces the confusion of the two classes most.

Some of the seeds select the images of the pair that they confuse; the other seeds measure the margin on them, the logit of the
true class minus that of the other class. Four cues are removed in all sixteen combinations. The Shapley value of a cue is its
mean gain in margin over all orders of removal (Shapley 1953). The same is measured on reference images, between their class and
one that it is not confused with, and subtracted, because an effect that a removal has on every image is not a cause.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.audits.cues import CUES, prepare_removal, remove_cues
from analysis.audits.ring_swaps import Images
from analysis.audits.swap_effects import AuditImages
from analysis.findings.forensic_findings import CueEffect, RootCause
from analysis.findings.interval import Interval
from analysis.statistics.crossed_interval import CrossedEstimate, compute_crossed_interval
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.seeds import numpy_generator

ALPHA = 0.05
MIN_IMAGES = 8
MAX_REFERENCES = 120
MIXED = "mixed"
# Return (S, n, K) logits of the arm's S models for (n, H, W, 3) images.
ComputeLogits = Callable[[Images], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Images whose margin is measured: indices into the audit's images, their true class and the class it is compared with."""

    images: IntArray
    true: IntArray
    other: IntArray


def find_root_cause(
    predicted: IntArray,
    measure: ComputeLogits,
    audit_images: AuditImages,
    pair: tuple[int, int],
    confused: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
) -> RootCause:
    """Return the Shapley value of each cue for a confused pair, and the cause if one cue leads significantly.

    A cause is named if its interval, simultaneous over the four cues, lies above 0, and its lead over the next cue does too.

    Args:
        predicted: (S, N) classes that the selecting seeds predict; they choose the images.
        measure: the models of the other seeds, at least two.
        audit_images: N images that no model was trained on.
        pair: the two classes.
        confused: every pair that the arm confuses significantly; reference images do not belong to them.
        seed: of donors, patch orders and references.
    """
    generator = numpy_generator(seed, f"root cause {pair[0]} {pair[1]}")
    names = (audit_images.class_names[pair[0]], audit_images.class_names[pair[1]])
    chosen = _choose_confused(predicted, audit_images.labels, pair)
    counts = np.bincount(chosen.true, minlength=len(audit_images.class_names))
    if counts[list(pair)].min() < 2 or len(chosen.images) < MIN_IMAGES:
        return unmeasured_cause(names, len(chosen.images), "the selecting seeds confuse too few images")
    references = _choose_references(audit_images, pair, confused, generator)
    if references is None:
        return unmeasured_cause(names, len(chosen.images), "there are no other classes to compare with")
    both = [_measure(measure, audit_images, sample, generator) for sample in (chosen, references)]
    return _conclude(names, both, chosen, references, len(audit_images.class_names))


def _choose_confused(predicted: IntArray, labels: IntArray, pair: tuple[int, int]) -> _Sample:
    """Return the images of the pair that at least half of the (S, N) predictions assign to the other class."""
    opposite = np.where(labels == pair[0], pair[1], pair[0])
    images = np.flatnonzero(np.isin(labels, pair) & ((predicted == opposite).mean(axis=0) >= 0.5))
    return _Sample(images=images, true=labels[images], other=opposite[images])


def _choose_references(
    audit_images: AuditImages,
    pair: tuple[int, int],
    confused: Sequence[tuple[int, int]],
    generator: np.random.Generator,
) -> _Sample | None:
    """Return images of other classes, each compared with a random class that its own class is not confused with."""
    labels, num_classes = audit_images.labels, len(audit_images.class_names)
    related = {frozenset(p) for p in (*confused, pair)}
    partners = {
        c: [d for d in range(num_classes) if d != c and frozenset((c, d)) not in related]
        for c in np.unique(labels).tolist()
        if c not in pair
    }
    images = np.flatnonzero(np.isin(labels, [c for c, found in partners.items() if found]))
    images = np.sort(generator.permutation(images)[:MAX_REFERENCES])
    images = images[np.bincount(labels[images], minlength=num_classes)[labels[images]] >= 2]
    if len(images) < MIN_IMAGES:
        return None
    other = np.array([generator.choice(partners[int(c)]) for c in labels[images]])
    return _Sample(images=images, true=labels[images], other=other)


def _measure(
    compute_logits: ComputeLogits, audit_images: AuditImages, sample: _Sample, generator: np.random.Generator
) -> FloatArray:
    """Return (4, S, n) Shapley values of the cues in `CUES`."""
    images, labels = audit_images.images[sample.images], audit_images.labels
    third = [np.flatnonzero(~np.isin(labels, (t, o))) for t, o in zip(sample.true, sample.other, strict=True)]
    donors = audit_images.images[[generator.choice(candidates) for candidates in third]]
    removal = prepare_removal(images, donors, generator)
    n = np.arange(len(images))
    margins = {}
    for size in range(len(CUES) + 1):
        for cues in itertools.combinations(CUES, size):
            logits = compute_logits(remove_cues(images, frozenset(cues), removal))
            margins[frozenset(cues)] = logits[:, n, sample.true] - logits[:, n, sample.other]
    return np.stack([_compute_shapley(cue, margins) for cue in CUES])


def _compute_shapley(cue: str, values: dict[frozenset[str], FloatArray]) -> FloatArray:
    """Return the mean gain from removing `cue` over all orders of removal."""
    players = len(CUES)
    total = np.zeros_like(values[frozenset()])
    for others, value in values.items():
        if cue not in others:
            weight = math.factorial(len(others)) * math.factorial(players - len(others) - 1) / math.factorial(players)
            total += weight * (values[others | {cue}] - value)
    return np.asarray(total)


def _conclude(
    names: tuple[str, str], both: Sequence[FloatArray], chosen: _Sample, references: _Sample, num_classes: int
) -> RootCause:
    found = [
        _contrast(both[0][i], both[1][i], chosen, references, num_classes, 1 - ALPHA / len(CUES))
        for i in range(len(CUES))
    ]
    effects = tuple(CueEffect(cue=cue, effect=f.interval) for cue, f in zip(CUES, found, strict=True))
    order = np.argsort([-f.interval.estimate for f in found], kind="stable")
    first, second = int(order[0]), int(order[1])
    lead = _contrast(
        both[0][first] - both[0][second], both[1][first] - both[1][second], chosen, references, num_classes, 1 - ALPHA
    ).interval
    is_cause = found[first].interval.low > 0 and lead.low > 0
    return RootCause(
        classes=names,
        effects=effects,
        cause=CUES[first] if is_cause else MIXED,
        lead=lead,
        num_images=len(chosen.images),
        note="",
    )


def _contrast(
    pair: FloatArray, references: FloatArray, chosen: _Sample, held: _Sample, num_classes: int, confidence: float
) -> CrossedEstimate:
    """Return the mean of (S, n) `pair` minus that of (S, m) `references`, for new seeds and new images of both."""
    values = pair.mean(axis=1) - references.mean(axis=1)
    total = pair.shape[1] + references.shape[1]
    influence = np.concatenate(
        [
            total / pair.shape[1] * (pair - pair.mean(axis=1, keepdims=True)),
            -total / references.shape[1] * (references - references.mean(axis=1, keepdims=True)),
        ],
        axis=1,
    )
    return compute_crossed_interval(
        values, influence, np.concatenate([chosen.true, held.true]), num_classes, confidence
    )


def unmeasured_cause(names: tuple[str, str], num_images: int, note: str) -> RootCause:
    """Return a root cause that could not be measured.

    Args:
        names: of the two classes.
        num_images: confused images that were found.
        note: why it could not be measured.
    """
    nothing = Interval(estimate=0.0, low=0.0, high=0.0)
    return RootCause(classes=names, effects=(), cause=MIXED, lead=nothing, num_images=num_images, note=note)

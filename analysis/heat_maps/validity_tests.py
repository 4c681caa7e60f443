"""When Grad-CAM may speak: four tests that could fail, made before a heat map counts as evidence.

A map is admitted if hardly any are empty, if it depends on what the model has learnt (parameter randomisation, Adebayo et al.
2018, arXiv:1810.03292), if removing what it marks costs more than removing what another image's map marks (ROAD, Rong et al.
2022, arXiv:2202.00449), and if its energy in the outer ring goes with what swapping the ring costs. Maps are scored raw, without
thresholds. Where the objects' masks are known, the energy on the object is held against that in other images' masks, which
takes away what every map owes to the centre of the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from analysis.audits.ring_swaps import RING_FRACTIONS, Images, make_ring, swap_ring
from analysis.audits.swap_effects import ALPHA, AuditImages, compute_mean_interval
from analysis.findings.forensic_findings import CamAdmission, CamTest
from analysis.findings.interval import Interval
from analysis.heat_maps.grad_cam import (
    CamLayer,
    ask_model,
    compute_cams,
    compute_predicted_cams,
    compute_road,
    is_degenerate,
)
from analysis.statistics.crossed_interval import compute_crossed_interval, compute_proportion_interval
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.seeds import derive_seed, numpy_generator

MOST_DEGENERATE = 0.01
# Mean rank correlation between the maps of a model and of the same network before it learnt anything.
MOST_SIMILAR = 0.5
# ROAD solves a linear system per image and step, so it is asked of this many.
ROAD_IMAGES = 48
# Return (n, 3, S, S) network inputs for (n, H, W, 3) images.
Prepare = Callable[[Images], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class CamModels:
    """An arm's S >= 2 models, the same networks with parameters drawn anew, how images become inputs, and the maps' layer."""

    trained: Sequence[nn.Module]
    randomized: Sequence[nn.Module]
    prepare: Prepare
    layer: CamLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maps:
    """(S, N, h, w) maps for the predicted classes, (S, N) those classes and their logits."""

    cams: NDArray[np.float32]
    predicted: IntArray
    logits: FloatArray


def admit_cams(models: CamModels, what: AuditImages, *, seed: int = 0) -> CamAdmission:
    """Return the four tests of an arm's maps, on images that no model was trained on, and whether all were passed.

    Every interval is for new seeds and new images. Raises UserInputError for one seed, and for a class with one image.
    """
    maps = _compute_maps(models.trained, what.images, models)
    tests = (
        _test_degenerate(maps, what),
        _test_randomisation(models, maps, what),
        _test_road(models, maps, what, seed),
        _test_ring(models, maps, what, seed),
    )
    return CamAdmission(
        layer=models.layer.name,
        map_size=models.layer.size,
        num_images=len(what.labels),
        tests=tests,
        is_admitted=all(test.is_passed for test in tests),
        object_focus=None if what.masks is None else _measure_focus(maps, what),
    )


def _compute_maps(networks: Sequence[nn.Module], images: Images, models: CamModels) -> _Maps:
    inputs = models.prepare(images)
    logits, cams = zip(*(compute_predicted_cams(n, inputs, models.layer.name) for n in networks), strict=True)
    predicted = np.stack([own.argmax(axis=1) for own in logits])
    highest = np.stack([own.max(axis=1) for own in logits])
    return _Maps(cams=np.stack(cams), predicted=predicted.astype(np.int64), logits=highest)


def _test_degenerate(maps: _Maps, what: AuditImages) -> CamTest:
    empty = np.array([[is_degenerate(cam) for cam in own] for own in maps.cams], dtype=np.float64)
    means = empty.mean(axis=1)
    found = compute_crossed_interval(means, empty - means[:, None], what.labels, len(what.class_names), 1 - ALPHA)
    share = compute_proportion_interval(
        found, num_seeds=len(means), num_observations=len(what.labels), confidence=1 - ALPHA
    )
    return CamTest(
        name="empty maps",
        estimate=share,
        rule=f"under {MOST_DEGENERATE:.0%} of the maps are empty or the same everywhere",
        is_passed=share.estimate < MOST_DEGENERATE,
    )


def _test_randomisation(models: CamModels, maps: _Maps, what: AuditImages) -> CamTest:
    inputs = models.prepare(what.images)
    similarity = []
    for network, cams, said in zip(models.randomized, maps.cams, maps.predicted, strict=True):
        others = compute_cams(network, inputs, said, models.layer.name)
        similarity.append([_correlate(cam, other) for cam, other in zip(cams, others, strict=True)])
    found = compute_mean_interval(np.array(similarity), what.labels, len(what.class_names))
    return CamTest(
        name="parameter randomisation",
        estimate=found,
        rule=f"the rank correlation with maps of the untrained network lies below {MOST_SIMILAR}",
        is_passed=found.high < MOST_SIMILAR,
    )


def _correlate(cam: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the rank correlation of two maps' cells: 1 where the first is empty (no change is seen), 0 where the second is."""
    if is_degenerate(cam):
        return 1.0
    if is_degenerate(other):
        return 0.0
    return float(np.corrcoef(rankdata(cam), rankdata(other))[0, 1])


def _test_road(models: CamModels, maps: _Maps, what: AuditImages, seed: int) -> CamTest:
    generator = numpy_generator(seed, "cam road")
    chosen = what.thin(ROAD_IMAGES)
    inputs = models.prepare(what.images[chosen])
    order = generator.permutation(len(chosen))
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    gains = []
    for number, network in enumerate(models.trained):
        cams, said = maps.cams[number][chosen], maps.predicted[number][chosen]
        own, foreign = (
            compute_road(network, inputs, found, said, seed=derive_seed(seed, "cam road noise", number))
            for found in (cams, cams[others])
        )
        gains.append(own - foreign)
    found = compute_mean_interval(np.array(gains), what.labels[chosen], len(what.class_names))
    return CamTest(
        name="ROAD",
        estimate=found,
        rule="removing what the map marks, most relevant first against least, costs more probability than with another "
        "image's map: the interval lies above 0",
        is_passed=found.low > 0,
    )


def _test_ring(models: CamModels, maps: _Maps, what: AuditImages, seed: int) -> CamTest:
    ring = make_ring(what.images.shape[1], what.images.shape[2], RING_FRACTIONS[0])
    generator = numpy_generator(seed, "cam ring")
    donors = generator.permutation(len(what.labels))
    swapped = swap_ring(what.images, what.images[donors], ring)
    changed = models.prepare(swapped)
    rows = np.arange(len(what.labels))
    values, influence = [], []
    for number, network in enumerate(models.trained):
        after = ask_model(network, changed)[rows, maps.predicted[number]]
        energy = _share_inside(maps.cams[number], ring[None])[:, 0]
        value, own = _rank_correlation(energy, maps.logits[number] - after)
        values.append(value)
        influence.append(own)
    found = compute_crossed_interval(
        np.array(values), np.stack(influence), what.labels, len(what.class_names), 1 - ALPHA
    ).interval
    return CamTest(
        name="agreement with swapped rings",
        estimate=found,
        rule="the map's energy in the outer ring rises with the logit lost when the ring is swapped: the interval of the rank "
        "correlation lies above 0",
        is_passed=found.low > 0,
    )


def _rank_correlation(one: FloatArray, other: FloatArray) -> tuple[float, FloatArray]:
    """Return Spearman's correlation of two (N,) values and each image's influence on it (as for Pearson's, on the ranks)."""
    ranks = [rankdata(values) for values in (one, other)]
    if min(np.ptp(r) for r in ranks) == 0:
        return 0.0, np.zeros(len(one))
    u, v = ((r - r.mean()) / r.std() for r in ranks)
    value = float(np.mean(u * v))
    return value, np.asarray(u * v - value * (u**2 + v**2) / 2)


def _share_inside(cams: NDArray[np.float32], regions: NDArray[np.bool_]) -> FloatArray:
    """Return (N, R) shares of each map's energy in each of (R, H, W) regions; 0 for a map without energy.

    Maps are enlarged bilinearly, as they are drawn.
    """
    size = regions.shape[1:]
    large = torch.nn.functional.interpolate(torch.from_numpy(cams)[:, None], size=size, mode="bilinear")[:, 0]
    flat = large.flatten(1).double().numpy()
    total = flat.sum(axis=1, keepdims=True)
    inside = flat @ regions.reshape(len(regions), -1).T.astype(np.float64)
    return np.asarray(np.divide(inside, total, out=np.zeros_like(inside), where=total > 0))


def _measure_focus(maps: _Maps, what: AuditImages) -> Interval:
    """Return the share of the maps' energy on the own object minus that in the other images' masks."""
    assert what.masks is not None
    focus = []
    for cams in maps.cams:
        inside = _share_inside(cams, what.masks)
        own = np.diag(inside)
        focus.append(own - (inside.sum(axis=1) - own) / (len(own) - 1))
    return compute_mean_interval(np.array(focus), what.labels, len(what.class_names))

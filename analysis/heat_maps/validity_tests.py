"""Validity tests of Grad-CAM: four tests that must be passed before heat maps count as evidence.

The maps of an arm are admitted if hardly any map is empty; if the maps depend on the trained parameters (parameter
randomization, Adebayo et al. 2018, arXiv:1810.03292); if removing the marked pixels costs more than removing those that another
image's map marks (ROAD, Rong et al. 2022, arXiv:2202.00449); and if the energy in the outer ring correlates with the logit lost
when the ring is swapped. Maps are scored raw, without thresholds. Where the objects' masks are known, the share of energy on
the object is compared with that inside other images' masks, which removes the bias of all maps toward the center.
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
    compute_cams,
    compute_logits_and_cams,
    compute_model_logits,
    compute_road,
    is_degenerate,
)
from analysis.statistics.crossed_interval import compute_crossed_interval, compute_share_interval
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.seeds import derive_seed, numpy_generator

MAX_DEGENERATE_FRACTION = 0.01
# Mean rank correlation between the maps of a model and those of the untrained network.
MAX_SIMILARITY = 0.5
# ROAD solves a linear system per image and percentile, hence the limit.
ROAD_IMAGES = 48
# Return (n, 3, S, S) network inputs for (n, H, W, 3) images.
Prepare = Callable[[Images], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class CamModels:
    """The models of an arm, for the tests of their maps.

    Attributes:
        trained: S >= 2 models.
        randomized: untrained networks of the same architecture, one per model.
        prepare: turns images into network inputs.
        layer: whose maps are tested.
    """

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


def admit_cams(models: CamModels, audit_images: AuditImages, *, seed: int = 0) -> CamAdmission:
    """Return the results of the four tests, and whether all were passed.

    Every interval is for new seeds and new images.

    Args:
        models: of the arm.
        audit_images: images that no model was trained on.
        seed: of ROAD and of the donors of rings.

    Raises:
        UserInputError: for one seed, and for a class with one image.
    """
    maps = _compute_maps(models.trained, audit_images.images, models)
    tests = (
        _test_degenerate(maps, audit_images),
        _test_randomization(models, maps, audit_images),
        _test_road(models, maps, audit_images, seed),
        _test_ring(models, maps, audit_images, seed),
    )
    return CamAdmission(
        layer=models.layer.name,
        map_size=models.layer.size,
        num_images=len(audit_images.labels),
        tests=tests,
        is_admitted=all(test.is_passed for test in tests),
        object_focus=None if audit_images.masks is None else _measure_focus(maps, audit_images),
    )


def _compute_maps(networks: Sequence[nn.Module], images: Images, models: CamModels) -> _Maps:
    inputs = models.prepare(images)
    logits, cams = zip(*(compute_logits_and_cams(n, inputs, models.layer.name) for n in networks), strict=True)
    predicted = np.stack([own.argmax(axis=1) for own in logits])
    highest = np.stack([own.max(axis=1) for own in logits])
    return _Maps(cams=np.stack(cams), predicted=predicted.astype(np.int64), logits=highest)


def _test_degenerate(maps: _Maps, audit_images: AuditImages) -> CamTest:
    empty = np.array([[is_degenerate(cam) for cam in own] for own in maps.cams], dtype=np.float64)
    share = compute_share_interval(empty, audit_images.labels, len(audit_images.class_names), 1 - ALPHA)
    return CamTest(
        name="empty maps",
        estimate=share,
        rule=f"under {MAX_DEGENERATE_FRACTION:.0%} of the maps are empty or the same everywhere",
        is_passed=share.estimate < MAX_DEGENERATE_FRACTION,
    )


def _test_randomization(models: CamModels, maps: _Maps, audit_images: AuditImages) -> CamTest:
    inputs = models.prepare(audit_images.images)
    similarity = []
    for network, cams, predicted in zip(models.randomized, maps.cams, maps.predicted, strict=True):
        others = compute_cams(network, inputs, predicted, models.layer.name)
        similarity.append([_correlate(cam, other) for cam, other in zip(cams, others, strict=True)])
    found = compute_mean_interval(np.array(similarity), audit_images.labels, len(audit_images.class_names))
    return CamTest(
        name="parameter randomization",
        estimate=found,
        rule=f"the rank correlation with maps of the untrained network lies below {MAX_SIMILARITY}",
        is_passed=found.high < MAX_SIMILARITY,
    )


def _correlate(cam: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the rank correlation of two maps' cells: 1 if the first is empty, which shows no change, 0 if the second is."""
    if is_degenerate(cam):
        return 1.0
    if is_degenerate(other):
        return 0.0
    return float(np.corrcoef(rankdata(cam), rankdata(other))[0, 1])


def _test_road(models: CamModels, maps: _Maps, audit_images: AuditImages, seed: int) -> CamTest:
    generator = numpy_generator(seed, "cam road")
    chosen = audit_images.thin(ROAD_IMAGES)
    inputs = models.prepare(audit_images.images[chosen])
    order = generator.permutation(len(chosen))
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    gains = []
    for number, network in enumerate(models.trained):
        cams, predicted = maps.cams[number][chosen], maps.predicted[number][chosen]
        own, foreign = (
            compute_road(network, inputs, found, predicted, seed=derive_seed(seed, "cam road noise", number))
            for found in (cams, cams[others])
        )
        gains.append(own - foreign)
    found = compute_mean_interval(np.array(gains), audit_images.labels[chosen], len(audit_images.class_names))
    return CamTest(
        name="ROAD",
        estimate=found,
        rule="removing the pixels that the map marks costs more probability than removing those that another image's map "
        "marks: the interval lies above 0",
        is_passed=found.low > 0,
    )


def _test_ring(models: CamModels, maps: _Maps, audit_images: AuditImages, seed: int) -> CamTest:
    ring = make_ring(audit_images.images.shape[1], audit_images.images.shape[2], RING_FRACTIONS[0])
    generator = numpy_generator(seed, "cam ring")
    donors = generator.permutation(len(audit_images.labels))
    swapped = swap_ring(audit_images.images, audit_images.images[donors], ring)
    changed = models.prepare(swapped)
    rows = np.arange(len(audit_images.labels))
    values, influence = [], []
    for number, network in enumerate(models.trained):
        after = compute_model_logits(network, changed)[rows, maps.predicted[number]]
        energy = _share_inside(maps.cams[number], ring[None])[:, 0]
        value, own = _rank_correlation(energy, maps.logits[number] - after)
        values.append(value)
        influence.append(own)
    found = compute_crossed_interval(
        np.array(values), np.stack(influence), audit_images.labels, len(audit_images.class_names), 1 - ALPHA
    ).interval
    return CamTest(
        name="agreement with swapped rings",
        estimate=found,
        rule="the energy in the outer ring correlates with the logit lost when the ring is swapped: the interval of the rank "
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


def _measure_focus(maps: _Maps, audit_images: AuditImages) -> Interval:
    """Return the share of the maps' energy inside the image's own mask minus that inside the other images' masks."""
    assert audit_images.masks is not None
    focus = []
    for cams in maps.cams:
        inside = _share_inside(cams, audit_images.masks)
        own = np.diag(inside)
        focus.append(own - (inside.sum(axis=1) - own) / (len(own) - 1))
    return compute_mean_interval(np.array(focus), audit_images.labels, len(audit_images.class_names))

"""Validity tests of heat maps: four tests that must be passed before heat maps count as evidence.

The maps of an arm are admitted if hardly any map is empty; if the maps depend on the trained parameters (parameter
randomization, Adebayo et al. 2018, arXiv:1810.03292); if removing the marked pixels costs more than removing those that another
image's map marks (ROAD, Rong et al. 2022, arXiv:2202.00449); and, where the ring influences the network at all, if the energy in
the outer ring correlates with the logit lost when the ring is swapped. Method and layer were chosen on other images
(`analysis.heat_maps.choice`). Maps are scored raw, without thresholds. Where the objects' masks are known, the share of energy
on the object is compared with that inside other images' masks, which removes the bias of all maps toward the center.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from analysis.heat_maps import choice
from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.grad_cam import Cams, compute_cams, enlarge, find_degenerate
from analysis.heat_maps.road import compute_road_gain
from analysis.heat_maps.values import CamAdmission, CamSource, CamTest
from analysis.shortcuts.swaps import ALPHA, AuditImages, bound_mean, swap_ring
from analysis.statistics.families import Cell, Scale, compute_two_intervals
from analysis.statistics.interval import TwoIntervals
from analysis.statistics.metrics import BoolArray, FloatArray, IntArray
from search_spaces.errors import UserInputError
from trainables.data.augmentation.mixing import RING_FRACTIONS, make_ring
from trainables.data.padding import lay_mask
from trainables.seeds import derive_seed, numpy_generator

# A gain of one percentage point of probability is immaterial. Maps of untrained networks gain .1 pp, which is real: they are
# faithful to networks that have learned nothing.
MIN_ROAD_GAIN = 0.01
# The ring matters where swapping it changes the logit by more than this share of what another image changes it by.
MIN_RING_INFLUENCE = 0.1
# ROAD solves a linear system per image and fraction, hence the limit.
ROAD_IMAGES = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class CamModels:
    """The models of an arm, for the choice and the tests of their maps.

    Attributes:
        trained: S models; with one, there are intervals for these models only. With folds, the model of each fold, which together
            are one: each is asked about the images of its fold alone.
        randomized: untrained networks of the same architecture, one per model.
    """

    trained: Sequence[CamNetwork]
    randomized: Sequence[CamNetwork]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maps:
    """(S, N, h, w) maps for the predicted classes, (S, N) those classes and their logits."""

    source: CamSource
    cams: Cams
    predicted: IntArray
    logits: FloatArray


def admit_cams(models: CamModels, audit_images: AuditImages, *, seed: int = 0) -> CamAdmission:
    """Choose method and layer on one half of the images, and return the results of the four tests on the other half.

    The choice is made with the first model, with folds on the images of its fold. A test is passed if its interval for these
    models fulfills the rule; the share of empty maps is compared as it is.

    Args:
        models: of the arm.
        audit_images: images that no model was trained on.
        seed: of the choice, of ROAD and of the donors of rings.

    Raises:
        NoCamLayerError: if no layer's maps are large enough for a heat map.
        UserInputError: if no class has four images.
    """
    for_choice, for_tests = choice.divide_audit_images(audit_images)
    if not len(for_tests.labels):
        raise UserInputError("the tests of heat maps need four images of a class, but no class has so many; add images")
    first = 0 if for_choice.folds is None else int(for_choice.folds.min())
    for_choice = for_choice.take(for_choice.divide(len(models.trained))[first])
    source, candidates = choice.choose_cam(models.trained[first], models.randomized[first], for_choice, seed=seed)
    maps = _compute_maps(models.trained, for_tests, source)
    tests = (
        _test_degenerate(maps, for_tests),
        _test_randomization(models, maps, for_tests),
        _test_road(models, maps, for_tests, seed),
        _test_ring(models, maps, for_tests, seed),
    )
    return CamAdmission(
        **asdict(source),
        candidates=candidates,
        num_images=len(for_tests.labels),
        tests=tests,
        is_admitted=all(test.is_passed for test in tests if test.applies),
        object_focus=_measure_focus(maps, for_tests),
    )


def _compute_maps(networks: Sequence[CamNetwork], audit_images: AuditImages, source: CamSource) -> _Maps:
    parts = _assign(networks, audit_images)
    passes = [compute_cams(n, n.prepare(audit_images.images[own]), source.layer) for n, _, own in parts]
    logits = _join([found.logits for found in passes], parts, audit_images)
    return _Maps(
        source=source,
        cams=_join([found.maps[source.method] for found in passes], parts, audit_images),
        predicted=logits.argmax(axis=2).astype(np.int64),
        logits=logits,
    )


_Part = tuple[CamNetwork, int, IntArray]


def _assign(networks: Sequence[CamNetwork], audit_images: AuditImages) -> list[_Part]:
    """Return each network with its row of `_Maps` and the indices of its images: all, or with folds those of its own fold."""
    divided = zip(networks, audit_images.divide(len(networks)), strict=True)
    has_folds = audit_images.folds is not None
    return [(n, 0 if has_folds else row, own) for row, (n, own) in enumerate(divided) if len(own)]


def _join(found: Sequence[NDArray[Any]], parts: Sequence[_Part], audit_images: AuditImages) -> NDArray[Any]:
    """Return (S, N, ...) values of the images from the (n, ...) of each part."""
    if audit_images.folds is None:
        return np.stack(found)
    return np.concatenate(found)[np.argsort(np.concatenate([own for _, _, own in parts]))][None]


def _test_degenerate(maps: _Maps, audit_images: AuditImages) -> CamTest:
    empty = np.stack([find_degenerate(cams) for cams in maps.cams]).astype(np.float64)
    share = bound_mean(audit_images.effects(empty), scale=Scale.PROPORTION)
    return CamTest(
        name="empty maps",
        estimate=share,
        rule=f"under {choice.MAX_DEGENERATE_FRACTION:.0%} of the maps are empty or the same everywhere",
        is_passed=share.estimate < choice.MAX_DEGENERATE_FRACTION,
    )


def _test_randomization(models: CamModels, maps: _Maps, audit_images: AuditImages) -> CamTest:
    similarity, parts = [], _assign(models.randomized, audit_images)
    for network, row, own in parts:
        inputs, predicted = network.prepare(audit_images.images[own]), maps.predicted[row, own]
        others = compute_cams(network, inputs, maps.source.layer, predicted).maps[maps.source.method]
        similarity.append(choice.compute_similarity(maps.cams[row, own], others))
    found = bound_mean(audit_images.effects(_join(similarity, parts, audit_images)), scale=Scale.UNBOUNDED)
    return CamTest(
        name="parameter randomization",
        estimate=found,
        rule=f"the rank correlation with maps of the untrained network lies below {choice.MAX_SIMILARITY}",
        is_passed=found.models.high < choice.MAX_SIMILARITY,
    )


def _test_road(models: CamModels, maps: _Maps, audit_images: AuditImages, seed: int) -> CamTest:
    chosen = audit_images.thin(ROAD_IMAGES)
    audit_images = audit_images.take(chosen)
    parts = _assign(models.trained, audit_images)
    gains = [
        compute_road_gain(
            network,
            network.prepare(audit_images.images[own]),
            maps.cams[row, chosen[own]],
            maps.predicted[row, chosen[own]],
            choice.draw_cycle(audit_images.images[own], numpy_generator(seed, "cam road")),
            seed=derive_seed(seed, "cam road noise", number),
        )
        for number, (network, row, own) in enumerate(parts)
    ]
    found = bound_mean(audit_images.effects(_join(gains, parts, audit_images)), scale=Scale.UNBOUNDED)
    return CamTest(
        name="ROAD",
        estimate=found,
        rule="removing the pixels that the map marks costs more probability than removing those that another image's map "
        f"marks: the interval lies above {MIN_ROAD_GAIN}",
        is_passed=found.models.low > MIN_ROAD_GAIN,
    )


def _test_ring(models: CamModels, maps: _Maps, audit_images: AuditImages, seed: int) -> CamTest:
    """Test the maps' energy in the ring against the logit that the ring changes.

    The test applies unless the ring's influence is shown to be small: the mean absolute change of the logit, over that by
    another whole image, from the same donors.
    """
    ring = make_ring(audit_images.images.shape[1], audit_images.images.shape[2], RING_FRACTIONS[0])
    donors, parts = np.arange(len(audit_images.labels)), _assign(models.trained, audit_images)
    for _, _, own in parts:
        donors[own] = own[choice.draw_cycle(audit_images.images[own], numpy_generator(seed, "cam ring"))]
    swapped = swap_ring(audit_images.images, audit_images.images[donors], ring)
    rings = lay_mask(ring, audit_images.images)
    rows = np.arange(len(audit_images.labels))
    after = _join([n.compute_logits(n.prepare(swapped[own])) for n, _, own in parts], parts, audit_images)
    correlations, ratios = [], []
    for logits, predicted, changed, cams in zip(maps.logits, maps.predicted, after, maps.cams, strict=True):
        before = logits[rows, predicted]
        lost = before - changed[rows, predicted]
        ratios.append(_compute_ratio(np.abs(lost), np.abs(before - logits[donors, predicted])))
        inside = _share_inside(cams, rings)
        energy = inside[:, 0] if len(rings) == 1 else np.diag(inside)
        correlations.append(_rank_correlation(energy, lost))
    correlation, influence = (_compute_cell(found, audit_images) for found in (correlations, ratios))
    return CamTest(
        name="agreement with swapped rings",
        estimate=correlation,
        rule="the energy in the outer ring correlates with the logit lost when the ring is swapped: the interval of the rank "
        f"correlation lies above 0. Swapping the ring changes the logit by {influence.estimate:.0%} "
        f"[{influence.models.low:.0%}, {influence.models.high:.0%}] of what another image changes it by; the test does not apply "
        f"where this interval lies below {MIN_RING_INFLUENCE:.0%}",
        is_passed=correlation.models.low > 0,
        applies=not influence.models.high < MIN_RING_INFLUENCE,
    )


def _compute_cell(found: Sequence[tuple[float, FloatArray]], images: AuditImages) -> TwoIntervals:
    """Return the intervals of a statistic from its value and influence per model."""
    values, influence = zip(*found, strict=True)
    cell = Cell(
        values=np.array(values),
        influence=np.stack(influence),
        labels=images.labels,
        num_observations=float(len(images.labels)),
        groups=images.groups,
    )
    return compute_two_intervals(cell, scale=Scale.UNBOUNDED, confidence=1 - ALPHA)


def _compute_ratio(one: FloatArray, other: FloatArray) -> tuple[float, FloatArray]:
    """Return the ratio of two means of (N,) values and each image's influence on it; 0 where the second mean is 0."""
    if other.mean() == 0:
        return 0.0, np.zeros(len(one))
    value = float(one.mean() / other.mean())
    return value, np.asarray((one - value * other) / other.mean())


def _rank_correlation(one: FloatArray, other: FloatArray) -> tuple[float, FloatArray]:
    """Return Spearman's correlation of two (N,) values and each image's influence on it (as for Pearson's, on the ranks)."""
    ranks = [rankdata(values) for values in (one, other)]
    if min(np.ptp(r) for r in ranks) == 0:
        return 0.0, np.zeros(len(one))
    u, v = ((r - r.mean()) / r.std() for r in ranks)
    value = float(np.mean(u * v))
    return value, np.asarray(u * v - value * (u**2 + v**2) / 2)


def _share_inside(cams: Cams, regions: BoolArray) -> FloatArray:
    """Return (N, R) shares of each map's energy in each of (R, H, W) regions; 0 for a map without energy.

    Maps are enlarged bilinearly, as they are drawn.
    """
    flat = enlarge(cams, regions.shape[1:]).reshape(len(cams), -1).astype(np.float64)
    total = flat.sum(axis=1, keepdims=True)
    inside = flat @ regions.reshape(len(regions), -1).T.astype(np.float64)
    return np.asarray(np.divide(inside, total, out=np.zeros_like(inside), where=total > 0))


def _measure_focus(maps: _Maps, audit_images: AuditImages) -> TwoIntervals | None:
    """Return the share of the maps' energy inside the image's own mask minus that inside the other images' masks.

    Images whose masks are empty, such as those without a defect, are left out; None if fewer than two are left.
    """
    marked = np.flatnonzero(audit_images.masks.any(axis=(1, 2))) if audit_images.masks is not None else np.arange(0)
    if len(marked) < 2:
        return None
    audit_images = audit_images.take(marked)
    assert audit_images.masks is not None
    focus = []
    for cams in maps.cams[:, marked]:
        inside = _share_inside(cams, audit_images.masks)
        own = np.diag(inside)
        focus.append(own - (inside.sum(axis=1) - own) / (len(own) - 1))
    return bound_mean(audit_images.effects(np.array(focus)), scale=Scale.DIFFERENCE)

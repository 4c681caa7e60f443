"""The choice of a method and a layer for an arm's heat maps, by measurement.

No rule of thumb holds: the method that ranks pixels best for one network is useless for another. The choice is made on images
that the tests of admission do not use.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.stats import rankdata

from analysis.heat_maps import grad_cam
from analysis.heat_maps.cam_layers import CamNetwork
from analysis.heat_maps.road import compute_road_gain
from analysis.heat_maps.values import CamCandidate, CamSource
from analysis.shortcuts.swaps import AuditImages, Images
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.data.image_array import cut_content, has_padding
from trainables.seeds import derive_seed, numpy_generator

MAX_DEGENERATE_FRACTION = 0.01
# Mean rank correlation between the maps of a model and those of the untrained network.
MAX_SIMILARITY = 0.5
# ROAD solves a linear system per image and fraction: all candidates are measured on the first images, the best ones on all.
CHOICE_IMAGES = 96
FIRST_IMAGES = 32
NUM_FINALISTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    source: CamSource
    maps: grad_cam.Cams
    empty_share: float
    similarity: float
    gains: FloatArray

    def rank(self) -> tuple[bool, float]:
        is_refused = self.empty_share >= MAX_DEGENERATE_FRACTION or self.similarity >= MAX_SIMILARITY
        return is_refused, -float(self.gains.mean())

    def describe(self) -> CamCandidate:
        return CamCandidate(
            **asdict(self.source),
            num_images=len(self.gains),
            road=float(self.gains.mean()),
            standard_error=float(self.gains.std(ddof=1) / np.sqrt(len(self.gains))),
            empty_share=self.empty_share,
            similarity=self.similarity,
        )


def choose_cam(
    network: CamNetwork, randomized: CamNetwork, audit_images: AuditImages, *, seed: int
) -> tuple[CamSource, tuple[CamCandidate, ...]]:
    """Return the method and layer whose maps have the best ROAD: gain with the own map over another image's map.

    Candidates are all methods at all layers of at least `MINIMUM_SIZE` cells. Those whose maps are empty too often or too
    similar to maps of the untrained network rank behind all others, because the tests would refuse them. All candidates are
    measured on `FIRST_IMAGES`, the best `NUM_FINALISTS` on `CHOICE_IMAGES`.

    Args:
        network: of the arm; of several, the first.
        randomized: an untrained network of the same architecture.
        audit_images: for the choice alone.
        seed: of the images' order and of ROAD.

    Returns:
        The source, and the measurements of all candidates in `CamAdmission`'s form, finalists first, the best one first.

    Raises:
        NoCamLayerError: if no layer's maps are large enough for a heat map.
    """
    chosen = numpy_generator(seed, "cam choice").permutation(audit_images.thin(CHOICE_IMAGES))
    images = audit_images.images[chosen]
    inputs = network.prepare(images)
    predicted = network.compute_logits(inputs).argmax(axis=1)
    measured, networks = [], (network, randomized)
    for layer, size in grad_cam.find_cam_layers(network):
        own, untrained = (grad_cam.compute_cams(n, n.prepare(images), layer, predicted).maps for n in networks)
        for method in grad_cam.CamMethod:
            candidate = _Measured(
                source=CamSource(layer=layer, map_size=size, method=method),
                maps=own[method],
                empty_share=float(grad_cam.find_degenerate(own[method]).mean()),
                similarity=float(np.mean(compute_similarity(own[method], untrained[method]))),
                gains=np.zeros(0),
            )
            measured.append(candidate)

    def extend(candidates: Sequence[_Measured], part: slice) -> list[_Measured]:
        longer = []
        for candidate in candidates:
            partners = draw_cycle(images[part], numpy_generator(seed, "cam choice partners", part.start))
            gains = compute_road_gain(
                network,
                inputs[part],
                candidate.maps[part],
                predicted[part],
                partners,
                seed=derive_seed(seed, "cam choice road", part.start),
            )
            longer.append(replace(candidate, gains=np.concatenate([candidate.gains, gains])))
        return sorted(longer, key=_Measured.rank)

    ranked = extend(measured, slice(0, FIRST_IMAGES))
    finalists = ranked[:NUM_FINALISTS]
    # Two images are the fewest that can exchange maps.
    if len(chosen) >= FIRST_IMAGES + 2:
        finalists = extend(finalists, slice(FIRST_IMAGES, len(chosen)))
    ordered = [*finalists, *ranked[NUM_FINALISTS:]]
    return finalists[0].source, tuple(m.describe() for m in ordered)


def compute_similarity(cams: grad_cam.Cams, others: grad_cam.Cams) -> FloatArray:
    """Return (N,) the rank correlation of the cells of two (N, h, w) maps.

    It is 1 if the first map is empty, which shows no change, and 0 if only the second is.
    """
    return np.array([_correlate(cam, other) for cam, other in zip(cams, others, strict=True)])


def _correlate(cam: grad_cam.Cams, other: grad_cam.Cams) -> float:
    if grad_cam.is_degenerate(cam):
        return 1.0
    if grad_cam.is_degenerate(other):
        return 0.0
    return float(np.corrcoef(rankdata(cam), rankdata(other))[0, 1])


def draw_cycle(images: Images, generator: np.random.Generator) -> IntArray:
    """Return (N,) a random permutation of (N, H, W, 3) images that is one cycle, so that no image is its own partner.

    Where images are padded, partners are neighbors by shape: a map of content of another shape would be no fair rival.
    """
    order = generator.permutation(len(images))
    if has_padding(images):
        shapes = [content.shape for content in map(cut_content, images)]
        order = order[np.argsort([shapes[i][0] - shapes[i][1] for i in order], kind="stable")]
    partners = np.empty_like(order)
    partners[order] = np.roll(order, 1)
    return partners


def divide_audit_images(audit_images: AuditImages) -> tuple[AuditImages, AuditImages]:
    """Return two halves, stratified by class and fold: for the choice, and for the tests.

    Classes with fewer than four images (of a fold) are left out, because an interval needs two of each.
    """
    halves: tuple[list[IntArray], list[IntArray]] = ([], [])
    for stratum in np.unique(audit_images.strata):
        own = np.flatnonzero(audit_images.strata == stratum)
        if len(own) >= 4:
            for half, indices in zip(halves, (own[::2], own[1::2]), strict=True):
                half.append(indices)
    none = np.zeros(0, dtype=np.int64)
    choice, test = (audit_images.take(np.sort(np.concatenate([none, *half]))) for half in halves)
    return choice, test

"""The audits of a confirmed study's arms: which images and which models they use, and why an audit is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.audits.confused_images import CauseModels, ConfusedClasses, split_seeds
from analysis.audits.cues import MIN_SIDE, describe_small_images
from analysis.audits.ring_swaps import Images
from analysis.audits.root_cause import find_root_causes
from analysis.audits.swap_audits import SwapAudits, judge_swaps, measure_swaps
from analysis.audits.swap_effects import AuditImages
from analysis.evidence.arm_evidence import ArmEvidence
from analysis.findings.arm_findings import ArmAudits, ArmConfusions
from analysis.findings.class_findings import Materiality
from analysis.findings.forensic_findings import CamAdmission, RootCause
from analysis.heat_maps.grad_cam import NoCamLayerError
from analysis.heat_maps.validity_tests import admit_cams
from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError
from study.open_study import OpenStudy
from study.results.confirmed_models import has_network, load_cam_models, make_logits
from trainables.data.images import ImageSet
from trainables.seeds import numpy_generator

# The strongest confused pairs, whose pulls and causes are measured.
MAX_PAIRS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedArm:
    """The audits of an arm, and those of its exported model alone, from the same forward passes; the default is not audited.

    Attributes:
        audits: of all models of the arm.
        exported: of the first planned seed, for that model.
    """

    audits: ArmAudits = field(default_factory=ArmAudits)
    exported: SwapAudits = field(default_factory=SwapAudits)


def audit_arms(
    study: OpenStudy,
    confusions: Mapping[str, ArmConfusions],
    evidence: Mapping[str, ArmEvidence],
    image_set: ImageSet,
    on_step: Callable[[str], None],
) -> tuple[dict[str, AuditedArm], str]:
    """Return the audits by arm, and why there are none or why no root cause is tested; "" where all were made.

    Args:
        study: that the arms belong to.
        confusions: by arm; the strongest confused pairs and material cells get pulls and causes.
        evidence: by arm; the first of its runs is that of the exported model.
        image_set: of the study; the audits use images of the test split.
        on_step: called with the name of each step as it begins.
    """
    no_audits = dict.fromkeys(confusions, AuditedArm())
    if not study.spec.analyze.num_audit_images:
        return no_audits, "The Clever Hans audit was switched off (analyze.num_audit_images = 0)."
    first = next(iter(evidence.values())).predictions[0]
    ids = choose_audit_images(first.sample_ids, first.labels, study.spec.analyze.num_audit_images, study.spec.seed)
    audit_images = AuditImages(
        images=image_set.images[ids],
        labels=image_set.labels[ids],
        class_names=image_set.class_names,
        masks=None if image_set.masks is None else image_set.masks[ids],
    )
    try:
        audited = {
            arm: _audit_arm(study, found, evidence[arm], image_set, audit_images, on_step)
            for arm, found in confusions.items()
        }
    except UserInputError as error:
        return no_audits, f"The Clever Hans audit could not be made: {error}."
    height, width = image_set.images.shape[1:3]
    is_small = min(height, width) < MIN_SIDE
    return audited, f"No root cause is tested: {describe_small_images(height, width)}." if is_small else ""


def rank_confusions(confusions: ArmConfusions) -> tuple[tuple[str, str], ...]:
    """Return the cells of the confusion matrix to explain, (true, predicted), the strongest pair of classes first.

    They are both cells of each significant pair, and the directed cells that are MATERIAL for these models. The strength of a
    pair is its confusion rate, or the rate of its material cell if that is higher.
    """
    strengths: dict[frozenset[str], float] = {}
    cells: dict[frozenset[str], list[tuple[str, str]]] = {}
    for found in confusions.confused_pairs:
        one, other = found.classes
        cells[frozenset(found.classes)] = [(one, other), (other, one)]
        strengths[frozenset(found.classes)] = found.rate.estimate
    for cell in confusions.directed:
        if cell.verdict is Materiality.MATERIAL:
            way = (cell.true_class, cell.predicted_class)
            pair = frozenset(way)
            cells.setdefault(pair, [])
            cells[pair] += [] if way in cells[pair] else [way]
            strengths[pair] = max(strengths.get(pair, 0.0), cell.rate.estimate)
    return tuple(cell for pair in sorted(cells, key=lambda pair: -strengths[pair]) for cell in cells[pair])


def _audit_arm(
    study: OpenStudy,
    confusions: ArmConfusions,
    evidence: ArmEvidence,
    image_set: ImageSet,
    audit_images: AuditImages,
    on_step: Callable[[str], None],
) -> AuditedArm:
    step = f"{evidence.arm}, {len(audit_images.labels)} images:"
    compute_logits = make_logits(study, evidence.runs, len(audit_images.class_names))

    def classify(images: Images) -> IntArray:
        return np.asarray(compute_logits(images).argmax(axis=2), dtype=np.int64)

    index = {name: i for i, name in enumerate(audit_images.class_names)}
    cells = [(index[true], index[predicted]) for true, predicted in rank_confusions(confusions)]
    strongest = list(dict.fromkeys(frozenset(cell) for cell in cells))[:MAX_PAIRS]
    pulled: list[tuple[int, int]] = []
    causes: tuple[RootCause, ...] = ()
    if len(audit_images.class_names) > 2:
        pulled = [cell for cell in cells if frozenset(cell) in strongest]
        on_step(f"{step} root causes of {len(strongest)} confused pairs")
        causes = find_causes(study, evidence, image_set, pulled)
    on_step(f"{step} ring, color and frequency audits")
    measured = measure_swaps(classify, audit_images, pulled, seed=study.spec.seed)
    on_step(f"{step} validity tests of the heat maps")
    cam_admission = _admit_cams(study, evidence, audit_images)
    return AuditedArm(
        audits=ArmAudits(**vars(judge_swaps(measured)), root_causes=causes, cam_admission=cam_admission),
        exported=judge_swaps(measured.take_first()),
    )


def _admit_cams(study: OpenStudy, evidence: ArmEvidence, audit_images: AuditImages) -> CamAdmission | None:
    """Return whether the arm's heat maps are evidence; None where its images are too small for any, or it has no network."""
    if not has_network(evidence.runs[0]):
        return None
    models = load_cam_models(study, evidence.runs, len(audit_images.class_names))
    try:
        return admit_cams(models, audit_images, seed=study.spec.seed)
    except NoCamLayerError:
        return None


def find_causes(
    study: OpenStudy, evidence: ArmEvidence, image_set: ImageSet, cells: Sequence[tuple[int, int]]
) -> tuple[RootCause, ...]:
    """Return the causes of the confusions of `cells`; their errors are taken from the whole test split.

    A pair with both of its cells is one confusion, another cell is a directed one. Images that are too small have none.
    """
    if min(image_set.images.shape[1:3]) < MIN_SIDE:
        return ()
    confusions = [
        ConfusedClasses(one=true, other=predicted, is_directed=(predicted, true) not in cells)
        for place, (true, predicted) in enumerate(cells)
        if (predicted, true) not in cells[:place]
    ]
    selecting, measuring = split_seeds(len(evidence.runs))
    logits = np.stack([predictions.logits for predictions in evidence.predictions]).astype(np.float64)
    models = CauseModels(
        sample_ids=evidence.predictions[0].sample_ids,
        selecting=logits[selecting],
        measuring=logits[measuring],
        compute_logits=make_logits(study, evidence.runs[measuring], len(image_set.class_names)),
        are_own_errors=len(evidence.runs) == 1,
    )
    test_images = AuditImages(
        images=image_set.images, labels=image_set.labels, class_names=image_set.class_names, masks=image_set.masks
    )
    return find_root_causes(models, test_images, confusions, seed=study.spec.seed)


def choose_audit_images(ids: np.ndarray, labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Return at most `number` of the images, stratified by class.

    Args:
        ids: (N,) sample ids.
        labels: (N,) their classes.
        number: of images wanted.
        seed: of the choice.

    Returns:
        The chosen sample ids, sorted.
    """
    if len(ids) <= number:
        return ids
    generator = numpy_generator(seed, "audit-images")
    order = generator.permutation(len(ids))
    # Every k-th image of a random order within each class.
    ranks = np.empty(len(ids))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        ranks[own] = (np.arange(len(own)) + 0.5) / len(own)
    return np.sort(ids[np.argsort(ranks, kind="stable")[:number]])

"""The audits of a confirmed study's arms: which images and which models they use, and why an audit is missing."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from analysis.audits.frequency_audit import audit_frequencies
from analysis.audits.ring_audit import audit_rings, measure_color_losses, measure_pull
from analysis.audits.ring_swaps import Images
from analysis.audits.root_cause import find_root_cause, unmeasured_cause
from analysis.audits.swap_effects import AuditImages
from analysis.evidence.arm_evidence import ArmEvidence
from analysis.findings.arm_findings import ArmAudits
from analysis.findings.class_findings import ConfusedPair
from analysis.findings.forensic_findings import CamAdmission, PairPull, RootCause
from analysis.heat_maps.grad_cam import NoCamLayerError
from analysis.heat_maps.validity_tests import admit_cams
from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError
from study.open_study import OpenStudy
from study.results.confirmed_models import load_cam_models, make_logits
from trainables.data.images import ImageSet
from trainables.seeds import numpy_generator

# The strongest pairs, whose pulls and causes are measured.
MAX_PAIRS = 6


def audit_arms(
    study: OpenStudy,
    pairs: Mapping[str, Sequence[ConfusedPair]],
    evidence: Mapping[str, ArmEvidence],
    image_set: ImageSet,
    on_step: Callable[[str], None],
) -> tuple[dict[str, ArmAudits], str]:
    """Return the audits by arm, and why there are none; "" where there are.

    Args:
        study: that the arms belong to.
        pairs: confused pairs by arm, the strongest first.
        evidence: by arm.
        image_set: of the study; the audits use images of the test split.
        on_step: called with the name of each step as it begins.
    """
    no_audits = dict.fromkeys(pairs, ArmAudits())
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
        return {
            arm: _audit_arm(study, own_pairs, evidence[arm], audit_images, on_step) for arm, own_pairs in pairs.items()
        }, ""
    except UserInputError as error:
        return no_audits, f"The Clever Hans audit could not be made: {error}."


def _audit_arm(
    study: OpenStudy,
    pairs: Sequence[ConfusedPair],
    evidence: ArmEvidence,
    audit_images: AuditImages,
    on_step: Callable[[str], None],
) -> ArmAudits:
    step = f"{evidence.arm}, {len(audit_images.labels)} images:"
    compute_logits = make_logits(study, evidence.runs, len(audit_images.class_names))

    def classify(images: Images) -> IntArray:
        return np.asarray(compute_logits(images).argmax(axis=2), dtype=np.int64)

    index = {name: i for i, name in enumerate(audit_images.class_names)}
    confused = [(index[pair.classes[0]], index[pair.classes[1]]) for pair in pairs]
    strongest = confused[:MAX_PAIRS]
    pulls: tuple[PairPull, ...] = ()
    causes: tuple[RootCause, ...] = ()
    if len(audit_images.class_names) > 2:
        on_step(f"{step} root causes of {len(strongest)} confused pairs")
        directed = [way for one, other in strongest for way in ((one, other), (other, one))]
        pulls = tuple(measure_pull(classify, audit_images, one, other) for one, other in directed)
        causes = _find_causes(study, evidence, audit_images, strongest, confused)
    on_step(f"{step} ring, color and frequency audits")
    rings = audit_rings(classify, audit_images, seed=study.spec.seed)
    colour_losses = measure_color_losses(classify, audit_images)
    frequency_audit = audit_frequencies(classify, audit_images, seed=study.spec.seed)
    on_step(f"{step} validity tests of the heat maps")
    return ArmAudits(
        ring_audits=rings,
        pulls=pulls,
        root_causes=causes,
        colour_losses=colour_losses,
        frequency_audit=frequency_audit,
        cam_admission=_admit_cams(study, evidence, audit_images),
    )


def _admit_cams(study: OpenStudy, evidence: ArmEvidence, audit_images: AuditImages) -> CamAdmission | None:
    """Return whether the arm's heat maps are evidence; None where its images are too small for any."""
    try:
        models = load_cam_models(study, evidence.runs, len(audit_images.class_names))
    except NoCamLayerError:
        return None
    return admit_cams(models, audit_images, seed=study.spec.seed)


def _find_causes(
    study: OpenStudy,
    evidence: ArmEvidence,
    audit_images: AuditImages,
    pairs: Sequence[tuple[int, int]],
    confused: Sequence[tuple[int, int]],
) -> tuple[RootCause, ...]:
    """Return the causes of `pairs`: a third of the seeds selects the images, the others measure."""
    names = audit_images.class_names
    third = len(evidence.runs) // 3
    if third < 1:
        note = "three seeds are needed: one third selects the images, at least two seeds measure"
        return tuple(unmeasured_cause((names[one], names[other]), 0, note) for one, other in pairs)
    selecting, measuring = (
        make_logits(study, runs, len(names)) for runs in (evidence.runs[:third], evidence.runs[third:])
    )
    predicted = np.asarray(selecting(audit_images.images).argmax(axis=2), dtype=np.int64)
    return tuple(
        find_root_cause(predicted, measuring, audit_images, pair, confused, seed=study.spec.seed) for pair in pairs
    )


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

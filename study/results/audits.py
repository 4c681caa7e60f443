"""The Clever Hans audit of a confirmed study: which images, which models, and what cannot be audited."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis.audits.frequency_audit import audit_frequencies
from analysis.audits.ring_audit import audit_rings, measure_colour_losses, measure_pull
from analysis.audits.ring_swaps import Images
from analysis.audits.root_cause import find_root_cause, unmeasured_cause
from analysis.audits.swap_effects import AuditImages
from analysis.evidence import ArmEvidence
from analysis.findings.forensic_findings import CamAdmission, PairPull, RootCause
from analysis.findings.study_findings import ArmFinding
from analysis.heat_maps.grad_cam import NoCamLayerError
from analysis.heat_maps.validity_tests import admit_cams
from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError
from study.open_study import OpenStudy
from study.results.confirmed_models import load_cam_models, make_logits
from trainables.data.images import ImageSet
from trainables.seeds import numpy_generator

# Pairs whose pulls and causes are measured, the strongest first.
MOST_PAIRS = 6


def audit_arms(
    study: OpenStudy,
    arms: Mapping[str, ArmFinding],
    evidence: Mapping[str, ArmEvidence],
    image_set: ImageSet,
    say: Callable[[str], None],
) -> tuple[dict[str, ArmFinding], str]:
    """Return the arms with their audits and the pulls of their confused pairs, and why there is no audit where there is none.

    `say` is told each step as it begins.
    """
    if not study.spec.analyze.num_audit_images:
        return dict(arms), "The Clever Hans audit was switched off (analyze.num_audit_images = 0)."
    first = next(iter(evidence.values())).predictions[0]
    ids = choose_audit_images(first.sample_ids, first.labels, study.spec.analyze.num_audit_images, study.spec.seed)
    what = AuditImages(
        images=image_set.images[ids],
        labels=image_set.labels[ids],
        class_names=image_set.class_names,
        masks=None if image_set.masks is None else image_set.masks[ids],
    )
    audited = {}
    try:
        for name, arm in arms.items():
            audited[name] = _audit_arm(study, arm, evidence[name], what, say)
    except UserInputError as error:
        return dict(arms), f"The Clever Hans audit could not be made: {error}."
    return audited, ""


def _audit_arm(
    study: OpenStudy, arm: ArmFinding, evidence: ArmEvidence, what: AuditImages, say: Callable[[str], None]
) -> ArmFinding:
    about = f"{arm.arm}, {len(what.labels)} images:"
    ask = make_logits(study, evidence.runs, len(what.class_names))

    def classify(images: Images) -> IntArray:
        return np.asarray(ask(images).argmax(axis=2), dtype=np.int64)

    index = {name: i for i, name in enumerate(what.class_names)}
    confused = [(index[pair.classes[0]], index[pair.classes[1]]) for pair in arm.confused_pairs or ()]
    pairs = confused[:MOST_PAIRS]
    pulls: tuple[PairPull, ...] = ()
    causes: tuple[RootCause, ...] = ()
    if len(what.class_names) > 2:
        say(f"{about} what confuses {len(pairs)} pairs of classes")
        directed = [way for one, other in pairs for way in ((one, other), (other, one))]
        pulls = tuple(measure_pull(classify, what, one, other) for one, other in directed)
        causes = _find_causes(study, evidence, what, pairs, confused)
    say(f"{about} swapped rings, colour and waves")
    rings = audit_rings(classify, what, seed=study.spec.seed)
    colour_losses = measure_colour_losses(classify, what)
    frequency_audit = audit_frequencies(classify, what, seed=study.spec.seed)
    say(f"{about} the tests of the heat maps")
    return replace(
        arm,
        ring_audits=rings,
        pulls=pulls,
        root_causes=causes,
        colour_losses=colour_losses,
        frequency_audit=frequency_audit,
        cam_admission=_admit_cams(study, evidence, what),
    )


def _admit_cams(study: OpenStudy, evidence: ArmEvidence, what: AuditImages) -> CamAdmission | None:
    """Return whether the arm's heat maps are evidence; None where its images are too small for any."""
    try:
        models = load_cam_models(study, evidence.runs, len(what.class_names))
    except NoCamLayerError:
        return None
    return admit_cams(models, what, seed=study.spec.seed)


def _find_causes(
    study: OpenStudy,
    evidence: ArmEvidence,
    what: AuditImages,
    pairs: Sequence[tuple[int, int]],
    confused: Sequence[tuple[int, int]],
) -> tuple[RootCause, ...]:
    """Return the causes of `pairs`: a third of the seeds chooses the images, the others measure."""
    names = what.class_names
    third = len(evidence.runs) // 3
    if third < 1:
        note = "three seeds are needed: some choose the images, two at least measure"
        return tuple(unmeasured_cause((names[one], names[other]), 0, note) for one, other in pairs)
    choosing, measuring = (
        make_logits(study, runs, len(names)) for runs in (evidence.runs[:third], evidence.runs[third:])
    )
    said = np.asarray(choosing(what.images).argmax(axis=2), dtype=np.int64)
    return tuple(find_root_cause(said, measuring, what, pair, confused, seed=study.spec.seed) for pair in pairs)


def choose_audit_images(ids: np.ndarray, labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Return at most `number` of the images, as many of each class as its share, sorted."""
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

"""The Clever Hans audit of a confirmed study: which images, which models, and what cannot be audited."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from analysis.assembly import ArmEvidence
from analysis.clever_hans import AuditImages, audit_rings, measure_pull
from analysis.findings import ArmFinding, PairPull
from search_spaces.errors import UserInputError
from study.lifecycle import OpenStudy
from study.models import make_classifier
from trainables.images import ImageSet
from trainables.seeds import numpy_generator

MOST_PULLS = 6


def audit_arms(
    study: OpenStudy, arms: Mapping[str, ArmFinding], evidence: Mapping[str, ArmEvidence], image_set: ImageSet
) -> tuple[dict[str, ArmFinding], str]:
    """Return the arms with their audits and the pulls of their confused pairs, and why there is no audit where there is none."""
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
            audited[name] = _audit_arm(study, arm, evidence[name], what)
    except UserInputError as error:
        return dict(arms), f"The Clever Hans audit could not be made: {error}."
    return audited, ""


def _audit_arm(study: OpenStudy, arm: ArmFinding, evidence: ArmEvidence, what: AuditImages) -> ArmFinding:
    classify = make_classifier(study, evidence.runs, len(what.class_names))
    index = {name: i for i, name in enumerate(what.class_names)}
    pairs = [pair.classes for pair in arm.confused_pairs or ()][:MOST_PULLS]
    directed = [way for one, other in pairs for way in ((one, other), (other, one))]
    pulls: tuple[PairPull, ...] = ()
    if len(what.class_names) > 2:
        pulls = tuple(measure_pull(classify, what, index[one], index[other]) for one, other in directed)
    return replace(arm, ring_audits=audit_rings(classify, what, seed=study.spec.seed), pulls=pulls)


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

"""The audits of a confirmed study's arms: which images and which models they use, and why an audit is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.arms.arm_evidence import ArmEvidence, find_judges, take_judges
from analysis.causes.confused_images import CauseModels, ConfusedClasses, split_seeds
from analysis.causes.cues import MIN_SIDE, describe_small_images
from analysis.causes.root_cause import find_root_causes
from analysis.confusions.values import ArmConfusions, Materiality
from analysis.heat_maps.grad_cam import NoCamLayerError
from analysis.heat_maps.validity_tests import admit_cams
from analysis.shortcuts.swap_audits import judge_swaps, measure_swaps
from analysis.shortcuts.swaps import AuditImages, make_classifier, take_groups
from analysis.statistics.metrics import IntArray
from search_spaces.errors import UserInputError, list_some
from study.cluster.tasks import Workers, make_task
from study.open_study import OpenStudy
from study.results.audit_parts import AuditPart, AuditParts, StepKind
from study.results.confirmed_models import has_network, load_cam_models, make_logits
from trainables.data.images import ImageSet
from trainables.seeds import numpy_generator
from trainables.storage.store import Store
from trainables.training.trial_data import TrialData

# The strongest confused pairs, whose pulls and causes are measured.
MAX_PAIRS = 6
# Classes without an audited image that a sentence names.
MOST_NAMED = 10
# What the outcome of a step may hold.
FOUND = ("causes", "audits", "exported", "admission")
# Steps by how long they take where every pair is confused: tasks that start last should be short, so that no device waits long.
_LONGEST_FIRST = (StepKind.CAUSES, StepKind.CAMS, StepKind.SWAPS)
# What a step makes, in sentences; of several steps with one problem, the first names it.
_SUBJECTS = MappingProxyType(
    {
        StepKind.SWAPS: "The Clever Hans audit",
        StepKind.CAUSES: "The root causes",
        StepKind.CAMS: "The tests of the heat maps",
    }
)


def audit_arms(
    study: OpenStudy,
    confusions: Mapping[str, ArmConfusions],
    evidence: Mapping[str, ArmEvidence],
    image_set: ImageSet,
    workers: Workers,
    parts: AuditParts,
    on_step: Callable[[str], None],
) -> tuple[dict[str, AuditPart], str]:
    """Return what the steps of each arm found, and why some are missing; "" where all were made.

    Args:
        study: that the arms belong to.
        confusions: by arm; the strongest confused pairs and material cells get pulls and causes.
        evidence: by arm; without folds, the first of its runs is that of the exported model.
        image_set: of the study; the audits use images of the test split.
        workers: with the data of the study; each step of an arm is a task.
        parts: outcomes of the steps that are finished, so that an analysis that was interrupted goes on.
        on_step: called with the name of each step as it begins.
    """
    if not study.spec.analyze.num_audit_images:
        return dict.fromkeys(
            confusions, AuditPart()
        ), "The Clever Hans audit was switched off (analyze.num_audit_images = 0)."
    evidence = take_judges(evidence)
    if not evidence:
        return dict.fromkeys(
            confusions, AuditPart()
        ), "The arms have finished no seed in common, so no model is audited."
    judges = next(iter(evidence.values()))
    first, number = judges.predictions[0], -(-study.spec.analyze.num_audit_images // max(1, len(judges.folds)))
    # With folds, donors come from the fold of their image.
    tested = [first.take(np.isin(first.sample_ids, part)) for part in judges.folds] or [first]
    chosen = [choose_audit_images(p.sample_ids, p.labels, number, study.spec.seed, p.groups) for p in tested]
    ids = np.sort(np.concatenate(chosen))
    steps = [
        step for arm, found in confusions.items() for step in _plan_arm(study, found, evidence[arm], image_set, ids)
    ]
    outcomes = _run_steps(study, steps, workers, parts, on_step)
    notes = _describe_problems(steps, outcomes)
    audited = dict.fromkeys(confusions, AuditPart())
    for step, outcome in zip(steps, outcomes, strict=True):
        found = {name: value for name in FOUND if (value := getattr(outcome, name))}
        audited[step.evidence.arm] = replace(audited[step.evidence.arm], **found)
    absent = sorted(set(first.labels.tolist()) - set(image_set.labels[ids].tolist()))
    if absent:
        names = [image_set.class_names[c] for c in absent]
        notes.append(
            f"{len(names)} of the {image_set.num_classes} classes have no image among the {len(ids)} audited ones "
            f"(analyze.num_audit_images): {list_some(names, MOST_NAMED)}."
        )
    height, width = image_set.images.shape[1:3]
    if min(height, width) < MIN_SIDE:
        notes.append(f"No root cause is tested: {describe_small_images(height, width)}.")
    return audited, " ".join(notes)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStep:
    """One step of the audit of an arm: what a task needs beside the data of the study.

    Attributes:
        name: names the step in the live view.
        kind: what is computed.
        study_uri: where the weights are.
        evidence: of the arm.
        ids: sample ids of the audited images.
        cells: (true, predicted) of the confusion matrix, to explain.
        masks: of all images; None without.
        seed: of the study.
    """

    name: str
    kind: StepKind
    study_uri: str
    evidence: ArmEvidence
    ids: IntArray
    cells: Sequence[tuple[int, int]]
    masks: NDArray[np.bool_] | None
    seed: int


def _plan_arm(
    study: OpenStudy, confusions: ArmConfusions, evidence: ArmEvidence, image_set: ImageSet, ids: IntArray
) -> list[AuditStep]:
    """Return the steps of an arm's audit."""
    step = make_step(study, evidence, image_set, ids, rank_confusions(confusions))
    names = {StepKind.SWAPS: "ring, color and frequency audits"}
    if image_set.num_classes > 2:
        num_pairs = len(set(map(frozenset, step.cells)))
        names = {StepKind.CAUSES: f"root causes of {num_pairs} confused pairs", **names}
    if has_network(evidence.runs[0]):
        names[StepKind.CAMS] = "validity tests of the heat maps"
    start = f"{evidence.arm}, {len(ids)} images"
    return [replace(step, name=f"{start}: {name}", kind=kind) for kind, name in names.items()]


def make_step(
    study: OpenStudy, evidence: ArmEvidence, image_set: ImageSet, ids: IntArray, cells: Sequence[tuple[str, str]]
) -> AuditStep:
    """Return the audit of an arm's swaps, yet without a name, with the cells of the strongest pairs; none of two classes."""
    names = image_set.class_names
    strongest = list(dict.fromkeys(map(frozenset, cells)))[:MAX_PAIRS] if len(names) > 2 else []
    return AuditStep(
        name="",
        kind=StepKind.SWAPS,
        study_uri=study.store.address,
        evidence=evidence,
        ids=ids,
        cells=[(names.index(cell[0]), names.index(cell[1])) for cell in cells if frozenset(cell) in strongest],
        masks=image_set.masks,
        seed=study.spec.seed,
    )


def _run_steps(
    study: OpenStudy, steps: Sequence[AuditStep], workers: Workers, parts: AuditParts, on_step: Callable[[str], None]
) -> list[AuditPart]:
    """Return the outcome of each step: those that are stored, and the others from the workers, which are stored as they come.

    The longest begin first.
    """
    outcomes = {step.name: found for step in steps if (found := parts.read(step.evidence.arm, step.kind)) is not None}
    missing = [step for step in steps if step.name not in outcomes]
    missing.sort(key=lambda step: (_LONGEST_FIRST.index(step.kind), -len(step.cells)))
    results = workers.run_tasks(run_step, [make_task(study.spec, step.evidence.arm, step) for step in missing])
    for step in missing:
        on_step(step.name)
        outcomes[step.name] = next(results)
        parts.write(step.evidence.arm, step.kind, outcomes[step.name])
    return [outcomes[step.name] for step in steps]


def _describe_problems(steps: Sequence[AuditStep], outcomes: Sequence[AuditPart]) -> list[str]:
    """Return a sentence for each reason why steps could not be made."""
    kinds: dict[str, set[StepKind]] = {}
    for step, outcome in zip(steps, outcomes, strict=True):
        if outcome.problem:
            kinds.setdefault(outcome.problem, set()).add(step.kind)
    first = {problem: next(kind for kind in _SUBJECTS if kind in found) for problem, found in kinds.items()}
    return [f"{_SUBJECTS[kind]} could not be made: {problem}." for problem, kind in first.items()]


def run_step(step: AuditStep, *, data: TrialData) -> AuditPart:
    """Return the outcome of one step of an arm's audit; what a user can act on is returned as its problem."""
    try:
        return _STEPS[step.kind](step, data)
    except UserInputError as error:
        return AuditPart(problem=str(error))


def find_causes(step: AuditStep, data: TrialData) -> AuditPart:
    """Return the causes of the confusions of the step's cells; their errors are taken from the whole test split.

    A pair with both of its cells is one confusion, another cell is a directed one. Images that are too small have none.
    """
    if min(data.images.shape[1:3]) < MIN_SIDE:
        return AuditPart()
    confusions = [
        ConfusedClasses(one=true, other=predicted, is_directed=(predicted, true) not in step.cells)
        for place, (true, predicted) in enumerate(step.cells)
        if (predicted, true) not in step.cells[:place]
    ]
    runs, predictions = step.evidence.runs, step.evidence.predictions
    selecting, measuring = split_seeds(len(predictions))
    judges = find_judges(step.evidence, np.arange(len(data.labels)))
    logits = np.stack([one.logits for one in predictions]).astype(np.float64)
    models = CauseModels(
        sample_ids=predictions[0].sample_ids,
        selecting=logits[selecting],
        measuring=logits[measuring],
        compute_logits=make_logits(
            Store(step.study_uri), runs if judges is not None else runs[measuring], len(data.class_names)
        ),
        are_own_errors=len(predictions) == 1,
    )
    test_images = AuditImages(
        images=cast("NDArray[np.uint8]", data.images),  # Read by index alone.
        labels=data.labels,
        class_names=data.class_names,
        masks=step.masks,
        groups=data.groups,
        folds=judges,
    )
    return AuditPart(causes=find_root_causes(models, test_images, confusions, seed=step.seed))


def _audit_swaps(step: AuditStep, data: TrialData) -> AuditPart:
    classify = make_classifier(make_logits(Store(step.study_uri), step.evidence.runs, len(data.class_names)))
    images = take_images(step, data)
    cells = keep_audited(step.cells, images.labels, images.folds)
    measured = measure_swaps(classify, images, cells, seed=step.seed)
    return AuditPart(audits=judge_swaps(measured), exported=judge_swaps(measured.take_first()))


def keep_audited(
    cells: Sequence[tuple[int, int]], labels: IntArray, folds: IntArray | None = None
) -> list[tuple[int, int]]:
    """Return the cells that a pull can be measured for: both classes and a third one have audited images, of one fold.

    A rare class has none where fewer images are audited than the test split has.
    """
    parts = [labels] if folds is None else [labels[folds == fold] for fold in np.unique(folds)]
    audited = [classes for part in parts if len(classes := set(part.tolist())) > 2]
    return [cell for cell in cells if any(set(cell) <= classes for classes in audited)]


def _admit_cams(step: AuditStep, data: TrialData) -> AuditPart:
    """Return whether the arm's heat maps are evidence; nothing where its images are too small for any."""
    models = load_cam_models(Store(step.study_uri), step.evidence.runs, len(data.class_names))
    try:
        return AuditPart(admission=admit_cams(models, take_images(step, data), seed=step.seed))
    except NoCamLayerError:
        return AuditPart()


_STEPS: Mapping[StepKind, Callable[[AuditStep, TrialData], AuditPart]] = MappingProxyType(
    {StepKind.CAUSES: find_causes, StepKind.SWAPS: _audit_swaps, StepKind.CAMS: _admit_cams}
)


def take_images(step: AuditStep, data: TrialData) -> AuditImages:
    """Return the images of a step."""
    return take_audit_images(data, step.ids, step.masks, find_judges(step.evidence, step.ids))


def take_audit_images(
    data: TrialData, ids: IntArray, masks: NDArray[np.bool_] | None = None, folds: IntArray | None = None
) -> AuditImages:
    """Return the images of `ids`, with their part of the (N, H, W) masks of all images; `folds` has one entry for each id."""
    return AuditImages(
        images=data.images[ids],
        labels=data.labels[ids],
        class_names=data.class_names,
        masks=None if masks is None else masks[ids],
        groups=take_groups(data.groups, ids),
        folds=folds,
    )


def choose_audit_images(
    ids: np.ndarray, labels: np.ndarray, number: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return at most `number` of the images, stratified by class; two of a class or none, since swaps need a partner.

    Args:
        ids: (N,) sample ids.
        labels: (N,) their classes.
        number: of images wanted.
        seed: of the choice.
        groups: (N,) number of each image's group, of as many of which as possible images are chosen; None without groups.

    Returns:
        The chosen sample ids, sorted.
    """
    generator = numpy_generator(seed, "audit-images")
    order = generator.permutation(len(ids))
    # Every k-th image of a random order within each class.
    ranks = np.empty(len(ids))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        if groups is not None:
            # By how many images of the same group come before each.
            earlier = pd.Series(groups[own]).groupby(groups[own]).cumcount().to_numpy()
            own = own[np.argsort(earlier, kind="stable")]
        ranks[own] = (np.arange(len(own)) + 0.5) / len(own)
        ranks[own[:2]] = 0.5 / len(own)
    chosen = np.argsort(ranks, kind="stable")[:number]
    present, counts = np.unique(labels[chosen], return_counts=True)
    return np.sort(ids[chosen[~np.isin(labels[chosen], present[counts == 1])]])

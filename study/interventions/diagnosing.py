"""The diagnosis of a study's winner on the half of the test images that chooses, as interventions need it.

What its models compute is computed by tasks of the study's workers.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.arms.arm_evidence import ArmEvidence
from analysis.arms.scores import compute_arm_confusions
from analysis.arms.values import ArmAudits, ArmFinding
from analysis.confusions.class_scores import compute_class_scores
from analysis.confusions.values import ArmConfusions
from analysis.images.inspection import find_doubtful_labels
from analysis.interventions.intervention import ChoosingModels, Diagnosis
from analysis.interventions.target_predictions import find_choosing
from analysis.interventions.values import Cell
from analysis.report.study_findings import Findings
from analysis.shortcuts.frequency_audit import audit_colors, bound_color_losses
from analysis.shortcuts.ring_audit import judge_ring, measure_rings
from analysis.shortcuts.swaps import make_classifier
from analysis.shortcuts.values import SwapAudits
from analysis.statistics.metrics import IntArray, compute_macro_f1
from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.space import CategoricalParameter
from study.cluster.tasks import Workers, find_device, make_task
from study.confirmation.evidence import load_evidence, require_plan
from study.inputs.preparation import Prepared, image_set_of
from study.open_study import OpenStudy
from study.results import audits as arm_audits
from study.results.audit_parts import AuditPart, StepKind
from study.results.confirmed_models import make_logits, make_task_logits
from study.results.stored_findings import load_findings
from trainables.records.record import TrialRecord
from trainables.storage.store import Store
from trainables.training.frozen_features import FrozenBackbone
from trainables.training.head_refit import list_refits
from trainables.training.trainable import is_own_loop
from trainables.training.trial_data import TrialData, choose_training_images

CONFIDENCE = 0.95
# Images of the audits and of the predictions where the study has no audit of its own.
NUM_AUDIT_IMAGES = 2000
# Most training images that a round leaves out, as a share and as a number. Confident learning lists a third of the images where
# the probe is wrong about half of them.
MOST_DOUBTFUL_SHARE, MOST_DOUBTFUL = 0.05, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choosing:
    """The winner of a study, as the images that choose show it.

    Attributes:
        source: the search trial whose configuration is the control.
        diagnosis: of the winner on these images.
        models: of the winner.
        num_choosing: number of these images.
        judging_labels: (m,) classes of the other test images.
        labels: (N,) classes of all test images.
        is_divided: whether the two differ; test sets with fewer than two images, or groups of images, of a class in a half are
            not divided.
    """

    source: TrialRecord
    diagnosis: Diagnosis
    models: ChoosingModels
    num_choosing: int
    judging_labels: IntArray
    labels: IntArray
    is_divided: bool


def _refuse_folds(study: OpenStudy) -> None:
    if study.spec.confirm.folds:
        raise UserInputError(
            "interventions are chosen on one half of the test images and judged on the other, but with folds (confirm.folds) the "
            "models have trained on both; a study with confirm.folds = 0 can try them"
        )


def diagnose_winner(
    study: OpenStudy,
    prepared: Prepared,
    target: Cell | None,
    workers: Workers,
    on_step: Callable[[str], None] = lambda _: None,
) -> Choosing:
    """Return the winner with its diagnosis on the half of the test images that chooses.

    The winner is the arm with the highest macro-F1 there, mean over seeds.

    Args:
        study: analyzed.
        prepared: data and weights of the study.
        target: cell of the confusion matrix that the user names, instead of those that are found; None to find them.
        workers: with the data of the study.
        on_step: called with the name of each step as it begins.

    Raises:
        UserInputError: if the study has not been analyzed, or has no class of the target.
    """
    load_findings(study)
    plan = require_plan(study)
    _refuse_folds(study)
    evidence = {name: found.finished() for name, found in load_evidence(study, plan).items()}
    evidence = {name: found for name, found in evidence.items() if found.runs}
    first = next(iter(evidence.values())).predictions[0]
    is_choosing = find_choosing(first.sample_ids, first.groups, study.spec.seed)
    units = np.arange(len(first.labels)) if first.groups is None else first.groups
    fewest = min(
        len(np.unique(units[part & (first.labels == label)]))
        for part in (is_choosing, ~is_choosing)
        for label in range(prepared.image_set.num_classes)
    )
    is_divided = fewest >= 2
    if not is_divided:
        is_choosing = np.ones_like(is_choosing)
    choosing = first.sample_ids[is_choosing]
    evidence = {name: found.with_images(choosing) for name, found in evidence.items()}
    found = max(evidence.values(), key=_macro_f1)
    judging = ~is_choosing if is_divided else is_choosing
    diagnosis, models = _Winner(study, found, prepared, workers, on_step).diagnose(target)
    return Choosing(
        source=found.source,
        diagnosis=diagnosis,
        models=models,
        num_choosing=len(choosing),
        judging_labels=first.labels[judging],
        labels=first.labels,
        is_divided=is_divided,
    )


def diagnose_from_findings(study: OpenStudy, findings: Findings, native_size: int) -> Diagnosis:
    """Return the diagnosis of the winner by the findings of the whole test split: a forecast of what `diagnose_winner` finds.

    Args:
        study: analyzed.
        findings: of the study.
        native_size: side of its images in pixels.
    """
    _refuse_folds(study)
    arm: ArmFinding = max(findings.arms, key=lambda found: found.test_macro_f1.estimate)
    source = study.book.get("search", arm.trial_id)
    return _make_diagnosis(study, source, findings.class_names, arm, arm, None, native_size)


def check_target(target: Cell, class_names: tuple[str, ...]) -> None:
    """Raise UserInputError if a cell that the user names is not one of the confusion matrix."""
    unknown = [f"{name!r}{nearest_name(name, class_names)}" for name in target if name not in class_names]
    if unknown:
        raise UserInputError(f"--target takes TRUE:PREDICTED, but there is no class {', no class '.join(unknown)}")
    if target[0] == target[1]:
        raise UserInputError(f"--target takes two different classes, but got {target[0]!r} twice")


def _macro_f1(evidence: ArmEvidence) -> float:
    arm = evidence.stacked()
    return float(compute_macro_f1(arm.labels, arm.predicted, arm.num_classes).mean())


@dataclass(frozen=True, slots=True)
class _Winner:
    """The winner, whose evidence is of the images that choose, and what its diagnosis is computed on."""

    study: OpenStudy
    evidence: ArmEvidence
    prepared: Prepared
    workers: Workers
    on_step: Callable[[str], None]

    def diagnose(self, target: Cell | None) -> tuple[Diagnosis, ChoosingModels]:
        study, evidence, image_set = self.study, self.evidence, self.prepared.image_set
        names = image_set.class_names
        if target is not None:
            check_target(target, names)
        arm = evidence.stacked()
        self.on_step(f"{evidence.arm}, {len(arm.labels)} images that choose: confusions")
        confusions = compute_arm_confusions(arm, compute_class_scores(arm, names, CONFIDENCE), {}, None)
        number = study.spec.analyze.num_audit_images
        ids = arm_audits.choose_audit_images(
            arm.sample_ids, arm.labels, number or NUM_AUDIT_IMAGES, study.spec.seed, arm.groups
        )
        images = arm_audits.take_audit_images(self.prepared.data, ids, image_set.masks)
        compute_logits = make_task_logits(study, evidence, len(names), self.workers)
        models = ChoosingModels(audit_images=images, compute_logits=compute_logits, seed=study.spec.seed)
        cells = [target] if target is not None else list(arm_audits.rank_confusions(confusions))
        audits = self._audit(ids, cells) if number else ArmAudits()
        native_size = image_set.images.shape[1]
        diagnosis = _make_diagnosis(study, evidence.source, names, confusions, audits, target, native_size)
        return self._doubt_labels(replace(diagnosis, refits=list_refits(self.prepared.data))), models

    def _doubt_labels(self, diagnosis: Diagnosis) -> Diagnosis:
        """Return the diagnosis with the training images whose labels are doubtful; none without pretrained weights."""
        study, prepared = self.study, self.prepared
        if prepared.weights == "none":
            return diagnosis
        self.on_step("doubtful labels of the training images")
        config = self.evidence.source.config
        train = choose_training_images(config, prepared.splits.train)
        most = min(MOST_DOUBTFUL, int(MOST_DOUBTFUL_SHARE * len(train)))
        task = make_task(study.spec, self.evidence.arm, config, prepared.weights, train, most, study.spec.seed)
        found = next(self.workers.run_tasks(_find_doubtful, [task]))
        left_out = config.word("leave_out").split()
        doubtful = (*map(int, left_out), *found)
        return replace(diagnosis, doubtful=doubtful if found else (), num_training=len(prepared.splits.train))

    def _audit(self, ids: IntArray, cells: Sequence[Cell]) -> ArmAudits:
        """Return the audits that interventions ask for: rings, color, and the root causes of the strongest confusions."""
        arm, audits = self.evidence.arm, ArmAudits()
        step = arm_audits.make_step(self.study, self.evidence, self.prepared.image_set, ids, cells)
        swaps = replace(step, name=f"{arm}: ring and color audits of the images that choose")
        calls: list[tuple[arm_audits.AuditStep, Callable[..., AuditPart]]] = [(swaps, _audit_rings_and_colors)]
        if step.cells:
            name = f"{arm}: root causes on the images that choose"
            calls.append((replace(step, name=name, kind=StepKind.CAUSES), arm_audits.run_step))
        for step, function in calls:
            self.on_step(step.name)
            part = next(self.workers.run_tasks(function, [make_task(self.study.spec, arm, step)]))
            if part.problem:
                raise UserInputError(part.problem)
            found = {} if part.audits is None else vars(part.audits)
            audits = replace(audits, **found, root_causes=part.causes)
        return audits


def _find_doubtful(
    config: TrialConfig, weights: str, train: IntArray, most: int, seed: int, *, data: TrialData
) -> tuple[int, ...]:
    """Return the sample ids of the training images whose labels are doubtful."""
    backbone = FrozenBackbone.build(config, weights, find_device())
    found = find_doubtful_labels(backbone, image_set_of(data), train, seed=seed, most=most)
    return tuple(int(issue.sample_id) for issue in found)


def _audit_rings_and_colors(step: arm_audits.AuditStep, *, data: TrialData) -> AuditPart:
    images = arm_audits.take_images(step, data)
    classify = make_classifier(make_logits(Store(step.study_uri), step.evidence.runs, len(data.class_names)))
    rings = measure_rings(classify, images, seed=step.seed)
    colors = audit_colors(classify, images)
    color_losses = bound_color_losses(colors) if colors else ()
    return AuditPart(audits=SwapAudits(ring_audits=tuple(map(judge_ring, rings)), color_losses=color_losses))


def _make_diagnosis(
    study: OpenStudy,
    source: TrialRecord,
    class_names: tuple[str, ...],
    confusions: ArmConfusions,
    audits: ArmAudits,
    target: Cell | None,
    native_size: int,
) -> Diagnosis:
    if is_own_loop(source.config):
        raise UserInputError(
            f"the winner is trained by {source.config.word('trainable')}, and interventions change settings of networks"
        )
    configuration = complete_configuration(source.config)
    diagnosis = Diagnosis(
        class_names=class_names,
        configuration=configuration,
        cells=(target,) if target is not None else arm_audits.rank_confusions(confusions),
        confusions=confusions,
        audits=audits,
        backbones=_list_other_backbones(study, str(configuration["backbone"])),
        native_size=native_size,
        is_named=target is not None,
    )
    return replace(diagnosis, group=name_group(diagnosis.confused, study.spec.analyze.groups))


def name_group(classes: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    """Return the name of the group of confused classes: "confused", with a number if that is a group of other classes here."""
    names = itertools.chain(["confused"], (f"confused_{number}" for number in itertools.count(2)))
    return next(name for name in names if set(groups.get(name, classes)) == set(classes))


def complete_configuration(config: TrialConfig) -> dict[str, Value]:
    """Return every setting of a configuration, those with their earlier behavior included."""
    return {**config.fixed, **config.hyperparameters}


def _list_other_backbones(study: OpenStudy, own: str) -> tuple[str, ...]:
    """Return the other backbones of the study's arms, then those of its space."""
    found = [str(value) for arm in study.spec.arms() for value in arm.space.values_of("backbone")]
    space = study.spec.base_space()
    if "backbone" in space.names and isinstance(parameter := space["backbone"], CategoricalParameter):
        found += [str(choice) for choice in parameter.choices]
    return tuple(name for name in dict.fromkeys(found) if name != own)

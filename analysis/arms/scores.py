"""Scores, costs and confusions of one arm, from its evidence."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from analysis.arms.arm_evidence import ArmEvidence
from analysis.arms.values import ArmScores, ModelAudit
from analysis.confusions.class_scores import (
    compute_class_scores,
    compute_confusion,
    compute_group_contrasts,
    compute_macro_f1_intervals,
    find_confusion_examples,
)
from analysis.confusions.clusters import find_clusters
from analysis.confusions.rates import compare_with_humans, compute_directed_confusions
from analysis.confusions.values import ArmConfusions, ClassScore
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import FloatArray
from trainables.models.backbones import count_forward_flops
from trainables.training.trainable import is_own_loop

PAIR_CONFIDENCE = 0.95


def compute_arm_scores(
    evidence: ArmEvidence,
    class_names: Sequence[str],
    *,
    confidence: float,
    minimum: float | None,
    num_search_images: int,
) -> ArmScores:
    """Return an arm's scores on the test split and its costs.

    Args:
        evidence: of at least one seed.
        class_names: K names; a class indexes them.
        confidence: of each interval, in (0, 1).
        minimum: macro-F1 that the recipe's lower bound must exceed; None for no minimum.
        num_search_images: size of the search split, which every epoch predicts.
    """
    stacked = evidence.stacked()
    macro_f1 = compute_macro_f1_intervals(stacked, confidence)
    epochs = [epoch for run in evidence.runs for epoch in run.epochs]
    first, config = evidence.runs[0], evidence.source.config
    return ArmScores(
        arm=evidence.arm,
        trial_id=evidence.source.trial_id,
        confirmation_ids=tuple(r.trial_id for r in evidence.runs),
        seeds=evidence.seeds,
        hyperparameters=dict(config.hyperparameters),
        search_macro_f1=float(evidence.source.last_macro_f1 or 0.0),
        confirm_macro_f1=None if evidence.folds else fmean(r.confirm_macro_f1 or 0.0 for r in evidence.runs),
        test_macro_f1=macro_f1,
        class_scores=compute_class_scores(stacked, class_names, confidence),
        confusion=compute_confusion(stacked, class_names, confidence),
        minimum_cleared=None if minimum is None or macro_f1.recipe is None else macro_f1.recipe.low > minimum,
        num_parameters=first.num_parameters,
        forward_flops=0 if is_own_loop(config) else count_forward_flops(config, len(class_names)),
        device_seconds=evidence.device_seconds,
        train_images_per_second=median(e.train_images_per_second for e in epochs),
        predict_images_per_second=median(num_search_images / e.evaluate_seconds for e in epochs),
        points_per_device_hour=100 * macro_f1.estimate / (evidence.device_seconds / 3600),
        peak_memory_bytes=max(e.peak_memory_bytes for e in epochs),
        device=", ".join(sorted({run.device for run in evidence.runs})),
    )


def compute_arm_confusions(
    arm: ArmPredictions,
    class_scores: Sequence[ClassScore],
    groups: Mapping[str, Sequence[str]],
    human: FloatArray | None,
) -> ArmConfusions:
    """Return the confusions, pairs and clusters of classes of an arm, and the contrasts of the named groups of classes.

    Args:
        arm: S seeds over N images.
        class_scores: one per class, in the order of the classes.
        groups: classes by the name of their group; empty for no contrasts.
        human: (N, K) shares of annotators who chose each class; None where there are no human counts.
    """
    class_names = [score.class_name for score in class_scores]
    pairs, clusters = find_clusters(arm, class_names)
    directed, num_directed = compute_directed_confusions(arm, class_names, human)
    return ArmConfusions(
        confused_pairs=compare_with_humans(arm, pairs, class_names, human, PAIR_CONFIDENCE),
        clusters=clusters,
        group_contrasts=compute_group_contrasts(class_scores, groups),
        directed=directed,
        num_directed=num_directed,
        examples=find_confusion_examples(arm, class_names),
    )


def compute_model_scores(
    evidence: ArmEvidence, class_names: Sequence[str], human: FloatArray | None, confidence: float
) -> ModelAudit:
    """Return the scores and confusions of an arm's exported model, the one with the first seed; its audits are left empty.

    Args:
        evidence: of the arm.
        class_names: K names; a class indexes them.
        human: (N, K) shares of annotators who chose each class; None where there are no human counts.
        confidence: of each interval, in (0, 1).
    """
    first = evidence.runs[0]
    alone = evidence.with_seeds({first.config.seed}).stacked()
    return ModelAudit(
        seed=first.config.seed,
        trial_id=first.trial_id,
        macro_f1=compute_macro_f1_intervals(alone, confidence),
        class_scores=compute_class_scores(alone, class_names, confidence),
        directed=compute_directed_confusions(alone, class_names, human)[0],
    )

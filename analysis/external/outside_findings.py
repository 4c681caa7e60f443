"""Comparison and forensics of models that were trained elsewhere, from labels and probabilities alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis.arms.scores import compute_arm_confusions
from analysis.arms.values import OutsideArm, OutsideFindings
from analysis.comparison.exploratory import compute_side_metrics
from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.values import ComparisonRow
from analysis.confusions.class_scores import compute_class_scores, compute_confusion, compute_macro_f1_intervals
from analysis.confusions.label_issues import list_label_issues
from analysis.confusions.values import LabelIssue
from analysis.external.outside_predictions import OutsidePredictions
from analysis.statistics.arm_predictions import ArmPredictions, stack_predictions
from analysis.statistics.interval import Interval, TwoIntervals
from analysis.statistics.metrics import FloatArray
from search_spaces.errors import list_some, nearest_name


def compare_outside_arms(
    predictions: OutsidePredictions,
    *,
    control: str | None,
    margin: float,
    alpha: float,
    groups: Mapping[str, Sequence[str]],
) -> tuple[ComparisonRow, ...]:
    """Return a row per arm against the control, with the metrics beside macro-F1.

    With one seed of an arm, a row is about these models: their difference on new images. Arms with several runs need not have the
    same seeds; where they differ, the runs do not pair, and the row has no metrics beside macro-F1.

    Args:
        predictions: of all arms, without the problems of `list_comparison_problems`.
        control: name of an arm; None for the first.
        margin: equivalence margin in macro-F1, a fraction.
        alpha: family-wise error rate over the rows.
        groups: names of classes by the name of their group, for the metrics beside macro-F1.
    """
    arms = {arm: stack_predictions(arm, by_seed) for arm, by_seed in predictions.arms.items()}
    names = list(arms)
    control = names[0] if control is None else control
    rows, num_rows = [], len(names) - 1
    for name in names:
        if name == control:
            continue
        treatment, do_pair = arms[name], _do_pair(arms[name].seeds, arms[control].seeds)
        if do_pair:
            treatment = replace(treatment, seeds=arms[control].seeds)
        row = compare_arms(treatment, arms[control], margin=margin, alpha=alpha, num_rows=num_rows, cost_ratio=None)
        if do_pair:
            runs, others = ([[found for _, found in sorted(predictions.arms[arm].items())]] for arm in (name, control))
            beside = compute_side_metrics(runs, others, predictions.names, groups, has_scores=predictions.has_scores)
            row = replace(row, side_metrics=beside)
        rows.append(row)
    return tuple(rows)


def list_comparison_problems(predictions: OutsidePredictions, control: str | None) -> list[str]:
    """Return why the arms cannot be compared: an unknown control, classes without images."""
    problems = []
    if control is not None and control not in predictions.arms:
        problems.append(f"the predictions have no arm {control!r}{nearest_name(control, predictions.arms)}")
    if absent := predictions.absent_classes:
        problems.append(
            f"macro-F1 needs images of every class, but {len(absent)} have none: {list_some(absent)}; compare on images of all "
            "classes, leave the classes out of the probabilities, or judge each arm alone"
        )
    return problems


def list_unpaired(predictions: OutsidePredictions, control: str | None) -> list[str]:
    """Return the arms whose seeds do not pair with those of the control."""
    names = list(predictions.arms)
    chosen = names[0] if control is None else control
    return [name for name in names if not _do_pair(*(tuple(sorted(predictions.arms[arm])) for arm in (name, chosen)))]


def _do_pair(seeds: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Return whether two arms have the same seeds, or one each, which are two models and no sample of seeds."""
    return seeds == others or len(seeds) == len(others) == 1


CONFIDENCE = 0.95
NO_HUMAN_COUNTS = "There are no human counts, so it is not known how humans confuse these classes."


def analyze_outside_arms(
    predictions: OutsidePredictions,
    *,
    human: FloatArray | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    control: str | None = None,
) -> OutsideFindings:
    """Return the forensics of models that were trained elsewhere.

    One seed is enough: everything is then said about these models, and nothing about the recipe.

    Args:
        predictions: of all arms.
        human: (N, K) shares of annotators who chose each class, in the order of the sample ids; None without human counts.
        groups: named groups of classes whose F1 is contrasted.
        control: the arm that the others are compared with; None for the first.

    Raises:
        UserInputError: for groups with unknown classes.
    """
    stacked = [stack_predictions(arm, by_seed) for arm, by_seed in predictions.arms.items()]
    names = predictions.names
    return OutsideFindings(
        class_names=names,
        num_images=len(stacked[0].labels),
        arms=tuple(_analyze_arm(arm, names, human, groups or {}) for arm in stacked),
        label_issues=_list_label_issues(predictions),
        human_note=NO_HUMAN_COUNTS if human is None else "",
        notes=tuple(_list_notes(predictions, stacked, control)),
    )


def _analyze_arm(
    arm: ArmPredictions, names: tuple[str, ...], human: FloatArray | None, groups: Mapping[str, Sequence[str]]
) -> OutsideArm:
    scores = compute_class_scores(arm, names, CONFIDENCE)
    macro_f1 = compute_macro_f1_intervals(arm, CONFIDENCE)
    # The F1 of a class without images is 0, so that the mean over the others is this multiple of the mean over all.
    factor = arm.num_classes / len(np.unique(arm.labels))
    return OutsideArm(
        arm=arm.name,
        seeds=arm.seeds,
        test_macro_f1=TwoIntervals(
            models=_scale(macro_f1.models, factor),
            recipe=None if macro_f1.recipe is None else _scale(macro_f1.recipe, factor),
        ),
        class_scores=scores,
        confusion=compute_confusion(arm, names, CONFIDENCE),
        **vars(compute_arm_confusions(arm, scores, groups, human)),
    )


def _scale(interval: Interval, factor: float) -> Interval:
    low, estimate, high = (min(factor * x, 1.0) for x in (interval.low, interval.estimate, interval.high))
    return Interval(estimate=estimate, low=low, high=high)


def _list_label_issues(predictions: OutsidePredictions) -> tuple[LabelIssue, ...]:
    if not predictions.has_scores:
        return ()
    every = [found for by_seed in predictions.arms.values() for found in by_seed.values()]
    issues, names = list_label_issues(every, predictions.names), predictions.image_names
    if names is None:
        return issues
    return tuple(replace(issue, sample_id=names[int(issue.sample_id)]) for issue in issues)


def _list_notes(predictions: OutsidePredictions, stacked: Sequence[ArmPredictions], control: str | None) -> list[str]:
    notes = []
    single = [arm.name for arm in stacked if len(arm.seeds) == 1]
    if single:
        which = "this model" if len(single) == 1 else "these models"
        notes.append(
            f"One seed of {', '.join(single)}: intervals and verdicts are for {which} on new images. They say nothing about the "
            "recipe, that is about training again with a new seed; this needs predictions of at least two seeds."
        )
    if unpaired := list_unpaired(predictions, control):
        notes.append(
            f"Seeds of {', '.join(unpaired)} are not those of {control or stacked[0].name}, so that their runs do not pair: the "
            "interval has the variance of both sides, and the metrics beside macro-F1 are left out."
        )
    absent = predictions.absent_classes
    if absent:
        notes.append(
            f"{len(absent)} of {len(predictions.names)} classes have no images: {list_some(absent)}. Macro-F1 is the mean over "
            "the others."
        )
    if unused := _list_never_predicted(predictions, stacked):
        notes.append(
            f"Classes with images that no model of an arm predicts, so that their F1 is 0: {list_some(unused, separator='; ')}. "
            "Check that the scores are in the order of the classes, and how the models were trained."
        )
    if not predictions.has_scores:
        notes.append("There are no probabilities, so suspected label errors are not listed.")
    return notes


def _list_never_predicted(predictions: OutsidePredictions, stacked: Sequence[ArmPredictions]) -> list[str]:
    """Return a text for each arm with classes that have images, but are never predicted."""
    found = []
    for arm in stacked:
        unused = np.setdiff1d(arm.labels, arm.predicted)
        if unused.size:
            found.append(f"{arm.name}: {list_some(predictions.names[c] for c in unused)}")
    return found

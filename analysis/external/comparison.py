"""Comparison of models that were trained elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.external.predictions import OutsidePredictions
from analysis.findings.comparison_findings import ComparisonRow
from analysis.statistics.arm_predictions import stack_predictions
from analysis.statistics.comparison import compare_arms
from analysis.statistics.side_metrics import compute_side_metrics
from search_spaces.errors import UserInputError, list_some, nearest_name
from trainables.training.predictions import Predictions


def compare_outside_arms(
    predictions: OutsidePredictions,
    *,
    control: str | None,
    margin: float,
    alpha: float,
    groups: Mapping[str, Sequence[str]],
) -> tuple[ComparisonRow, ...]:
    """Return a row per arm against the control, with the metrics beside macro-F1.

    With one seed per arm, a row is about these models: their difference on new images. Such seeds need not be equal.

    Args:
        predictions: of all arms.
        control: name of an arm; None for the first.
        margin: equivalence margin in macro-F1, a fraction.
        alpha: family-wise error rate over the rows.
        groups: names of classes by the name of their group, for the metrics beside macro-F1.

    Raises:
        UserInputError: for an unknown control, fewer than two arms, arms with different seeds, classes without images, and
            groups with unknown classes.
    """
    arms = {arm: stack_predictions(arm, by_seed) for arm, by_seed in predictions.arms.items()}
    names = list(arms)
    if len(names) < 2:
        raise UserInputError(
            f"a comparison needs two arms, but there is only {', '.join(names)}; repeat --predictions for each model, or name "
            "the arms in the file"
        )
    control = names[0] if control is None else control
    if control not in arms:
        raise UserInputError(f"the predictions have no arm {control!r}{nearest_name(control, names)}")
    absent = predictions.absent_classes
    if absent:
        raise UserInputError(
            f"macro-F1 needs images of every class, but {len(absent)} have none: {list_some(absent)}; compare on images of all "
            "classes, or leave the classes out of the probabilities"
        )
    if all(len(arm.seeds) == 1 for arm in arms.values()):
        arms = {name: replace(arm, seeds=arms[control].seeds) for name, arm in arms.items()}
    elif len({arm.seeds for arm in arms.values()}) > 1:
        listed = "; ".join(f"{name}: {', '.join(map(str, arm.seeds))}" for name, arm in arms.items())
        raise UserInputError(
            f"the arms need the same seeds, or one each, but have {listed}. Leave out the seeds that do not pair"
        )
    rows = []
    for name in names:
        if name == control:
            continue
        row = compare_arms(
            arms[name], arms[control], margin=margin, alpha=alpha, num_rows=len(names) - 1, cost_ratio=None
        )
        treatment_runs, control_runs = ([_order_by_seed(predictions.arms[arm])] for arm in (name, control))
        beside = compute_side_metrics(
            treatment_runs, control_runs, predictions.names, groups, has_scores=predictions.has_scores
        )
        rows.append(replace(row, side_metrics=beside))
    return tuple(rows)


def _order_by_seed(by_seed: Mapping[int, Predictions]) -> list[Predictions]:
    return [by_seed[seed] for seed in sorted(by_seed)]

"""Comparison of models that were trained elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analysis.external.predictions import OutsidePredictions
from analysis.findings.comparison_findings import ComparisonRow
from analysis.statistics.arm_predictions import stack_predictions
from analysis.statistics.comparison import compare_arms
from analysis.statistics.side_metrics import compute_side_metrics
from search_spaces.errors import list_some, nearest_name
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
        predictions: of all arms, without the problems of `list_comparison_problems`.
        control: name of an arm; None for the first.
        margin: equivalence margin in macro-F1, a fraction.
        alpha: family-wise error rate over the rows.
        groups: names of classes by the name of their group, for the metrics beside macro-F1.
    """
    arms = {arm: stack_predictions(arm, by_seed) for arm, by_seed in predictions.arms.items()}
    names = list(arms)
    control = names[0] if control is None else control
    if all(len(arm.seeds) == 1 for arm in arms.values()):
        arms = {name: replace(arm, seeds=arms[control].seeds) for name, arm in arms.items()}
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


def list_comparison_problems(predictions: OutsidePredictions, control: str | None) -> list[str]:
    """Return why the arms cannot be compared: an unknown control, classes without images, seeds that do not pair."""
    seeds = {arm: sorted(by_seed) for arm, by_seed in predictions.arms.items()}
    problems = []
    if control is not None and control not in seeds:
        problems.append(f"the predictions have no arm {control!r}{nearest_name(control, seeds)}")
    if absent := predictions.absent_classes:
        problems.append(
            f"macro-F1 needs images of every class, but {len(absent)} have none: {list_some(absent)}; compare on images of all "
            "classes, leave the classes out of the probabilities, or judge each arm alone"
        )
    if len({tuple(found) for found in seeds.values()}) > 1 and any(len(found) > 1 for found in seeds.values()):
        listed = "; ".join(f"{name}: {', '.join(map(str, found))}" for name, found in seeds.items())
        problems.append(
            f"the arms need the same seeds, or one each, but have {listed}; leave out the seeds that do not pair, or judge each "
            "arm alone"
        )
    return problems


def _order_by_seed(by_seed: Mapping[int, Predictions]) -> list[Predictions]:
    return [by_seed[seed] for seed in sorted(by_seed)]

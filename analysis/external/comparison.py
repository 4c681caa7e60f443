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
    rows = []
    for name in names:
        if name == control:
            continue
        treatment, do_pair = arms[name], _do_pair(arms[name].seeds, arms[control].seeds)
        if do_pair:
            treatment = replace(treatment, seeds=arms[control].seeds)
        row = compare_arms(
            treatment, arms[control], margin=margin, alpha=alpha, num_rows=len(names) - 1, cost_ratio=None
        )
        if not do_pair:
            rows.append(row)
            continue
        treatment_runs, control_runs = ([_order_by_seed(predictions.arms[arm])] for arm in (name, control))
        beside = compute_side_metrics(
            treatment_runs, control_runs, predictions.names, groups, has_scores=predictions.has_scores
        )
        rows.append(replace(row, side_metrics=beside))
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


def _order_by_seed(by_seed: Mapping[int, Predictions]) -> list[Predictions]:
    return [by_seed[seed] for seed in sorted(by_seed)]

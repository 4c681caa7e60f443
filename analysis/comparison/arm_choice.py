"""The arm that a study hands over, chosen on the splits `confirm` and `search`; the test split has no part in it."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import norm

from analysis.comparison.paired_difference import compare_arms
from analysis.comparison.values import ArmChoice, ChoiceRule, Verdict
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import compute_macro_f1

# Scores that differ by rounding alone are equal.
ROUNDING = 1e-9


def choose_arm(
    confirm: Mapping[str, ArmPredictions],
    search: Mapping[str, ArmPredictions],
    *,
    margin: float,
    alpha: float,
    num_candidates: Mapping[str, int],
    seconds: Mapping[str, float],
) -> ArmChoice:
    """Return the arm to hand over, and by which rule.

    The arm with the highest mean macro-F1 on `confirm` is handed over if its interval against every other arm leaves zero, at
    `alpha` for all arms together. Otherwise, those that it is not shown to be better than are tied with it. Of these, the one
    with the highest macro-F1 on the images of both splits together is handed over, and of equal ones the one that costs least.

    The models have trained on neither split, but their configuration was chosen on `search`, as the best of several. The score
    on both splits is therefore lowered by an upper bound of what the best of n candidates gains by chance on these images: the
    expected maximum of n standard normal variables (Blom 1958) times the standard error of a score there, for the share of the
    images that are of `search`.

    Args:
        confirm: predictions by arm, of two arms or more and the same images.
        search: predictions by arm, of the same seeds as in `confirm`.
        margin: of the comparison.
        alpha: of the comparison.
        num_candidates: n of each arm, the search trials that its configuration is the best of.
        seconds: device-seconds of a trial of each arm.
    """
    scores = {name: _score(side) for name, side in confirm.items()}
    leader, *others = sorted(scores, key=lambda name: -scores[name])
    rows = {
        other: compare_arms(
            confirm[leader], confirm[other], margin=margin, alpha=alpha, num_rows=len(others), cost_ratio=None
        )
        for other in others
    }
    tied = tuple(other for other, row in rows.items() if row.verdict is not Verdict.BETTER)
    effect = rows[others[0]].effect
    if not tied:
        rule = ChoiceRule.DECIDED
        return ArmChoice(arm=leader, rule=rule, confirm_macro_f1=scores, leader=leader, effect=effect)
    penalties = _penalize(search, (leader, *tied), num_candidates, margin, alpha)
    pooled = {name: _score(confirm[name], search[name]) for name in (leader, *tied)}
    share = len(search[leader].labels) / (len(search[leader].labels) + len(confirm[leader].labels))
    pooled = {name: score - share * penalties[name] for name, score in pooled.items()}
    best = [name for name, score in pooled.items() if score >= max(pooled.values()) - ROUNDING]
    return ArmChoice(
        arm=min(best, key=lambda name: seconds[name]),
        rule=ChoiceRule.POOLED if len(best) == 1 else ChoiceRule.CHEAPER,
        confirm_macro_f1=scores,
        leader=leader,
        effect=effect,
        pooled_macro_f1=pooled,
    )


def _score(*parts: ArmPredictions) -> float:
    """Return the mean macro-F1 of an arm's seeds on the images of all parts together."""
    labels = np.concatenate([part.labels for part in parts])
    predicted = np.concatenate([part.predicted for part in parts], axis=1)
    return float(compute_macro_f1(labels, predicted, parts[0].num_classes).mean())


def _penalize(
    search: Mapping[str, ArmPredictions],
    arms: tuple[str, ...],
    num_candidates: Mapping[str, int],
    margin: float,
    alpha: float,
) -> dict[str, float]:
    """Return the bound of each arm's gain by selection: the standard error of a score times the expected maximum."""
    first, *others = (search[name] for name in arms)
    rows = [compare_arms(first, other, margin=margin, alpha=alpha, num_rows=1, cost_ratio=None) for other in others]
    # A difference of two scores has twice the variance of one.
    error = max(math.sqrt(row.image_variance / 2) for row in rows)
    return {name: error * expect_maximum(max(1, num_candidates[name])) for name in arms}


def expect_maximum(number: int) -> float:
    """Return the expected maximum of `number` standard normal variables, by Blom's approximation; 0 for one."""
    return float(norm.ppf((number - 0.375) / (number + 0.25))) if number > 1 else 0.0

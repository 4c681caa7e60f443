"""Rounds of interventions whose effects are known: how often the recommendation is wrong, and how often what helps is found.

The scores of the runs are normal, and test images are so many that only seeds vary. Changes of macro-F1 are in margins, those of
a target in standard deviations of the difference of two runs. Arms share their control, and a run that is lucky on macro-F1 is
lucky on its target.
"""

from dataclasses import dataclass, replace

import numpy as np

from analysis.comparison.paired_difference import compute_verdict
from analysis.comparison.values import Verdict
from analysis.interventions.recommendation import recommend, share_noninferior_levels
from analysis.interventions.values import (
    InterventionEffect,
    Outcome,
    Prediction,
    StatedIntervention,
    Target,
    TargetEffect,
    TargetKind,
)
from analysis.statistics.crossed_interval import CrossedEstimate
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray
from analysis.statistics.moderated_variances import SharedVariance, moderate_variances, share_variances
from trainables.seeds import numpy_generator

# Of a study's first round, half of 0.05.
ALPHA = 0.025
NUM_IMAGES = 10**6
# Correlation of the noise of a run's macro-F1 with that of its target, of which a lower share is better.
CORRELATION = 0.7
# Classes whose recall moderates the variance of a target.
NUM_CLASSES = 10
FALL = Interval(estimate=-0.2, low=-0.3, high=-0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendedRound:
    """A round of one look.

    Attributes:
        num_arms: beside the control.
        num_seeds: of each.
        num_reaching: arms that reduce their target; the first ones.
        reduction: of their target, in standard deviations of a difference.
        gain: true change of macro-F1 of these arms, in margins; that of the others is `other_gain`.
        other_gain: of the other arms, which do nothing to their target.
        noise: standard deviation of a difference in macro-F1 of one seed, in margins.
        lead: number of the arm whose reduction was predicted; None where none was.
        is_earlier: whether macro-F1 is judged as before 2026-12-01, by the lower bound of its row.
    """

    num_arms: int
    num_seeds: int
    num_reaching: int = 0
    reduction: float = 0.0
    gain: float = 0.0
    other_gain: float = 0.0
    noise: float = 0.5
    lead: int | None = None
    is_earlier: bool = False


@dataclass(frozen=True, slots=True)
class RoundRecommendation:
    """What became of one round.

    Attributes:
        is_wrong: whether an arm is recommended that loses the margin or more, or has neither a better target nor a better
            macro-F1.
        is_right: whether another arm is recommended.
    """

    is_wrong: bool
    is_right: bool


def run_recommended_round(world: RecommendedRound, number: int) -> RoundRecommendation:
    """Return what a round recommends; `number` seeds its draw."""
    generator = numpy_generator(number, "recommended round")
    arms, seeds = world.num_arms, world.num_seeds
    luck = generator.standard_normal((2, arms + 1, seeds))
    targets = -(CORRELATION * luck[0] + np.sqrt(1 - CORRELATION**2) * luck[1])
    reaches = np.arange(arms) < world.num_reaching
    gains = np.where(reaches, world.gain, world.other_gain)
    macro_f1 = gains[:, None] + world.noise * (luck[0, 1:] - luck[0, 0]) / np.sqrt(2)
    falls = -world.reduction * reaches[:, None] + (targets[1:] - targets[0]) / np.sqrt(2)
    beside = generator.standard_normal((arms, NUM_CLASSES, seeds))
    effects = _judge(world, macro_f1, falls, beside)
    name = recommend(effects, 1.0, "study").arm
    if not name:
        return RoundRecommendation(is_wrong=False, is_right=False)
    chosen = int(name)
    is_wrong = gains[chosen] <= -1 or (gains[chosen] <= 0 and not reaches[chosen])
    return RoundRecommendation(is_wrong=bool(is_wrong), is_right=not is_wrong)


def _judge(
    world: RecommendedRound, macro_f1: FloatArray, falls: FloatArray, beside: FloatArray
) -> list[InterventionEffect]:
    """Return the effects of the arms, from (A, S) changes of macro-F1 and targets and (A, C, S) changes of recall."""
    # Half of alpha for the rows and half for the targets, each divided by the arms.
    confidence = 1 - ALPHA / 2 / world.num_arms
    shared = share_variances(list(macro_f1))
    stated = [_state(str(arm), arm == world.lead) for arm in range(world.num_arms)]
    levels, effects = share_noninferior_levels(stated, ALPHA), []
    for arm, one in enumerate(stated):
        level = (1 - confidence) / 2 if world.is_earlier else levels[one.arm]
        row = _estimate(macro_f1[arm], None if shared is None else shared[arm], confidence)
        family = np.vstack([falls[arm][None], beside[arm]])
        moderated = moderate_variances(family.var(axis=1, ddof=1), world.num_seeds - 1)
        variance = SharedVariance(
            seed_variance=float(moderated.variances[0]) / world.num_seeds,
            degrees_of_freedom=moderated.degrees_of_freedom,
        )
        effects.append(
            InterventionEffect(
                stated=one,
                macro_f1=row.interval,
                macro_f1_verdict=compute_verdict(row.interval, 1.0)[0],
                target=_judge_target(_estimate(-falls[arm], variance, confidence), world.num_seeds),
                outcome=Outcome.NONE,
                collateral=None,
                ring_gap=None,
                cost_ratio=None,
                device_seconds=0.0,
                note="",
                num_seeds=world.num_seeds,
                # Whether its lower bound excludes the loss, which the p-value says too and takes longer to say.
                p_noninferior=float(row.interval.estimate - replace(row, confidence=1 - 2 * level).half_width <= -1),
                noninferior_level=level,
            )
        )
    return effects


def _estimate(values: FloatArray, shared: SharedVariance | None, confidence: float) -> CrossedEstimate:
    """Return the mean of (S,) values, without any noise of images."""
    number, mean = len(values), float(values.mean())
    shared = shared or SharedVariance(seed_variance=float(values.var(ddof=1)) / number, degrees_of_freedom=number - 1.0)
    found = CrossedEstimate(
        interval=Interval(estimate=mean, low=mean, high=mean),
        seed_variance=shared.seed_variance,
        image_variance=0.0,
        seed_image_variance=0.0,
        seed_freedom=shared.degrees_of_freedom,
        num_units=NUM_IMAGES,
        image_freedom=NUM_IMAGES - 1,
        confidence=confidence,
    )
    reach = found.half_width
    return replace(found, interval=Interval(estimate=mean, low=mean - reach, high=mean + reach))


def _judge_target(reduction: CrossedEstimate, num_seeds: int) -> TargetEffect:
    found = reduction.interval
    return TargetEffect(
        effect=Interval(estimate=-found.estimate, low=-found.high, high=-found.low),
        treatment=0.0,
        control=0.0,
        verdict=Verdict.BETTER if found.low > 0 else Verdict.UNDECIDED,
        confidence=reduction.confidence,
        num_seeds=num_seeds,
        num_images=NUM_IMAGES,
    )


def _state(arm: str, is_lead: bool) -> StatedIntervention:
    return StatedIntervention(
        arm=arm,
        title=arm,
        symptom="",
        diagnosis="",
        verdict="",
        changes={},
        target=Target(kind=TargetKind.CELLS, classes=()),
        spares="",
        prediction=Prediction(effect=FALL if is_lead else None, basis=""),
        refuted_by="",
        is_seen=False,
        num_target_images=NUM_IMAGES,
    )

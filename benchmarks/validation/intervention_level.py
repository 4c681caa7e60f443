"""The level of rounds of interventions that change nothing: tables resampled from predictions of control runs.

All runs of a pool have one configuration and differ in their seeds, so that no arm made of them is better than another. A table
draws the runs of the parent, which choose the target on one half of the images, and then fresh runs for the control and each arm.
Its images are drawn anew, with replacement within each class. Rows and targets are judged as the product judges them.

Noisy rounds have so many test images that only seeds vary: how often do rows that share their variances claim an effect?
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from analysis.comparison.paired_difference import compare_arms, compute_seed_differences
from analysis.comparison.values import Verdict
from analysis.interventions.effects import TargetRule, judge_target, mark_target
from analysis.interventions.target_predictions import find_choosing
from analysis.interventions.values import Target, TargetKind
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.crossed_interval import compute_half_width
from analysis.statistics.families import Scale
from analysis.statistics.moderated_variances import share_variances
from benchmarks.validation.statistics_simulation import REGIMES, World
from trainables.seeds import numpy_generator

ALPHA = 0.05
MARGIN = 0.005
POOL_SIZE = 60
DIGITS_TEST_SHARE = 0.7
# Half of the alpha of a study's first round, which is half of 0.05: what the rows of macro-F1 have.
ROUND_ALPHA = 0.0125
NUM_NOISY_IMAGES = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundWorld:
    """A round of arms that change nothing.

    Attributes:
        pool: "digits", or a regime of `REGIMES`.
        num_arms: beside the control.
        looks: numbers of seeds.
        num_parent_seeds: runs of the parent, which choose the target.
        has_old_control: whether the parent's runs are the control, instead of fresh ones, and the half that chose judges.
    """

    pool: str
    num_arms: int
    looks: tuple[int, ...]
    num_parent_seeds: int = 5
    has_old_control: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """What a table without any effect claims.

    Attributes:
        macro_f1: whether a row of macro-F1 differs from zero.
        target: whether a target does.
        target_change: mean measured change of the target over the arms, at the first look.
    """

    macro_f1: bool
    target: bool
    target_change: float


@cache
def make_pool(name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return labels (N,) and predicted classes (R, N) of the runs of one configuration."""
    if name == "digits":
        return _train_on_digits()
    world = World(seed_sd=REGIMES[name], num_seeds=POOL_SIZE, shifts=(0.0,))
    (arm,) = world.draw(numpy_generator(0, "control runs", name))
    return arm.labels, arm.predicted


def _train_on_digits() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Train networks of one hidden layer on few of scikit-learn's digits, with different seeds."""
    import warnings

    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    order = numpy_generator(0, "digits").permutation(len(labels))
    test, train = np.split(order, [round(DIGITS_TEST_SHARE * len(labels))])
    train = train[:200]
    predicted = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(POOL_SIZE):
            network = MLPClassifier((24,), max_iter=25, learning_rate_init=0.01, random_state=seed)
            predicted.append(network.fit(images[train] / 16, labels[train]).predict(images[test] / 16))
    return labels[test].astype(np.int64), np.stack(predicted).astype(np.int64)


def measure_claims(world: RoundWorld, number: int) -> Claims:
    """Return what one table claims; `number` seeds its draw."""
    labels, pool = make_pool(world.pool)
    generator = numpy_generator(number, "round", world.pool)
    images = np.concatenate(
        [generator.choice(own := np.flatnonzero(labels == c), size=len(own)) for c in np.unique(labels)]
    )
    num_fresh = world.looks[-1] * (world.num_arms + 1)
    drawn = generator.permutation(len(pool))[: world.num_parent_seeds + num_fresh]
    assert len(drawn) == world.num_parent_seeds + num_fresh, "the pool is too small"
    runs = pool[drawn][:, images]
    labels, parent, fresh = labels[images], runs[: world.num_parent_seeds], runs[world.num_parent_seeds :]
    choosing = find_choosing(images, None, number)
    target, names = _choose_target(labels[choosing], parent[:, choosing]), [str(c) for c in range(labels.max() + 1)]
    judged = choosing if world.has_old_control else ~choosing
    arms = [
        _make_arm(f"arm {i}", labels[judged], part[:, judged])
        for i, part in enumerate(np.split(fresh, world.num_arms + 1))
    ]
    if world.has_old_control:
        arms[0] = _make_arm("control", labels[judged], parent[: world.looks[-1], judged])
    return _judge(world, arms, target, names)


def _choose_target(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> Target:
    """Return the cell with the highest rate on the images that choose."""
    num_classes = int(labels.max()) + 1
    rates = {
        (true, called): float((predicted[:, labels == true] == called).mean())
        for true in range(num_classes)
        for called in range(num_classes)
        if true != called
    }
    true, called = max(rates, key=lambda cell: rates[cell])
    return Target(kind=TargetKind.CELLS, classes=(str(true),), cells=((str(true), str(called)),))


def _make_arm(name: str, labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> ArmPredictions:
    return ArmPredictions(
        name=name,
        seeds=tuple(range(len(predicted))),
        labels=labels,
        # An image that was drawn several times counts as several images.
        sample_ids=np.arange(len(labels)),
        predicted=predicted,
        num_classes=int(labels.max()) + 1,
    )


def _judge(world: RoundWorld, arms: list[ArmPredictions], target: Target, names: list[str]) -> Claims:
    control, *others = arms
    # Half of alpha for the rows and half for the targets, as `study.interventions.derived_spec` divides it.
    rule = TargetRule(alpha=ALPHA / 2, num_targets=len(others), num_looks=len(world.looks), margin=MARGIN)
    changes: list[float] = []
    claimed_target = False
    for arm in others:
        for number, num_seeds in enumerate(world.looks, 1):
            shares = mark_target(_first(arm, num_seeds), _first(control, num_seeds), target, names)
            found = judge_target(shares, rule, Scale.DIFFERENCE)
            if number == 1:
                changes.append(found.effect.estimate)
            if found.verdict is not Verdict.UNDECIDED:
                claimed_target |= found.verdict in (Verdict.BETTER, Verdict.WORSE)
                break
    return Claims(
        macro_f1=_claims_row(world, control, others), target=claimed_target, target_change=float(np.mean(changes))
    )


def _claims_row(world: RoundWorld, control: ArmPredictions, others: list[ArmPredictions]) -> bool:
    """Return whether a row of macro-F1 differs from zero at the first look that decides it; rows of a look share variances."""
    waiting, is_claimed = list(others), False
    for number, num_seeds in enumerate(world.looks, 1):
        base = _first(control, num_seeds)
        sides = [_first(arm, num_seeds) for arm in waiting]
        shared = share_variances([compute_seed_differences(side, base) for side in sides])
        rows = [
            compare_arms(
                side,
                base,
                margin=MARGIN,
                alpha=ALPHA / 2,
                num_rows=len(others),
                cost_ratio=None,
                look=number,
                num_looks=len(world.looks),
                shared=None if shared is None else shared[i],
            )
            for i, side in enumerate(sides)
        ]
        is_claimed |= any(row.verdict in (Verdict.BETTER, Verdict.WORSE) for row in rows)
        waiting = [arm for arm, row in zip(waiting, rows, strict=True) if row.verdict is Verdict.UNDECIDED]
    return is_claimed


def _first(arm: ArmPredictions, number: int) -> ArmPredictions:
    return replace(arm, seeds=arm.seeds[:number], predicted=arm.predicted[:number])


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyRound:
    """A round whose runs have no image noise.

    Attributes:
        num_arms: beside the control.
        num_seeds: of each.
        control_noise: standard deviation between seeds of the control, in units of the other arms'.
        arm_noise: that of the first arm.
    """

    num_arms: int
    num_seeds: int = 3
    control_noise: float = 1.0
    arm_noise: float = 1.0


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What one round claims, with shared variances and with rows that stand alone.

    Attributes:
        shared: whether a row differs from zero.
        alone: the same of rows that stand alone.
        shared_width: median half-width of the rows, in standard deviations of one difference.
        alone_width: the same of rows that stand alone.
    """

    shared: bool
    alone: bool
    shared_width: float
    alone_width: float


def run_noisy_round(world: NoisyRound, number: int) -> RoundOutcome:
    """Return what a round of arms that change nothing claims; `number` seeds its draw."""
    generator = numpy_generator(number, "noisy round")
    noise = np.array([world.control_noise, world.arm_noise, *[1.0] * (world.num_arms - 1)])
    scores = noise[:, None] * generator.standard_normal((world.num_arms + 1, world.num_seeds))
    differences = scores[1:] - scores[0]
    found = share_variances(list(differences))
    assert found is not None
    own = differences.var(axis=1, ddof=1) / world.num_seeds
    widths = [
        _half_widths(world, *np.array([(one.seed_variance, one.degrees_of_freedom) for one in found]).T),
        _half_widths(world, own, np.full(len(own), world.num_seeds - 1.0)),
    ]
    claims = [bool((np.abs(differences.mean(axis=1)) > width).any()) for width in widths]
    unit = np.sqrt(2)
    return RoundOutcome(*claims, *(float(np.median(width)) / unit for width in widths))


def _half_widths(world: NoisyRound, seed_variances: np.ndarray, seed_freedom: np.ndarray) -> np.ndarray:
    alpha = ROUND_ALPHA / world.num_arms
    return compute_half_width(
        seed_variances, 0.0, 0.0, seed_freedom=seed_freedom, image_freedom=NUM_NOISY_IMAGES - 1, alpha=alpha
    )

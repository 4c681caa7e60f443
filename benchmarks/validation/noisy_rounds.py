"""Rounds in which nothing differs but the noise between seeds does: how often rows that share their variances claim an effect.

Test images are so many that only seeds vary.
"""

from dataclasses import dataclass

import numpy as np

from analysis.statistics.crossed_interval import compute_half_width
from analysis.statistics.moderated_variances import share_variances
from trainables.seeds import numpy_generator

# Half of the alpha of a study's first round, which is half of 0.05: what the rows of macro-F1 have.
ALPHA = 0.0125
NUM_IMAGES = 10**6


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
    alpha = ALPHA / world.num_arms
    return compute_half_width(
        seed_variances, 0.0, 0.0, seed_freedom=seed_freedom, image_freedom=NUM_IMAGES - 1, alpha=alpha
    )

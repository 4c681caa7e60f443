"""Draws from the priors of a search's parameters, which weigh less from suggestion to suggestion.

Suggestions are a mixture of the prior and the sampler, as in PriorBand (Mallik et al. 2023, NeurIPS). The prior's share falls
with the square of the number of trials, so that a prior which is wrong costs at most twice `NUM_PRIOR_TRIALS` trials, whatever
the length of the search.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import truncnorm

from search_spaces.config import Value
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, SearchSpace
from study.spec.sections import PriorSpec

# Suggestions at the start of an arm that certainly come from the prior, as many as the random ones without one.
NUM_PRIOR_TRIALS = 5


def prior_share(number: int) -> float:
    """Return the probability that the suggestion `number` of an arm, from 0, is drawn from the prior."""
    return min(1.0, (NUM_PRIOR_TRIALS / (number + 1)) ** 2)


def draw_from_prior(
    prior: Mapping[str, PriorSpec], space: SearchSpace, number: int, generator: np.random.Generator
) -> dict[str, Value]:
    """Return a value of every parameter that has a prior, or {} where the sampler suggests all.

    Args:
        prior: by the name of a number of the space.
        space: of the arm.
        number: of the suggestion in its arm, from 0; those that the search starts with do not count.
        generator: of this suggestion.
    """
    if not prior or generator.random() >= prior_share(number):
        return {}
    return {name: _draw(space, name, found, generator) for name, found in prior.items()}


def _draw(space: SearchSpace, name: str, prior: PriorSpec, generator: np.random.Generator) -> Value:
    parameter = space[name]
    assert not isinstance(parameter, CategoricalParameter)
    low, high, center, width = float(parameter.low), float(parameter.high), prior.center, prior.width
    is_log = isinstance(parameter, FloatParameter) and parameter.log
    if is_log:
        low, high, center, width = (math.log(value) for value in (low, high, center, width))
    if low == high:
        return parameter.low
    bounds = (low - center) / width, (high - center) / width
    drawn = float(truncnorm.rvs(*bounds, loc=center, scale=width, random_state=generator))
    value = math.exp(drawn) if is_log else drawn
    inside = min(max(value, parameter.low), parameter.high)
    return round(inside) if isinstance(parameter, IntParameter) else float(inside)

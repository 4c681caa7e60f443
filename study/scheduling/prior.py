"""Draws from the priors of a search's parameters, which weigh less from suggestion to suggestion.

Suggestions are a mixture of the prior and the sampler, as in PriorBand (Mallik et al. 2023, NeurIPS). The prior's share falls
with the square of the number of trials, so that a prior which is wrong costs at most twice as many trials as certainly come from
it, whatever the length of the search. The others of the first ones are random, so that a sampler which models what it has seen
knows more than the surroundings of the prior.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import truncnorm

from search_spaces.config import Value
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, SearchSpace
from study.spec.sections import PriorSpec

# Suggestions at the start of an arm that certainly come from its priors.
NUM_CERTAIN = 3


def prior_share(number: int) -> float:
    """Return the probability that the suggestion `number` of an arm, from 0, is drawn from the prior."""
    return min(1.0, (NUM_CERTAIN / (number + 1)) ** 2)


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

"""Conversion of parameters to Optuna distributions, both of which include their upper bounds."""

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces.config import Value
from search_spaces.space import FloatParameter, IntParameter, Parameter, SearchSpace


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """Return the Optuna distribution with the same values as `parameter`."""
    if isinstance(parameter, FloatParameter):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, IntParameter):
        return IntDistribution(parameter.low, parameter.high)
    return CategoricalDistribution(parameter.choices)


def suggest_hyperparameters(space: SearchSpace, trial: optuna.Trial) -> dict[str, Value]:
    """Return the fixed values of `space` and the suggestions of `trial` for the parameters that apply, parents first."""
    chosen: dict[str, Value] = dict(space.fixed)
    for parameter in space.parameters:
        if not parameter.applies(chosen):
            continue
        if isinstance(parameter, FloatParameter):
            chosen[parameter.name] = trial.suggest_float(
                parameter.name, parameter.low, parameter.high, log=parameter.log
            )
        elif isinstance(parameter, IntParameter):
            chosen[parameter.name] = trial.suggest_int(parameter.name, parameter.low, parameter.high)
        else:
            level = trial.suggest_categorical(parameter.name, list(parameter.choices))
            chosen[parameter.name] = parameter.check(level)  # type: ignore[arg-type]
    return chosen

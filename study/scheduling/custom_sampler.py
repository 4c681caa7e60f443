"""Custom samplers: functions of installed packages or of the working folder that return an Optuna sampler.

Such a function takes a seed and returns an `optuna.samplers.BaseSampler`; ``search.sampler = "mylab.search:make_sampler"``
names it::

    def make_sampler(seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.QMCSampler(seed=seed, scramble=True)

It is called once per arm, with a seed derived from the study's seed and the arm, and the sampler then suggests all trials of the
arm. It may keep state, in itself or in Optuna's attributes. A resumed study asks it again for every recorded trial, in the order
of the records, which restores the state; so its suggestions must depend on the seed and on the trials alone.
"""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna

from search_spaces.errors import UserInputError
from search_spaces.extensions import load_function, locating
from study.spec.sections import SAMPLER_ENTRY_POINTS


def make_custom_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a custom function.

    Args:
        name: Name of an entry point of the group `abstudy.samplers`, or "package.module:function".
        seed: Of the arm; the function gets it as a whole number in [0, 2**32).

    Raises:
        UserInputError: If the function cannot be imported, takes no seed, fails, or returns something else.
    """
    make = load_function(name, SAMPLER_ENTRY_POINTS, "the sampler")
    try:
        inspect.signature(make).bind(seed=seed)
    except TypeError as error:
        raise UserInputError(
            f"the sampler {name!r} must be a function of the argument seed alone, but: {error}"
        ) from None
    with locating(f"the sampler {name!r}"), expect_experimental():
        sampler = make(seed=seed % 2**32)
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise UserInputError(
            f"the sampler {name!r} must return an optuna.samplers.BaseSampler, but returned {type(sampler).__name__}"
        )
    return sampler


@contextmanager
def expect_experimental() -> Iterator[None]:
    """Suppress Optuna's warnings that a sampler or an option is experimental; which are depends on its version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield

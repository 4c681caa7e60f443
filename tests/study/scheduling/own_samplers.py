"""Samplers as somebody else would write them, the faulty ones too."""

import itertools
import os

import optuna

calls = itertools.count()


def make_qmc(seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that keeps its position in an attribute of the Optuna study."""
    return optuna.samplers.QMCSampler(seed=seed, scramble=True)


def make_nsga(seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that keeps generations in attributes of the trials."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=4)


def make_random(seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that keeps its position in a generator of its own."""
    return optuna.samplers.RandomSampler(seed=seed)


def make_other(seed: int) -> optuna.samplers.BaseSampler:
    """Return another sampler where the environment asks for it, as another version of a package would."""
    return optuna.samplers.RandomSampler(seed=seed + int(os.environ.get("OTHER_SAMPLER", "0")))


def make_unseeded(seed: int) -> optuna.samplers.BaseSampler:
    """Ignore the seed."""
    del seed
    return optuna.samplers.RandomSampler(seed=next(calls))


def make_without_seed() -> optuna.samplers.BaseSampler:
    """Take no seed."""
    return optuna.samplers.RandomSampler()


def make_name(seed: int) -> object:
    """Return what is no sampler."""
    return f"random {seed}"


def make_with_error(seed: int) -> object:
    """Fail as somebody's code may."""
    raise RuntimeError(f"no license\nfor {seed % 1}")


class BrokenSampler(optuna.samplers.RandomSampler):
    """A sampler that fails when it is asked."""

    def sample_independent(self, *arguments: object) -> object:
        """Fail."""
        raise LookupError(f"{len(arguments)} arguments")


def make_broken(seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler that fails when it is asked."""
    return BrokenSampler(seed=seed)

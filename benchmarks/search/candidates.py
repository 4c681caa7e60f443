"""Candidates for the default sampler, which benchmarks/SEARCH.md lists with the rule that chooses among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, create_trial
from scipy.stats import norm, rankdata

from search_spaces.designs import Arm
from study.scheduling.sampler import NUM_STARTUP_TRIALS, ArmSampler
from study.scheduling.sampler_history import TELLING, rank_as_tpe
from study.spec.study_spec import StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What suggests in turn, what a Gaussian process gets as values, and which suggestions are random."""

    turn: Sequence[str]
    values: Literal["scores", "ranks"] = "ranks"
    random_every: int = 0
    random_first: int = 0


TPE, GP = "tpe_multivariate", "gp"
CANDIDATES: Mapping[str, Candidate] = {
    "tpe, random": Candidate(turn=[TPE], random_every=8),
    "tpe, random fourth": Candidate(turn=[TPE], random_every=4),
    "tpe, 10 first, random": Candidate(turn=[TPE], random_every=8, random_first=10),
    "tpe, univariate": Candidate(turn=["tpe_univariate"]),
    "gp, scores": Candidate(turn=[GP], values="scores"),
    "gp, ranks": Candidate(turn=[GP]),
    "in turn": Candidate(turn=[TPE, GP]),
    "in turn, random": Candidate(turn=[TPE, GP], random_every=8),
}


class CandidateSampler(ArmSampler):
    """A sampler that suggests as one of `CANDIDATES`."""

    def __init__(self, name: str, arm: Arm, spec: StudySpec) -> None:
        """Begin with no trials."""
        super().__init__(arm, sampler="auto", seed=spec.seed)
        self._candidate = CANDIDATES[name]
        history, values = self._history, self._candidate.values
        history.rank = lambda: _rescale(history.trials, values)  # type: ignore[method-assign]

    def _choose_sampler(self) -> str:
        number, found = self._num_suggested, self._candidate
        ended = [trial for trial in self.trials if trial.state in TELLING]
        is_random = found.random_every and number % found.random_every == found.random_every - 1
        if is_random or len(ended) < found.random_first:
            return "random"
        name = found.turn[number % len(found.turn)]
        # As in the default before, scores need so many trials; ranks need so many different ones.
        enough = len(ended) if found.values == "scores" else self._history.num_scores
        return "random" if name == GP and enough < NUM_STARTUP_TRIALS else name


def _rescale(trials: Sequence[FrozenTrial], kind: str) -> optuna.Study:
    ended = [trial for trial in trials if trial.state in TELLING]
    order = {key: place for place, key in enumerate(sorted({rank_as_tpe(trial) for trial in ended}))}
    places = np.array([order[rank_as_tpe(trial)] for trial in ended])
    scores = np.array([t.value if t.values else t.intermediate_values[t.last_step or 0] for t in ended], dtype=float)
    values = scores if kind == "scores" else norm.ppf((rankdata(places) - 0.5) / max(1, len(places)))
    told = dict(zip((trial.number for trial in ended), values.tolist(), strict=True))
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        options = {"params": trial.params, "distributions": trial.distributions}
        if trial.number in told:
            study.add_trial(create_trial(value=told[trial.number], **options))
        elif trial.state is optuna.trial.TrialState.RUNNING:
            study.add_trial(create_trial(state=trial.state, **options))
    return study

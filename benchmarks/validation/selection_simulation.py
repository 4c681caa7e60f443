"""Simulated scores of seeds, without image noise: a candidate is chosen before the comparison, and trials diverge."""

from dataclasses import dataclass

import numpy as np

from analysis.statistics.crossed_interval import compute_half_width
from analysis.statistics.metrics import FloatArray
from trainables.seeds import numpy_generator

ALPHA = 0.05
CHUNK = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingWorld:
    """Two arms whose candidates are all equally good; the best of each over the ranking seeds goes on.

    Attributes:
        candidates: of treatment and control.
        ranking_seeds: for the choice.
        num_seeds: S, of the comparison.
        seed_sds: standard deviation of the score between seeds, of treatment and control.
    """

    candidates: tuple[int, int]
    ranking_seeds: int
    num_seeds: int
    seed_sds: tuple[float, float] = (1.0, 1.0)


RANKING_CASES = {
    "3 candidates against 1, 3 ranking seeds, S = 3": RankingWorld(candidates=(3, 1), ranking_seeds=3, num_seeds=3),
    "3 against 1, 2 ranking seeds, S = 10": RankingWorld(candidates=(3, 1), ranking_seeds=2, num_seeds=10),
    "3 against 3, 2 ranking seeds, S = 10, seed SD 2:1": RankingWorld(
        candidates=(3, 3), ranking_seeds=2, num_seeds=10, seed_sds=(2.0, 1.0)
    ),
}


def measure_ranking(world: RankingWorld, number: int) -> dict[str, int]:
    """Return how many of `CHUNK` comparisons are wrongly BETTER, with fresh seeds and with those of the ranking."""
    generator = numpy_generator(number, f"ranking {world}")
    fresh, reused = [], []
    for count, sd in zip(world.candidates, world.seed_sds, strict=True):
        scores = sd * generator.standard_normal((CHUNK, count, world.num_seeds))
        best = scores[:, :, : world.ranking_seeds].mean(axis=2).argmax(axis=1)
        reused.append(scores[np.arange(CHUNK), best])
        fresh.append(sd * generator.standard_normal((CHUNK, world.num_seeds)))
    return {"fresh": _count_better(fresh[0] - fresh[1]), "reused": _count_better(reused[0] - reused[1])}


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergenceWorld:
    """One arm of two loses `loss` of its score with the probability `rate` in each trial.

    Attributes:
        num_seeds: S.
        rate: of divergence.
        loss: of score.
        seed_sd: standard deviation of the difference between seeds that finish.
    """

    num_seeds: int
    rate: float
    loss: float = 0.60
    seed_sd: float = 0.01


def measure_divergence(world: DivergenceWorld, number: int) -> dict[str, int]:
    """Return how many of `CHUNK` intervals cover their truth: over all trials, and over those that finished.

    Comparisons with fewer than two finished seeds have no interval over them; these count as covering nothing.
    """
    generator = numpy_generator(number, f"divergence {world}")
    differences = world.seed_sd * generator.standard_normal((CHUNK, world.num_seeds))
    diverged = generator.random(differences.shape) < world.rate
    everything = differences - world.loss * diverged
    covered = 0
    for finished in range(2, world.num_seeds + 1):
        rows = np.flatnonzero((~diverged).sum(axis=1) == finished)
        kept = differences[rows][~diverged[rows]].reshape(len(rows), finished)
        covered += int(np.sum(np.abs(kept.mean(axis=1)) <= _half_widths(kept)))
    error = np.abs(everything.mean(axis=1) + world.rate * world.loss)
    return {"all": int(np.sum(error <= _half_widths(everything))), "finished": covered}


def _count_better(differences: FloatArray) -> int:
    return int(np.sum(differences.mean(axis=1) > _half_widths(differences)))


def _half_widths(differences: FloatArray) -> FloatArray:
    """Return the half-widths of the product's intervals, of (R, S) differences without image noise."""
    num_seeds = differences.shape[1]
    variances = differences.var(axis=1, ddof=1) / num_seeds
    return compute_half_width(variances, 0.0, 0.0, seed_freedom=num_seeds - 1, image_freedom=1, alpha=ALPHA)

"""Simulated families of cells with a known truth for both questions: unbounded values, shares, and differences of shares.

An image is a hit of a share where latent mean + image effect + seed effect + noise is positive; the truth for these models is the
mean over images given the seed effects, and that for the recipe the mean over both, in closed form.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy import special

from analysis.statistics.families import Cell, Scale, compute_family, mean_cell
from analysis.statistics.metrics import FloatArray
from trainables.seeds import numpy_generator

ALPHA = 0.05
IMAGE_SD = 1.0
GAP, IMAGE_NOISE = 0.10, 0.30


class Kind(StrEnum):
    """What a cell holds; "losses" are differences of -1 and 0 only, such as accuracy lost."""

    GAUSSIAN = "gaussian"
    SHARES = "shares"
    DIFFERENCES = "differences"
    LOSSES = "losses"


SCALES = {
    Kind.GAUSSIAN: Scale.UNBOUNDED,
    Kind.SHARES: Scale.PROPORTION,
    Kind.DIFFERENCES: Scale.DIFFERENCE,
    Kind.LOSSES: Scale.DIFFERENCE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyWorld:
    """The parameters of a family.

    Attributes:
        kind: of its cells.
        num_seeds: S.
        sizes: images of each cell.
        rates: true share of each cell, of both sides of a difference; unused for gaussian cells.
        seed_sd: standard deviation of a seed's effect, on the latent scale for shares.
        spread: standard deviation of log seed_sd between cells.
        tail_freedom: degrees of freedom of the t distribution of seed effects; 0 for the normal one.
    """

    kind: Kind
    num_seeds: int
    sizes: tuple[int, ...]
    rates: tuple[float, ...] = ()
    seed_sd: float = 0.2
    spread: float = 0.0
    tail_freedom: int = 0

    @property
    def confidence(self) -> float:
        """Of each cell's interval, so that all of them hold together at 95 %."""
        return 1 - ALPHA / len(self.sizes)

    def draw(self, generator: np.random.Generator) -> tuple[list[Cell], FloatArray, FloatArray]:
        """Return the cells, their true values for these models, and those for the recipe."""
        drawn = [self._draw_cell(i, generator) for i in range(len(self.sizes))]
        return [c for c, _, _ in drawn], np.array([m for _, m, _ in drawn]), np.array([r for _, _, r in drawn])

    def _draw_cell(self, index: int, generator: np.random.Generator) -> tuple[Cell, float, float]:
        sd = self.seed_sd * np.exp(self.spread * generator.standard_normal())
        labels = np.zeros(self.sizes[index], dtype=np.int64)
        if self.kind is Kind.GAUSSIAN:
            seeds = GAP + sd * self._draw_seeds(generator)
            images = generator.standard_normal(len(labels)) + generator.standard_normal((self.num_seeds, len(labels)))
            return mean_cell(seeds[:, None] + IMAGE_NOISE * images, labels), float(seeds.mean()), GAP
        hits, truth = self._draw_hits(index, sd, generator)
        if self.kind is Kind.SHARES:
            return mean_cell(hits, labels), truth, self.rates[index]
        if self.kind is Kind.LOSSES:
            return mean_cell(-hits, labels), -truth, -self.rates[index]
        others, other_truth = self._draw_hits(index, sd, generator)
        return mean_cell(hits - others, labels), truth - other_truth, 0.0

    def _draw_hits(self, index: int, sd: float, generator: np.random.Generator) -> tuple[FloatArray, float]:
        """Return (S, n) hits and their true share for these models."""
        n, rate = self.sizes[index], self.rates[index]
        latent = special.ndtri(rate) * np.sqrt(1 + IMAGE_SD**2 + sd**2) + sd * self._draw_seeds(generator)
        noise = IMAGE_SD * generator.standard_normal(n) + generator.standard_normal((self.num_seeds, n))
        hits = (latent[:, None] + noise > 0).astype(np.float64)
        return hits, float(special.ndtr(latent / np.sqrt(1 + IMAGE_SD**2)).mean())

    def _draw_seeds(self, generator: np.random.Generator) -> FloatArray:
        if not self.tail_freedom:
            return generator.standard_normal(self.num_seeds)
        scale = np.sqrt(self.tail_freedom / (self.tail_freedom - 2))
        return generator.standard_t(self.tail_freedom, self.num_seeds) / scale


class FamilyFound(NamedTuple):
    """One family's intervals for one question: whether all true values are covered, mean half-width, mean squared error."""

    covered: bool
    half_width: float
    square: float


def measure_family(world: FamilyWorld, number: int) -> dict[str, FamilyFound]:
    """Return what is found of a family by question."""
    cells, *truths = world.draw(numpy_generator(number, f"family {world}"))
    found = compute_family(cells, scale=SCALES[world.kind], confidence=world.confidence)
    measured = {}
    for question, truth in zip(("models", "recipe"), truths, strict=True):
        intervals = [getattr(both, question) for both in found]
        if intervals[0] is None:
            continue
        low, estimate, high = np.array([[i.low, i.estimate, i.high] for i in intervals]).T
        covered = bool(np.all((low <= truth + 1e-12) & (truth <= high + 1e-12)))
        square = float(np.mean((estimate - truth) ** 2))
        measured[question] = FamilyFound(covered, float(np.mean(high - low)) / 2, square)
    return measured


def _gaussian(classes: int, seeds: int, images: int, spread: float, tail_freedom: int = 0) -> FamilyWorld:
    return FamilyWorld(
        kind=Kind.GAUSSIAN,
        num_seeds=seeds,
        sizes=(images,) * classes,
        seed_sd=0.03,
        spread=spread,
        tail_freedom=tail_freedom,
    )


def _rated(kind: Kind, seeds: int, sizes: tuple[int, ...], rates: tuple[float, ...], sd: float = 0.2) -> FamilyWorld:
    return FamilyWorld(kind=kind, num_seeds=seeds, sizes=sizes, rates=rates, seed_sd=sd)


DIRECTED = tuple(np.repeat([0.0, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3], 9).tolist())
FROM_5_TO_40 = tuple(np.linspace(0.05, 0.4, 10).tolist())
IMBALANCED = tuple(np.geomspace(20, 400, 10).astype(int).tolist())
EXTREME_SPREAD = "10 x 200, spread 1.0 (printed, no goal)"

GAUSSIAN_FAMILIES = {
    "10 x 40, spread 0": _gaussian(10, 3, 40, 0.0),
    "10 x 200, spread 0": _gaussian(10, 3, 200, 0.0),
    "10 x 200, spread 0.5": _gaussian(10, 3, 200, 0.5),
    EXTREME_SPREAD: _gaussian(10, 3, 200, 1.0),
    "10 x 200, spread 0.5, t with 4 df": _gaussian(10, 3, 200, 0.5, 4),
    "10 x 200, spread 0.5, S = 5": _gaussian(10, 5, 200, 0.5),
    "10 x 200, spread 0.5, S = 10": _gaussian(10, 10, 200, 0.5),
    "6 x 100, spread 0.5": _gaussian(6, 3, 100, 0.5),
    "2 x 200, spread 0.5": _gaussian(2, 3, 200, 0.5),
    "100 x 50, spread 0.5": _gaussian(100, 3, 50, 0.5),
}
BINOMIAL_FAMILIES = {
    **{f"10 classes x 100, S = {s}": _rated(Kind.SHARES, s, (100,) * 10, FROM_5_TO_40) for s in (1, 2, 3, 5)},
    "10 classes x 100, seed effect .5, S = 3": _rated(Kind.SHARES, 3, (100,) * 10, FROM_5_TO_40, 0.5),
    **{f"10 classes x 20 to 400, S = {s}": _rated(Kind.SHARES, s, IMBALANCED, FROM_5_TO_40) for s in (1, 3)},
    "100 classes x 50, S = 3": _rated(Kind.SHARES, 3, (50,) * 100, tuple(np.linspace(0.02, 0.4, 100).tolist())),
    **{f"90 directed x 100, S = {s}": _rated(Kind.SHARES, s, (100,) * 90, DIRECTED) for s in (1, 2, 3, 5)},
    **{f"differences, 10 x 100, S = {s}": _rated(Kind.DIFFERENCES, s, (100,) * 10, FROM_5_TO_40) for s in (1, 2, 3)},
    "differences, 10 x 20 to 400, S = 3": _rated(Kind.DIFFERENCES, 3, IMBALANCED, FROM_5_TO_40),
    **{f"losses of 10 %, 10 x 100, S = {s}": _rated(Kind.LOSSES, s, (100,) * 10, (0.1,) * 10) for s in (1, 3)},
}

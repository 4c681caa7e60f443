"""Simulated A/B comparisons with a known truth: predictions of two or more arms over seeds and images.

Every image has a latent margin; an arm predicts its class where margin + arm + seed + (arm x image) + (arm x seed x image)
noise is positive, otherwise another class, mostly the one that the image resembles. Arms and seeds share the images' margins.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special

from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import IntArray

NUM_CLASSES = 10
NUM_IMAGES = 2000
MEAN_MARGIN, ARM_IMAGE_SD, SEED_IMAGE_SD = 1.0, 0.3, 0.4
RESEMBLANCE = 0.6
NUM_TRUTH_SEEDS = 20_000
# Standard deviation of a seed's shift of the latent margin.
REGIMES = {"no seed noise": 0.0, "small (0.02)": 0.02, "middle (0.05)": 0.05, "large (0.15)": 0.15}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The parameters of a simulation.

    Attributes:
        seed_sd: standard deviation of a seed's shift of the latent margin; independent for each arm and seed.
        num_seeds, num_images: S and N.
        shifts: of the latent margin, one per arm; the first arm is the control.
        class_seed_sd: standard deviation of a seed's shift of one class, in addition.
        imbalance: images of the largest class over those of the smallest; the classes between are spaced geometrically.
        group_size: successive images that belong to one group, such as the images of a patient; 1 for none.
        group_sd: standard deviation of the latent margin between groups, for each arm, shared by its seeds.
    """

    seed_sd: float
    num_seeds: int
    shifts: tuple[float, ...]
    num_images: int = NUM_IMAGES
    class_seed_sd: float = 0.0
    imbalance: float = 1.0
    group_size: int = 1
    group_sd: float = 0.0

    def draw(self, generator: np.random.Generator) -> list[ArmPredictions]:
        """Return one set of arms with new images and new seeds."""
        n = self.num_images
        labels = self._labels()
        margins = MEAN_MARGIN + generator.standard_normal(n)
        similar = (labels + 1 + generator.integers(NUM_CLASSES - 1, size=n)) % NUM_CLASSES
        return [
            self._draw_arm(f"arm {number}", labels, margins + shift, similar, generator)
            for number, shift in enumerate(self.shifts)
        ]

    @property
    def groups(self) -> IntArray | None:
        """The group of each image, (N,); None where images are independent."""
        return None if self.group_size == 1 else np.arange(self.num_images) // self.group_size

    def compute_true_score(self, shift: float) -> float:
        """Return the macro-F1 of an arm over all seeds and images, without simulated images.

        An image of class c is correct with probability a_c = Phi((mean margin + shift + seed effects) / sd) and otherwise of each
        other class alike.
        """
        shares = np.bincount(self._labels(), minlength=NUM_CLASSES) / self.num_images
        generator = np.random.default_rng(0)
        seeds = generator.standard_normal((NUM_TRUTH_SEEDS, 1)) * self.seed_sd
        seeds = seeds + generator.standard_normal((NUM_TRUTH_SEEDS, NUM_CLASSES)) * self.class_seed_sd
        seeds = np.concatenate([seeds, -seeds])
        sd = np.sqrt(1 + ARM_IMAGE_SD**2 + SEED_IMAGE_SD**2 + self.group_sd**2)
        correct = shares * special.ndtr((MEAN_MARGIN + shift + seeds) / sd)
        wrong = (shares - correct) / (NUM_CLASSES - 1)
        predicted = correct + wrong.sum(axis=1, keepdims=True) - wrong
        return float(np.mean(2 * correct / (shares + predicted)))

    def compute_true_difference(self) -> float:
        """Return the macro-F1 of the last arm minus that of the first, over all seeds and images."""
        return self.compute_true_score(self.shifts[-1]) - self.compute_true_score(self.shifts[0])

    def find_shift(self, difference: float) -> float:
        """Return the latent shift of an arm whose macro-F1 is `difference` above that of the arm with shift 0."""
        base = self.compute_true_score(0.0)
        return float(optimize.brentq(lambda x: self.compute_true_score(x) - base - difference, -1.0, 2.0))

    def _labels(self) -> IntArray:
        if self.imbalance == 1.0:
            return np.arange(self.num_images) % NUM_CLASSES
        weights = np.geomspace(1.0, self.imbalance, NUM_CLASSES)
        edges = np.cumsum(weights) / weights.sum() * self.num_images
        return np.searchsorted(edges, np.arange(self.num_images) + 0.5)

    def _draw_arm(
        self, name: str, labels: IntArray, margins: np.ndarray, similar: IntArray, generator: np.random.Generator
    ) -> ArmPredictions:
        n, num_seeds = len(labels), self.num_seeds
        latent = margins + ARM_IMAGE_SD * generator.standard_normal(n)
        latent = latent + self.seed_sd * generator.standard_normal((num_seeds, 1))
        latent = latent + SEED_IMAGE_SD * generator.standard_normal((num_seeds, n), dtype=np.float32)
        other = (labels + 1 + generator.integers(NUM_CLASSES - 1, size=(num_seeds, n))) % NUM_CLASSES
        wrong = np.where(generator.random((num_seeds, n), dtype=np.float32) < RESEMBLANCE, similar, other)
        if self.class_seed_sd:
            latent = latent + self.class_seed_sd * generator.standard_normal((num_seeds, NUM_CLASSES))[:, labels]
        if self.groups is not None:
            latent = latent + self.group_sd * generator.standard_normal(n)[self.groups]
        return ArmPredictions(
            name=name,
            seeds=tuple(range(num_seeds)),
            labels=labels,
            sample_ids=np.arange(n),
            predicted=np.where(latent > 0, labels, wrong),
            num_classes=NUM_CLASSES,
        )


def first_seeds(arm: ArmPredictions, number: int) -> ArmPredictions:
    """Return the arm with its first seeds only."""
    return replace(arm, seeds=arm.seeds[:number], predicted=arm.predicted[:number])

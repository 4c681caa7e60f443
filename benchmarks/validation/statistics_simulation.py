"""Simulated A/B comparisons with a known truth: predictions of two or more arms over seeds and images.

Every image has a latent margin; an arm predicts its class where margin + arm + seed + (arm x image) + (arm x seed x image)
noise is positive, otherwise another class, mostly the one that the image resembles. Arms and seeds share the images' margins.
"""

from dataclasses import dataclass, replace

import numpy as np

from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import IntArray

NUM_CLASSES = 10
NUM_IMAGES = 2000
MEAN_MARGIN, ARM_IMAGE_SD, SEED_IMAGE_SD = 1.0, 0.3, 0.4
RESEMBLANCE = 0.6
# Standard deviation of a seed's shift of the latent margin.
REGIMES = {"no seed noise": 0.0, "small (0.02)": 0.02, "middle (0.05)": 0.05, "large (0.15)": 0.15}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The parameters of a simulation.

    Attributes:
        seed_sd: standard deviation of a seed's shift of the latent margin; independent for each arm and seed.
        num_seeds, num_images: S and N.
        shifts: of the latent margin, one per arm; the first arm is the control.
    """

    seed_sd: float
    num_seeds: int
    shifts: tuple[float, ...]
    num_images: int = NUM_IMAGES

    def draw(self, generator: np.random.Generator) -> list[ArmPredictions]:
        """Return one set of arms with new images and new seeds."""
        n = self.num_images
        labels = np.arange(n) % NUM_CLASSES
        margins = MEAN_MARGIN + generator.standard_normal(n)
        similar = (labels + 1 + generator.integers(NUM_CLASSES - 1, size=n)) % NUM_CLASSES
        return [
            self._draw_arm(f"arm {number}", labels, margins + shift, similar, generator)
            for number, shift in enumerate(self.shifts)
        ]

    def _draw_arm(
        self, name: str, labels: IntArray, margins: np.ndarray, similar: IntArray, generator: np.random.Generator
    ) -> ArmPredictions:
        n, num_seeds = len(labels), self.num_seeds
        latent = margins + ARM_IMAGE_SD * generator.standard_normal(n)
        latent = latent + self.seed_sd * generator.standard_normal((num_seeds, 1))
        latent = latent + SEED_IMAGE_SD * generator.standard_normal((num_seeds, n), dtype=np.float32)
        other = (labels + 1 + generator.integers(NUM_CLASSES - 1, size=(num_seeds, n))) % NUM_CLASSES
        wrong = np.where(generator.random((num_seeds, n), dtype=np.float32) < RESEMBLANCE, similar, other)
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

"""Simulated arms whose classes confused beyond chance are known: for level and power of the cluster test."""

from dataclasses import dataclass

import numpy as np

from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import IntArray

NUM_CLASSES = 10
# How often each class is predicted wrongly, and the error rate of each class: far from equal.
POPULARITY = np.array([0.2, 0.16, 0.12, 0.1, 0.1, 0.08, 0.08, 0.06, 0.06, 0.04])
ERROR_RATES = np.array([0.5, 0.1, 0.3, 0.2, 0.4, 0.05, 0.3, 0.25, 0.2, 0.35])


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedArm:
    """The parameters of a simulation.

    Attributes:
        num_images, num_seeds: N and S.
        group: classes that are confused with each other beyond chance; empty for the null.
        share: of the errors of the group's classes that fall on the group.
        stickiness: probability that a hard image is wrong in a seed, and that it gets its usual wrong label: seeds are dependent.
    """

    num_images: int
    num_seeds: int = 3
    group: tuple[int, ...] = ()
    share: float = 0.0
    stickiness: float = 0.8

    def draw(self, seed: int) -> ArmPredictions:
        """Return one arm."""
        rng = np.random.default_rng(seed)
        labels = np.arange(self.num_images) % NUM_CLASSES
        hard = rng.random(self.num_images) < ERROR_RATES[labels]
        usual = self._draw_wrong(labels, rng)
        predicted = np.tile(labels, (self.num_seeds, 1))
        for row in predicted:
            wrong = hard & (rng.random(self.num_images) < self.stickiness)
            chosen = np.where(rng.random(self.num_images) < self.stickiness, usual, self._draw_wrong(labels, rng))
            row[wrong] = chosen[wrong]
        return ArmPredictions(
            name="simulated",
            seeds=tuple(range(self.num_seeds)),
            labels=labels,
            sample_ids=np.arange(self.num_images),
            predicted=predicted,
            num_classes=NUM_CLASSES,
        )

    def _draw_wrong(self, labels: IntArray, rng: np.random.Generator) -> IntArray:
        """Return a wrong class for each label: by popularity, or, for a share of the group's, one of the group."""
        weights = np.tile(POPULARITY, (NUM_CLASSES, 1))
        np.fill_diagonal(weights, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        for label in self.group:
            inside = np.isin(np.arange(NUM_CLASSES), self.group) & (np.arange(NUM_CLASSES) != label)
            weights[label] = (1 - self.share) * weights[label] + self.share * inside / inside.sum()
        draws = rng.random(len(labels))
        return np.asarray((weights.cumsum(axis=1)[labels] < draws[:, None]).sum(axis=1), dtype=np.int64).clip(
            0, NUM_CLASSES - 1
        )

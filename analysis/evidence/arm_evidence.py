"""`ArmEvidence`: the confirmation trials of one arm with their test predictions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from analysis.statistics.arm_predictions import ArmPredictions, stack_predictions
from analysis.statistics.metrics import IntArray
from trainables.records.record import TrialRecord
from trainables.training.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEvidence:
    """What was measured of one arm.

    Attributes:
        arm: its name.
        source: the search trial whose configuration was confirmed.
        runs: records of the confirmation trials that have test predictions, in the order of the plan's seeds.
        predictions: test predictions of `runs`, in the same order.
        shared_seconds: device-seconds per trial of what the arm's trials share, such as the features of probes.
        failed_seeds: planned seeds whose trial ended without an outcome; no row can use them.
    """

    arm: str
    source: TrialRecord
    runs: Sequence[TrialRecord]
    predictions: Sequence[Predictions]
    failed_seeds: frozenset[int] = frozenset()
    shared_seconds: float = 0.0

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of `runs`."""
        return tuple(r.config.seed for r in self.runs)

    @property
    def diverged(self) -> tuple[TrialRecord, ...]:
        """The runs that diverged; their predictions are those of the last finite epoch, or labels drawn at random."""
        return tuple(r for r in self.runs if r.diverged)

    def finished(self) -> "ArmEvidence":
        """Return the evidence of the runs that did not diverge."""
        return self.with_seeds({r.config.seed for r in self.runs if not r.diverged})

    @property
    def device_seconds(self) -> float:
        """Mean device-seconds of a confirmation trial, with its part of what the arm's trials share."""
        return fmean(r.device_seconds for r in self.runs) + self.shared_seconds

    def with_seeds(self, seeds: Collection[int]) -> "ArmEvidence":
        """Return the evidence of these seeds only."""
        kept = [(r, p) for r, p in zip(self.runs, self.predictions, strict=True) if r.config.seed in seeds]
        return replace(self, runs=[r for r, _ in kept], predictions=[p for _, p in kept])

    def with_images(self, sample_ids: IntArray) -> "ArmEvidence":
        """Return the evidence on some of the test images only, which are given by their (n,) sample ids."""
        return replace(self, predictions=[p.take(np.isin(p.sample_ids, sample_ids)) for p in self.predictions])

    def stacked(self) -> ArmPredictions:
        """Return the test predictions of S seeds on N images as one value.

        Raises:
            UserInputError: if the seeds do not share their images.
        """
        by_seed = {r.config.seed: p for r, p in zip(self.runs, self.predictions, strict=True)}
        return stack_predictions(self.arm, by_seed)

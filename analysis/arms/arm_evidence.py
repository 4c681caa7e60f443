"""`ArmEvidence`: the confirmation trials of one arm with their test predictions, and what they say image by image."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax

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
        runs: records of the confirmation trials that have test predictions, in the order of the plan's seeds; with folds, those
            of all folds of a seed one after the other.
        predictions: test predictions of each seed, in the same order; with folds, those of its trials together.
        folds: with folds, (n,) sample ids that each of `runs` was tested on; else empty.
        shared_seconds: device-seconds per trial of what the arm's trials share, such as the features of probes.
        failed_seeds: planned seeds whose trial ended without an outcome; no row can use them.
    """

    arm: str
    source: TrialRecord
    runs: Sequence[TrialRecord]
    predictions: Sequence[Predictions]
    folds: Sequence[IntArray] = ()
    failed_seeds: frozenset[int] = frozenset()
    shared_seconds: float = 0.0

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of `runs`."""
        return tuple(dict.fromkeys(r.config.seed for r in self.runs))

    @property
    def by_seed(self) -> dict[int, Predictions]:
        """The predictions by the seeds of their runs."""
        return dict(zip(self.seeds, self.predictions, strict=True))

    @property
    def diverged(self) -> tuple[TrialRecord, ...]:
        """The runs that diverged; their predictions are those of the last finite epoch, or labels drawn at random."""
        return tuple(r for r in self.runs if r.diverged)

    def finished(self) -> "ArmEvidence":
        """Return the evidence of the runs that did not diverge."""
        return self.with_seeds(set(self.seeds) - {r.config.seed for r in self.diverged})

    @property
    def device_seconds(self) -> float:
        """Mean device-seconds of a confirmation trial, with its part of what the arm's trials share."""
        return fmean(r.device_seconds for r in self.runs) + self.shared_seconds

    def with_seeds(self, seeds: Collection[int]) -> "ArmEvidence":
        """Return the evidence of these seeds only."""
        return replace(
            self,
            runs=[r for r in self.runs if r.config.seed in seeds],
            predictions=[p for seed, p in zip(self.seeds, self.predictions, strict=True) if seed in seeds],
            folds=[ids for r, ids in zip(self.runs, self.folds, strict=False) if r.config.seed in seeds],
        )

    def with_images(self, sample_ids: IntArray) -> "ArmEvidence":
        """Return the evidence on some of the test images only, which are given by their (n,) sample ids."""
        return replace(self, predictions=[p.take(np.isin(p.sample_ids, sample_ids)) for p in self.predictions])

    def stacked(self) -> ArmPredictions:
        """Return the test predictions of S seeds on N images as one value.

        Raises:
            UserInputError: if the seeds do not share their images.
        """
        return stack_predictions(self.arm, self.by_seed)


def take_judges(evidence: Mapping[str, ArmEvidence]) -> dict[str, ArmEvidence]:
    """Return evidence whose runs audit the models: without folds as it is.

    With folds, of which each seed has cut its own, it is that of the first seed that all arms have finished: together, its runs
    have one prediction of each test image, by the run that has not seen it (`find_judges`). No arm, where they have no seed in
    common.
    """
    arms = list(evidence.values())
    if not any(found.folds for found in arms):
        return dict(evidence)
    common = [seed for seed in arms[0].seeds if all(seed in found.seeds for found in arms)]
    return {name: found.with_seeds(common[:1]) for name, found in evidence.items() if common}


def find_judges(evidence: ArmEvidence, sample_ids: IntArray) -> IntArray | None:
    """Return (N,) which of the runs of `take_judges` has not seen each image, 0 for images of no fold; None without folds."""
    if not evidence.folds:
        return None
    judges = np.zeros(len(sample_ids), dtype=np.int64)
    for number, tested in enumerate(evidence.folds):
        judges[np.isin(sample_ids, tested)] = number
    return judges


def tabulate_images(evidence: ArmEvidence, class_names: Sequence[str]) -> pd.DataFrame:
    """Return a row per test image, over the seeds of an arm.

    Columns: arm, sample_id, label, predicted (by most seeds), correct (share of the seeds), agreement (share of the seeds that
    predict `predicted`), confidence (mean probability of `predicted`), loss (mean cross-entropy of the label).

    Args:
        evidence: of at least one seed.
        class_names: K names; a class indexes them.
    """
    names, first = np.array(class_names), evidence.predictions[0]
    logits = np.stack([found.logits for found in evidence.predictions]).astype(np.float64)
    log_probabilities = log_softmax(logits, axis=2)
    predicted = log_probabilities.argmax(axis=2)
    counts = np.stack([(predicted == number).sum(axis=0) for number in range(len(names))])
    most, images = counts.argmax(axis=0), np.arange(len(first.labels))
    return pd.DataFrame(
        {
            "arm": evidence.arm,
            "sample_id": first.sample_ids,
            "label": names[first.labels],
            "predicted": names[most],
            "correct": (predicted == first.labels).mean(axis=0),
            "agreement": counts[most, images] / len(predicted),
            "confidence": np.exp(log_probabilities[:, images, most]).mean(axis=0),
            "loss": -log_probabilities[:, images, first.labels].mean(axis=0),
        }
    )


def tabulate_models(evidence: ArmEvidence, class_names: Sequence[str]) -> list[pd.DataFrame]:
    """Return for each seed of an arm, in the order of its runs, a row per test image, in the order of `tabulate_images`.

    Columns: arm, seed, predicted, confidence (probability of `predicted`), of_label (probability of the label).

    Args:
        evidence: of an arm.
        class_names: K names; a class indexes them.
    """
    names, tables = np.array(class_names), []
    for seed, found in zip(evidence.seeds, evidence.predictions, strict=True):
        probabilities = softmax(found.logits.astype(np.float64), axis=1)
        columns = {"predicted": names[probabilities.argmax(axis=1)], "confidence": probabilities.max(axis=1)}
        of_label = probabilities[np.arange(len(found.labels)), found.labels]
        tables.append(pd.DataFrame({"arm": evidence.arm, "seed": seed, **columns, "of_label": of_label}))
    return tables

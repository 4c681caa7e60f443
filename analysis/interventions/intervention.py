"""`Intervention`: the base of all interventions, and what one sees of the study that asks for it.

A custom intervention is a subclass with a constructor without arguments, in the group `abstudy.interventions` of entry points
of an installed package.

New predictions are recalibrated by how measured changes followed predicted ones on planted scenes. The constants are those of
recalibration.json, which the benchmark that measures them writes beside benchmarks/LOOPS.md.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import special

from analysis.arms.values import ArmAudits
from analysis.causes.confused_images import ComputeLogits
from analysis.confusions.values import ArmConfusions, Materiality
from analysis.formats.numbers import format_signed_pp
from analysis.interventions.values import Cell, Prediction, Target, TargetKind
from analysis.shortcuts.swaps import AuditImages
from analysis.statistics.interval import Interval
from search_spaces.config import Value

CONSTANTS = Path(__file__).with_name("recalibration.json")
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """The line through the origin of measured on predicted changes: the part of a predicted change that comes about.

    Attributes:
        slope: measured over predicted change.
        slope_error: its standard error.
        spread: standard deviation of the measured changes around the line, beyond what the errors of the predictions explain; a
            fraction of images.
        number: predictions behind it.
        source: where it was measured, and when.
    """

    slope: float
    slope_error: float
    spread: float
    number: int
    source: str

    def apply(self, predicted: Interval) -> Interval:
        """Return what will be measured, with its interval at 95 %, from the predicted change with its interval at 95 %."""
        own_error = find_error(predicted)
        center = self.slope * predicted.estimate
        variance = self.spread**2 + (self.slope_error * predicted.estimate) ** 2 + (self.slope * own_error) ** 2
        half_width = float(special.stdtrit(self.number - 1, 0.5 + CONFIDENCE / 2) * np.sqrt(variance))
        return Interval(estimate=center, low=center - half_width, high=center + half_width)

    def describe(self) -> str:
        """Return the line in words, with the interval of its slope at 95 %."""
        reach = float(special.stdtrit(self.number - 1, 0.5 + CONFIDENCE / 2)) * self.slope_error
        return (
            f"{self.slope:.2f} [{self.slope - reach:.2f}, {self.slope + reach:.2f}] came about on planted scenes (ratio through "
            f"the origin of {self.number} predictions, spread {100 * self.spread:.1f} pp; {self.source})"
        )


@cache
def load_recalibrations() -> Mapping[str, Recalibration]:
    """Return the measured lines by the name of the intervention."""
    return {name: Recalibration(**values) for name, values in json.loads(CONSTANTS.read_text()).items()}


def find_error(interval: Interval) -> float:
    """Return the standard error of an estimate from its interval at 95 %."""
    return (interval.high - interval.low) / 2 / float(special.ndtri(0.5 + CONFIDENCE / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is wrong with the control, found on the test images that choose.

    Attributes:
        class_names: of all classes.
        configuration: every setting of the control.
        cells: cells of the confusion matrix that are confused, (true, predicted), the strongest confusion first.
        confusions: rates, pairs and clusters.
        audits: the ring audit, the losses without color, and the root causes.
        backbones: other backbones that the study may use, those that it compared first.
        native_size: side of the images in pixels before they are resized.
        doubtful: sample ids of training images whose labels are doubtful; () where they were not looked for.
        num_training: images of the training split.
        group: name of the group of classes `confused`, for settings that take a group.
        is_named: whether the user named the cells.
        refits: values of `head_refit` that the images allow and that change something.
    """

    class_names: tuple[str, ...]
    configuration: Mapping[str, Value]
    cells: tuple[Cell, ...]
    confusions: ArmConfusions
    audits: ArmAudits = field(default_factory=ArmAudits)
    backbones: tuple[str, ...] = ()
    native_size: int = 0
    doubtful: tuple[int, ...] = ()
    num_training: int = 0
    group: str = "confused"
    is_named: bool = False
    refits: tuple[str, ...] = ("ring_swaps",)

    @property
    def confused(self) -> tuple[str, ...]:
        """The classes of the strongest confusion: its cluster where it belongs to one, else its two classes; () for none."""
        if not self.cells:
            return ()
        first = set(self.cells[0])
        if not self.is_named:
            for cluster in self.confusions.clusters:
                if first <= set(cluster.classes):
                    return cluster.classes
        return tuple(name for name in self.class_names if name in first)

    @property
    def target(self) -> Target:
        """The cells of the strongest confusion, within its cluster or pair of classes: the material ones if there are any."""
        members = set(self.confused)
        within = tuple(cell for cell in self.cells if set(cell) <= members)
        rates = {(found.true_class, found.predicted_class): found.verdict for found in self.confusions.directed}
        material = tuple(cell for cell in within if rates.get(cell) is Materiality.MATERIAL)
        within = within if self.is_named else material or within
        classes = tuple(name for name in self.class_names if name in {true for true, _ in within})
        return Target(kind=TargetKind.CELLS, classes=classes, cells=within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why an intervention is tried: what was found, why it is so, and the verdict of the finding."""

    symptom: str
    diagnosis: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoosingModels:
    """The control's models of the study, and the test images that choose.

    Attributes:
        audit_images: all images that choose.
        compute_logits: of the S models.
        seed: of donors and choices.
    """

    audit_images: AuditImages
    compute_logits: ComputeLogits
    seed: int


class Intervention(ABC):
    """One change of the control's training.

    Attributes:
        name: of the arm; letters, digits and "_".
        title: in words.
        spares: what it should leave alone.
        no_change: why `make_changes` returns None where it does.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    no_change: ClassVar[str] = "there is nothing to change in this study"
    spares: ClassVar[str] = "the F1 of the other classes"

    @abstractmethod
    def find_reason(self, diagnosis: Diagnosis) -> Reason | None:
        """Return the finding that asks for the intervention; None if nothing does."""

    @abstractmethod
    def make_changes(self, diagnosis: Diagnosis) -> Mapping[str, Value] | None:
        """Return the settings that it changes, with their new values; None where there is nothing to change."""

    def choose_target(self, diagnosis: Diagnosis) -> Target:
        """Return what it should change; by default the cells of the strongest confusion."""
        return diagnosis.target

    def predict(self, target: Target, diagnosis: Diagnosis, models: ChoosingModels) -> Prediction:
        """Return the predicted change of the target; by default there is none."""
        del target, diagnosis, models
        return Prediction(effect=None, basis="nothing measured on the control says how far this goes")

    def recalibrate(self, change: Interval, basis: str) -> Prediction:
        """Return the prediction of a change, with what came about of such predictions of this intervention on planted scenes.

        Args:
            change: as it was measured on the control.
            basis: how.
        """
        known = load_recalibrations().get(self.name)
        if known is None:
            unknown = "as measured: no such prediction was followed on planted scenes"
            return Prediction(effect=change, basis=f"{basis}; {unknown}", before=change)
        basis = f"{basis}: {format_signed_pp(change)}, of which {known.describe()}"
        return Prediction(effect=known.apply(change), basis=basis, before=change)

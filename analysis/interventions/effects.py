"""What an intervention did, from the predictions of its arm and of the control with the same seeds and images."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.comparison.exploratory import make_class_cells
from analysis.comparison.paired_difference import compute_verdict
from analysis.comparison.values import Verdict
from analysis.interventions.target_predictions import mark_cells
from analysis.interventions.values import Collateral, Outcome, Prediction, Target, TargetEffect
from analysis.statistics.arm_predictions import ArmPredictions, Side, average_members, check_paired
from analysis.statistics.families import Cell, Scale, class_cells, compute_family, mean_cell
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray

# Largest change of a gap: a gap is a difference of shares.
REACH = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedShares:
    """A share of images, of the treatment and of the control.

    Attributes:
        treatment: (S, n) values whose mean is the share.
        control: (S, n) of the same seeds and images.
        labels: (n,) classes of the images.
        groups: (n,) number of the group of each image; None where images are independent.
        beside: the change of other shares, such as the recall of each class; with few seeds, the share alone says little about
            the variance between seeds, which they moderate.
        change: the mean of treatment minus control; None where each image stands for itself alone.
    """

    treatment: FloatArray
    control: FloatArray
    labels: IntArray
    groups: IntArray | None = None
    beside: tuple[Cell, ...] = ()
    change: Cell | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRule:
    """How targets are judged.

    Attributes:
        alpha: error rate of all targets of the round over all looks.
        num_targets: of the round.
        num_looks: planned.
        margin: change that is negligible, a fraction.
    """

    alpha: float
    num_targets: int
    num_looks: int
    margin: float

    @property
    def confidence(self) -> float:
        """Of the interval of one target at one look."""
        return 1 - self.alpha / (self.num_targets * self.num_looks)


def mark_target(treatment: Side, control: Side, target: Target, class_names: Sequence[str]) -> PairedShares:
    """Return which images of the target's classes fall into its cells; of several arms, the share that do.

    Args:
        treatment: S seeds over N images.
        control: the same seeds and images.
        target: cells of the confusion matrix.
        class_names: K names.

    Raises:
        UserInputError: for arms that do not pair.
    """
    check_paired(treatment, control)
    index = {name: i for i, name in enumerate(class_names)}
    cells = [(index[true], index[called]) for true, called in target.cells]
    chosen = np.flatnonzero(np.isin(treatment.labels, [index[name] for name in target.classes]))
    labels = treatment.labels[chosen]
    marks = [
        average_members(side, lambda arm: mark_cells(labels, arm.predicted[:, chosen], cells))
        for side in (treatment, control)
    ]
    groups = None if treatment.groups is None else treatment.groups[chosen]
    correct = [average_members(side, _mark_correct) for side in (treatment, control)]
    return PairedShares(
        treatment=marks[0],
        control=marks[1],
        labels=labels,
        groups=groups,
        beside=tuple(class_cells(correct[0] - correct[1], treatment.labels, treatment.groups)),
    )


def _mark_correct(arm: ArmPredictions) -> FloatArray:
    return np.asarray(arm.predicted == arm.labels, dtype=np.float64)


def judge_target(shares: PairedShares, rule: TargetRule, scale: Scale) -> TargetEffect:
    """Return the change of the share with its interval for new seeds and new images; for one seed for new images.

    Args:
        shares: of the treatment and the control.
        rule: of the round.
        scale: range of the change of one image: "difference" for shares in [0, 1], else "unbounded".

    Raises:
        UserInputError: for a class with one image.
    """
    cell = shares.change or mean_cell(shares.treatment - shares.control, shares.labels, shares.groups)
    effect = bound(cell, scale, rule.confidence, shares.beside)
    reduction = Interval(estimate=-effect.estimate, low=-effect.high, high=-effect.low)
    return TargetEffect(
        effect=effect,
        treatment=float(shares.treatment.mean()),
        control=float(shares.control.mean()),
        verdict=compute_verdict(reduction, rule.margin)[0],
        confidence=rule.confidence,
        num_seeds=len(shares.treatment),
        num_images=len(shares.labels),
    )


def bound(cell: Cell, scale: Scale, confidence: float, beside: Sequence[Cell] = ()) -> Interval:
    """Return the interval of one statistic for new seeds and new images; of one seed for new images.

    Args:
        cell: the statistic.
        scale: of the statistic; the changes that are "unbounded" are differences of differences of shares, in [-2, 2].
        confidence: two-sided, in (0, 1).
        beside: of the same seeds, whose variances between seeds moderate that of the statistic.
    """
    found = compute_family([cell, *beside], scale=scale, confidence=confidence)[0]
    interval = found.recipe or found.models
    return Interval(estimate=interval.estimate, low=max(interval.low, -REACH), high=min(interval.high, REACH))


def find_collateral(
    treatment: Side, control: Side, targets: Collection[str], class_names: Sequence[str], confidence: float
) -> Collateral | None:
    """Return the surest loss of F1 among the classes that are no target; None if there is none, and for one seed.

    It is that with the lowest upper bound: the lowest estimate would be that of a class of few images, by chance, while another
    class loses certainly.

    Args:
        treatment: S seeds over N images.
        control: the same seeds and images.
        targets: classes of the target.
        class_names: K names.
        confidence: of all intervals together.
    """
    spared = [i for i, name in enumerate(class_names) if name not in targets]
    if not spared or len(treatment.seeds) < 2:
        return None
    cells = make_class_cells(treatment, control, spared)
    found = compute_family(cells, scale=Scale.DIFFERENCE, confidence=1 - (1 - confidence) / len(spared))
    losses = [(class_names[i], both.recipe) for i, both in zip(spared, found, strict=True) if both.recipe is not None]
    name, effect = min(losses, key=lambda item: item[1].high)
    return Collateral(class_name=name, effect=effect, num_certain=sum(loss.high < 0 for _, loss in losses))


def judge_prediction(prediction: Prediction, measured: TargetEffect | None) -> Outcome:
    """Return whether a prediction held.

    It is refuted if the target became certainly worse, or if the measured change differs from the predicted one by more than the
    distance of both intervals' ends, added as independent errors. It held if it is not refuted and the target became better.
    """
    if prediction.effect is None:
        return Outcome.NONE
    if measured is None:
        return Outcome.UNDECIDED
    lower, upper = sorted((prediction.effect, measured.effect), key=lambda change: change.estimate)
    error = float(np.hypot(lower.high - lower.estimate, upper.estimate - upper.low))
    if measured.verdict is Verdict.WORSE or upper.estimate - lower.estimate > error:
        return Outcome.REFUTED
    return Outcome.HELD if measured.verdict is Verdict.BETTER else Outcome.UNDECIDED

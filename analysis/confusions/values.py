"""Findings about the classes of one arm: scores, confusion matrix, confused pairs and clusters, groups, doubtful labels."""

from dataclasses import dataclass
from enum import StrEnum

from analysis.statistics.interval import TwoIntervals

# Share of the true class that a confusion may have without being material.
CONFUSION_TOLERANCE = 0.05
# Doubtful labels that are listed.
MAX_ISSUES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """Scores of one class: means over seeds, with their intervals for both questions.

    Attributes:
        class_name: the class.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        f1: harmonic mean of the two.
        num_images: of the class.
    """

    class_name: str
    precision: TwoIntervals
    recall: TwoIntervals
    f1: TwoIntervals
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Confusion matrix of one arm over S seeds and N images; row = true class, column = predicted class.

    Attributes:
        counts: (K, K) mean number of images per seed.
        rates: (K, K) P(predicted | true), with their intervals for both questions.
        excess: (K, K) rate minus the rate expected if the errors of a row were distributed over the wrong classes in
            proportion to how often each class is wrongly predicted; 0 on the diagonal.
    """

    counts: tuple[tuple[float, ...], ...]
    rates: tuple[tuple[TwoIntervals, ...], ...]
    excess: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanExcess:
    """An arm's confusion of two classes compared with that of human annotators on the same images.

    Attributes:
        human_rate: share of annotations on images of the two classes that name the other one.
        excess: confusion rate of the arm minus the human rate.
        word: "machine-specific" where the interval for these models lies above 0, "ambiguous to people" where none of it does,
            else "undecided".
        recipe_word: the same for the recipe; None for one seed.
    """

    human_rate: float
    excess: TwoIntervals
    word: str
    recipe_word: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """Two classes that an arm confuses more often than expected by chance, with family-wise error control over all pairs.

    Attributes:
        classes: the two.
        rate: confusion rate, the share of their images predicted as the other class.
        expected_rate: confusion rate expected by chance (`analysis.confusions.clusters`).
        p_adjusted: of the permutation test, over all pairs.
        human: comparison with human annotators; None without human counts.
    """

    classes: tuple[str, str]
    rate: TwoIntervals
    expected_rate: float
    p_adjusted: float
    human: HumanExcess | None = None


class Materiality(StrEnum):
    """Whether the rate of a confusion exceeds the tolerance."""

    MATERIAL = "MATERIAL"
    NOT = "NOT"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectedConfusion:
    """One cell of the confusion matrix off its diagonal.

    Attributes:
        true_class: of the images.
        predicted_class: that the arm gives them.
        rate: P(predicted | true), mean over seeds; its intervals are simultaneous over all such cells.
        num_images: of the true class.
        verdict: MATERIAL if the interval lies above the tolerance, NOT if it lies below, else UNDECIDED; for these models.
        recipe_verdict: the same for the recipe; None for one seed.
        images_to_decide: images of the true class at which the interval for these models would exclude the tolerance if the rate
            stays; None where it is decided, or no number below a million would do.
        human: comparison with human annotators; None without human counts.
    """

    true_class: str
    predicted_class: str
    rate: TwoIntervals
    num_images: int
    verdict: Materiality
    recipe_verdict: Materiality | None
    images_to_decide: int | None
    human: HumanExcess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionCluster:
    """Classes that significant pairs connect in at least 95 % of bootstraps over images.

    Attributes:
        classes: their names.
        stability: lowest share of bootstraps that connect two of them.
    """

    classes: tuple[str, ...]
    stability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelIssue:
    """An image for which all models agree on another label than its own, and which cleanlab lists as well.

    Attributes:
        sample_id: index of the image in the image set; of predictions from elsewhere, the number or name that they give it.
        label: name of its class.
        suggested: name of the class that the models predict.
        label_quality: cleanlab's score in [0, 1]; low is doubtful.
    """

    sample_id: int | str
    label: str
    suggested: str
    label_quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionExamples:
    """Test images of one class that an arm predicts as another one.

    Attributes:
        true_class: class of the images.
        predicted_class: the other class.
        num_images: images for which at least one seed predicts the other class.
        sample_ids: of some of them, those first for which most seeds do.
        num_seeds: number of these seeds for each of `sample_ids`.
    """

    true_class: str
    predicted_class: str
    num_images: int
    sample_ids: tuple[int, ...]
    num_seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupContrast:
    """Mean F1 of the classes of one group minus that of another, with an exact permutation test over the classes.

    Attributes:
        groups: names of the two groups.
        difference: first minus second, a fraction.
        p_value: two-sided.
        smallest_p: the smallest p-value that is possible with this number of classes.
        num_classes: in both groups together.
    """

    groups: tuple[str, str]
    difference: float
    p_value: float
    smallest_p: float
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class ArmConfusions:
    """Which classes an arm confuses.

    Attributes:
        confused_pairs: pairs of classes with a confusion rate above chance, the strongest first.
        clusters: groups of classes that such pairs connect.
        group_contrasts: between the named groups of classes; empty where there are no groups.
        directed: cells of the confusion matrix, the highest rate first.
        num_directed: cells over which the intervals of `directed` are simultaneous, of which the highest and the material ones
            are listed.
        examples: test images of the cells, those cells first with the most images.
    """

    confused_pairs: tuple[ConfusedPair, ...]
    clusters: tuple[ConfusionCluster, ...]
    group_contrasts: tuple[GroupContrast, ...]
    directed: tuple[DirectedConfusion, ...] = ()
    num_directed: int = 0
    examples: tuple[ConfusionExamples, ...] = ()

"""Findings about the classes of one arm: scores, confusion matrix, confused pairs and clusters, doubtful labels."""

from dataclasses import dataclass

from analysis.findings.interval import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """Scores of one class: means over seeds, with intervals for new seeds and new images.

    Attributes:
        class_name: the class.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        f1: harmonic mean of the two.
        num_images: of the class.
    """

    class_name: str
    precision: Interval
    recall: Interval
    f1: Interval
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Confusion matrix of one arm over S seeds and N images; row = true class, column = predicted class.

    Attributes:
        counts: (K, K) mean number of images per seed.
        rates: (K, K) P(predicted | true), with intervals for new seeds and new images.
        excess: (K, K) rate minus the rate expected if the errors of a row were distributed over the wrong classes in
            proportion to how often each class is wrongly predicted; 0 on the diagonal.
    """

    counts: tuple[tuple[float, ...], ...]
    rates: tuple[tuple[Interval, ...], ...]
    excess: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanExcess:
    """An arm's confusion of two classes compared with that of human annotators on the same images.

    Attributes:
        human_rate: share of annotations on images of the two classes that name the other one.
        excess: confusion rate of the arm minus the human rate, with its interval for new seeds and new images.
        word: "machine-specific" where the interval lies above 0, "ambiguous to people" where none of it does, else "undecided".
    """

    human_rate: float
    excess: Interval
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """Two classes that an arm confuses more often than expected by chance, with family-wise error control over all pairs.

    Attributes:
        classes: the two.
        rate: confusion rate, the share of their images predicted as the other class, with its interval for new seeds and
            new images.
        expected_rate: confusion rate expected by chance (`analysis.classes.clusters`).
        p_adjusted: of the permutation test, over all pairs.
        human: comparison with human annotators; None without human counts.
    """

    classes: tuple[str, str]
    rate: Interval
    expected_rate: float
    p_adjusted: float
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
        sample_id: index of the image in the image set.
        label: name of its class.
        suggested: name of the class that the models predict.
        label_quality: cleanlab's score in [0, 1]; low is doubtful.
    """

    sample_id: int
    label: str
    suggested: str
    label_quality: float

"""Findings about the classes of one arm: scores, confusion matrix, confused pairs and clusters, doubtful labels."""

from dataclasses import dataclass

from analysis.findings.interval import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """Precision, recall and F1 of one class, means over seeds, with intervals for new seeds and new images."""

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
        rates: (K, K) Interval of P(predicted | true), for new seeds and new images.
        excess: (K, K) rate minus the rate expected if errors of the row fell on wrong classes in proportion to
            how often each class is wrongly predicted; 0 on the diagonal.
    """

    counts: tuple[tuple[float, ...], ...]
    rates: tuple[tuple[Interval, ...], ...]
    excess: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanExcess:
    """How an arm's confusion of two classes compares with people's on the same images.

    Attributes:
        human_rate: share of people's answers on images of the two classes that name the other one.
        excess: the arm's rate minus people's, with its interval for new seeds and new images.
        word: "machine-specific", "ambiguous to people" or "undecided", by the interval's place against 0.
    """

    human_rate: float
    excess: Interval
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """Two classes that an arm takes for each other more often than chance would, over all pairs at once.

    Attributes:
        classes: the two.
        rate: share of their images that is taken for the other class, with its interval for new seeds and new images.
        expected_rate: the same by chance (`analysis.classes.clusters`); the excess is `rate` minus this.
        p_adjusted: of the permutation test, over all pairs.
        human: against people's confusion; None without human counts.
    """

    classes: tuple[str, str]
    rate: Interval
    expected_rate: float
    p_adjusted: float
    human: HumanExcess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionCluster:
    """Classes that significant pairs hold together in at least 95 % of bootstraps over images, `stability` the lowest share."""

    classes: tuple[str, ...]
    stability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelIssue:
    """An image whose label every seed of every arm contradicts and that cleanlab lists.

    Attributes:
        sample_id: index of the image in the image set.
        label, suggested: names of its class, and of the one that the models say.
        label_quality: cleanlab's score, 0 to 1; low is doubtful.
    """

    sample_id: int
    label: str
    suggested: str
    label_quality: float

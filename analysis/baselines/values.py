"""Findings about simple models that a study must beat: the majority class, and a linear probe on frozen features."""

from dataclasses import dataclass

from analysis.comparison.values import ComparisonRow

# Name of the probe where it stands beside the arms; arms of `model.tuning = "probe"` are called "probe".
LINEAR_PROBE, MAJORITY = "linear-probe", "majority class"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A simple model, measured before the search.

    Attributes:
        name: `LINEAR_PROBE` or `MAJORITY`.
        backbone: that computed the features; "" for the majority class.
        class_name: that the majority class is; "" for a probe.
        search_macro_f1: on the search split, on which strength and class weights were chosen.
        confirm_macro_f1: on the confirm split.
        test_macro_f1: on the test split; None until it is read.
        strength: inverse strength of the regularization (scikit-learn's C); None for the majority class.
        class_weights: "none" or "balanced".
        num_images: training images that it was fitted on.
        num_train: images of the training split; more than `num_images` where a stratified sample was drawn.
        seconds: of computing features and fitting.
    """

    name: str
    backbone: str
    class_name: str = ""
    search_macro_f1: float
    confirm_macro_f1: float
    test_macro_f1: float | None = None
    strength: float | None = None
    class_weights: str = "none"
    num_images: int
    num_train: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFindings:
    """The baselines of a study, and what it hands over.

    Attributes:
        majority: the most frequent class of the training split.
        probes: one for each backbone that has pretrained weights.
        chosen: backbone of the study's probe, the best one on the search split; "" without a probe.
        notes: why there is no probe of a backbone, as sentences.
        winner: the arm whose confirmation trials have the highest mean macro-F1 on the confirm split; "" before there are any.
        winner_confirm_macro_f1: that mean; None before there is a winner.
        handed_over: `winner`, or `LINEAR_PROBE` where the probe scores higher there; "" before the confirmation.
        folds: for each of which, and each seed, the probe of the row was fitted anew; 0 where it is one model.
        row: `winner` against the study's probe on the test split, with an alpha of its own; None without a probe, or before
            the test split is read.
    """

    majority: Baseline
    probes: tuple[Baseline, ...]
    chosen: str
    notes: tuple[str, ...] = ()
    winner: str = ""
    winner_confirm_macro_f1: float | None = None
    handed_over: str = ""
    folds: int = 0
    row: ComparisonRow | None = None

    @property
    def probe(self) -> Baseline | None:
        """The study's probe; None if there is none."""
        return next((probe for probe in self.probes if probe.backbone == self.chosen), None)

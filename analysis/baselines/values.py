"""Findings about simple models that a study must beat: the majority class, and a linear probe on frozen features.

Their lines for the terminal stand here too, because this file imports nothing heavy, so that `study status` is quick.
"""

from dataclasses import dataclass

from analysis.comparison.values import ArmChoice, ComparisonRow
from analysis.formats.numbers import format_seconds

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
        choice: the best of the arms; None before the confirmation.
        handed_over: its arm, or `LINEAR_PROBE` where the probe scores higher on the confirm split; "" before the confirmation.
        folds: for each of which, and each seed, the probe of the row was fitted anew; 0 where it is one model.
        row: that arm against the study's probe on the test split, with an alpha of its own; None without a probe, or before
            the test split is read.
    """

    majority: Baseline
    probes: tuple[Baseline, ...]
    chosen: str
    notes: tuple[str, ...] = ()
    choice: ArmChoice | None = None
    handed_over: str = ""
    folds: int = 0
    row: ComparisonRow | None = None

    @property
    def winner(self) -> str:
        """The best of the arms; "" before the confirmation."""
        return "" if self.choice is None else self.choice.arm

    @property
    def probe(self) -> Baseline | None:
        """The study's probe; None if there is none."""
        return next((probe for probe in self.probes if probe.backbone == self.chosen), None)


def describe_baselines(found: BaselineFindings) -> list[str]:
    """Return a line per baseline, with what is known before any arm was trained, and the notes."""
    lines = [f"{name_baseline(found.majority)}: macro-F1 {found.majority.search_macro_f1:.2f} on the search split"]
    for probe in found.probes:
        weights = "no class weights" if probe.class_weights == "none" else f"class weights {probe.class_weights}"
        sample = "a stratified sample of " if probe.num_images < probe.num_train else ""
        lines.append(
            f"{name_baseline(probe)} (frozen features, C {probe.strength:g}, {weights}): macro-F1 {probe.search_macro_f1:.2f} on "
            f"the search split, {sample}{describe_training_images(probe)} training images, {format_seconds(probe.seconds)}"
            f"{'; chosen' if probe is found.probe and len(found.probes) > 1 else ''}"
        )
    return [*lines, *found.notes]


def name_baseline(one: Baseline) -> str:
    """Return a baseline in words."""
    return f"linear probe on {one.backbone}" if one.name == LINEAR_PROBE else f"{one.name} ({one.class_name})"


def describe_training_images(one: Baseline) -> str:
    """Return the number of training images, of how many if they are a sample."""
    return f"{one.num_images:,}{f' of {one.num_train:,}' if one.num_images < one.num_train else ''}"

"""Findings of the A/B comparison: one row per contrast, with its class-by-class differences."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from analysis.statistics.interval import Interval, TwoIntervals
from search_spaces.designs import NO_INTERACTION

# Metrics beside macro-F1 that are losses; the others are fractions.
LOSSES = frozenset({"log loss", "Brier score"})


class Verdict(StrEnum):
    """The decision of one A/B row about treatment against control."""

    BETTER = "BETTER"
    WORSE = "WORSE"
    EQUIVALENT = "EQUIVALENT"
    UNDECIDED = "UNDECIDED"

    @property
    def reversed(self) -> "Verdict":
        """The verdict on control against treatment."""
        return {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}.get(self, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """F1 of one class, treatment minus control, a fraction; exploratory.

    Attributes:
        class_name: the class.
        effect: mean over paired seeds with its 95 % interval for new seeds and new images, pointwise for this class; the
            variance between seeds is moderated over the classes.
        p_value: two-sided, for no difference.
        p_adjusted: Benjamini-Hochberg over the classes of the row.
        is_flagged: whether `p_adjusted` is at most the false discovery rate, 0.10.
        models_effect: the same difference with its interval for these very models on new images.
    """

    class_name: str
    effect: Interval
    p_value: float
    p_adjusted: float
    is_flagged: bool
    models_effect: Interval


class Question(StrEnum):
    """What a verdict is about: the recipe, on new seeds and new images, or these very models, on new images."""

    RECIPE = "recipe"
    MODELS = "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDivergence:
    """How often the runs of one arm diverged, among the seeds of a row.

    Attributes:
        arm: its name.
        rate: share of the runs that diverged, with its 95 % Clopper-Pearson interval.
        num_diverged: runs whose loss was not a finite number.
        num_runs: runs of the arm.
        epochs: last finite epoch of each run that diverged, by which it is scored; 0 where there is none, so that it is scored
            by labels drawn at random.
    """

    arm: str
    rate: Interval
    num_diverged: int
    num_runs: int
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideMetric:
    """A metric beside macro-F1, treatment and control; exploratory.

    Attributes:
        name: such as "log loss".
        group: of classes whose images it is computed on; "" for all images.
        treatment: mean over its seeds.
        control: mean over its seeds.
        difference: treatment minus control, each interval pointwise at 95 %.
    """

    name: str
    group: str
    treatment: float
    control: float
    difference: TwoIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One row of the A/B table. All effects are fractions of macro-F1 (0.01 is one percentage point).

    Attributes:
        treatment: arm A.
        control: arm B; effects are A minus B.
        effect: mean difference over paired seeds with its interval at `confidence` (simultaneous over rows), for the question
            of the row, inside the possible range.
        standard_error: of the effect; None in anytime rows, whose interval is no t interval.
        degrees_of_freedom: of the t distribution of the interval; None in anytime rows.
        seed_variance: V_S of the comparison protocol; None for one seed.
        image_variance: V_I, as estimated; the interval has pseudo-observations where few images differ.
        seed_image_variance: V_SI; None for one seed.
        confidence: 1 - alpha / (rows * looks), with four fifths of alpha where a run diverged.
        margin: the equivalence margin.
        verdict: BETTER, WORSE, EQUIVALENT or UNDECIDED, on the question of the row.
        materiality: "material", "negligible" or "" for a BETTER or WORSE row.
        settles: the seeds or test images that would decide an UNDECIDED row, as a sentence; else "".
        num_seeds: paired seeds S; those of the treatment where the seeds do not pair.
        num_images: test images N.
        minimum_detectable_effect: smallest effect found with 80 % power at this S and N, at most the largest possible one; None
            in anytime rows.
        p_value: two-sided, for no difference, without adjustment; None in anytime rows.
        seed_differences: the S differences; empty where the seeds do not pair.
        cost_ratio: device-seconds per confirmation trial, treatment / control; None where not measured.
        look: number of the planned look that decided the row or came last, from 1.
        num_looks: planned looks.
        intervals: "planned" (valid at the planned looks), "anytime" (valid at every number of seeds) or "moderated" (planned,
            with a variance between seeds that the other rows moderate).
        bootstrap: interval of the crossed bootstrap at the same confidence, as a cross-check; None where not computed.
        class_differences: one per class, exploratory; empty where not computed.
        side_metrics: metrics beside macro-F1; empty where not computed.
        plan_changed: whether the plan was changed after it was written.
        question: "recipe", or "models" for one seed, which says nothing about other seeds.
        models_effect: interval at `confidence` for these very models on new images.
        models_verdict: verdict on these very models.
        p_adjusted: smallest alpha of the whole table at which this row is BETTER or WORSE at its look; None in anytime rows.
        p_noninferior: one-sided, for a loss of the margin or more, without adjustment; over all runs too where the treatment
            diverged more often. None in anytime rows.
        divergence: of each arm, where a run diverged; the other fields are then about the seeds with which no run did.
        all_runs_effect: mean difference over all seeds, those that diverged included; None where none diverged.
        num_control_seeds: seeds of the control where they are others than those of the treatment; None where they pair.
    """

    treatment: str
    control: str
    effect: Interval
    standard_error: float | None
    degrees_of_freedom: float | None
    seed_variance: float | None
    image_variance: float
    seed_image_variance: float | None
    confidence: float
    margin: float
    verdict: Verdict
    materiality: str
    settles: str
    num_seeds: int
    num_images: int
    minimum_detectable_effect: float | None
    p_value: float | None
    seed_differences: tuple[float, ...]
    cost_ratio: float | None
    look: int = 1
    num_looks: int = 1
    intervals: str = "planned"
    bootstrap: Interval | None = None
    class_differences: tuple[ClassDifference, ...] = ()
    side_metrics: tuple[SideMetric, ...] = ()
    plan_changed: bool = False
    question: Question = Question.RECIPE
    models_effect: Interval
    models_verdict: Verdict
    p_adjusted: float | None = None
    p_noninferior: float | None = None
    divergence: tuple[ArmDivergence, ...] = ()
    all_runs_effect: Interval | None = None
    num_control_seeds: int | None = None

    def winner_first(self) -> "ComparisonRow":
        """Return the row with the better side as its treatment, as every page and terminal shows it; interactions as they are.

        Files keep the order of the arms in the spec. What is about the treatment alone (`p_noninferior`) is left out.
        """
        shown = self.all_runs_effect if self.is_decided_by_divergence and self.all_runs_effect else self.effect
        if shown.estimate >= 0 or self.control == NO_INTERACTION:
            return self
        num_control = None if self.num_control_seeds is None else self.num_seeds
        return replace(
            self,
            treatment=self.control,
            control=self.treatment,
            effect=self.effect.negated(),
            verdict=self.verdict.reversed,
            models_effect=self.models_effect.negated(),
            models_verdict=self.models_verdict.reversed,
            all_runs_effect=self.all_runs_effect and self.all_runs_effect.negated(),
            bootstrap=self.bootstrap and self.bootstrap.negated(),
            seed_differences=tuple(-difference for difference in self.seed_differences),
            num_seeds=self.num_seeds if self.num_control_seeds is None else self.num_control_seeds,
            num_control_seeds=num_control,
            cost_ratio=self.cost_ratio and 1 / self.cost_ratio,
            class_differences=tuple(
                replace(one, effect=one.effect.negated(), models_effect=one.models_effect.negated())
                for one in self.class_differences
            ),
            side_metrics=tuple(
                replace(one, treatment=one.control, control=one.treatment, difference=one.difference.negated())
                for one in self.side_metrics
            ),
            p_noninferior=None,
            divergence=self.divergence[::-1],
        )

    @property
    def is_decided_by_divergence(self) -> bool:
        """Whether the numbers of runs that diverged decide the row, and not the runs that finished."""
        excludes = {Verdict.BETTER: self.effect.low > 0, Verdict.WORSE: self.effect.high < 0}
        has_finished = self.effect != self.all_runs_effect
        is_by_finished = has_finished and excludes.get(self.verdict, True)
        return bool(self.divergence) and not is_by_finished and self.verdict in excludes


class ChoiceRule(StrEnum):
    """By what the handed-over arm was chosen: an interval on `confirm`, the score on `search` and `confirm`, or its cost."""

    ONLY = "only arm"
    DECIDED = "interval on confirm"
    POOLED = "score on search and confirm"
    CHEAPER = "lower cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmChoice:
    """The arm whose model a study hands over. The test split has no part in it.

    Attributes:
        arm: its name.
        rule: by which it was chosen.
        confirm_macro_f1: mean over the seeds on `confirm`, by arm.
        leader: the arm with the highest of these.
        effect: `leader` minus the second of them, with its interval at the comparison's alpha; None for one arm.
        pooled_macro_f1: on the images of `search` and `confirm` together, less the bound of what selection gained on
            `search`, by arm of those that are tied on `confirm`; empty where none is.
    """

    arm: str
    rule: ChoiceRule
    confirm_macro_f1: Mapping[str, float]
    leader: str
    effect: Interval | None = None
    pooled_macro_f1: Mapping[str, float] = field(default_factory=dict)


class GateAnswer(StrEnum):
    """What a gate answers: whether a new arm is better than an old one, or whether it is not worse."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPlace:
    """The place of a comparison among those of a project, which share a false discovery rate.

    Attributes:
        rate: the false discovery rate.
        number: of the comparison, from 1.
        num_found: how many of the comparisons before it were answered with yes.
        smallest_p: of its earlier looks; 1 where there are none.
        num_seen: how many of the comparisons before it used the same test images.
    """

    rate: float
    number: int
    num_found: int = 0
    smallest_p: float = 1.0
    num_seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLook:
    """One look of a gate.

    Attributes:
        row: new against old, whose interval has this look's share of the error rate.
        not_worse: whether it was asked if the new arm is not worse by the margin, instead of if it is better.
        alpha: error rate of the comparison over all of its looks, of a yes and of a no.
        answer: yes, no or undecided.
        p_value: anytime-valid, for a yes: the smallest error rate at which this look or an earlier one says yes.
        settles: what would decide, as a sentence; "" where it is decided.
        place: among the comparisons of a project; None for one that stands alone.
    """

    row: ComparisonRow
    not_worse: bool
    alpha: float
    answer: GateAnswer
    p_value: float
    settles: str
    place: ProjectPlace | None = None

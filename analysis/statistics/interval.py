"""`Interval` and `TwoIntervals`: a point estimate with its confidence interval, for one question and for two."""

from dataclasses import dataclass

# Of a comparison, unless another margin or error rate is given: half a point of macro-F1, and 5 %.
MARGIN, ALPHA = 0.005, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A point estimate with a two-sided confidence interval; low <= estimate <= high."""

    estimate: float
    low: float
    high: float

    def negated(self) -> "Interval":
        """Return the interval of the negative quantity."""
        return Interval(estimate=-self.estimate, low=-self.high, high=-self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoIntervals:
    """One estimate with an interval for each of two questions.

    Attributes:
        models: would it be so on new images, for these very models? Images are sampled, seeds are fixed.
        recipe: would it be so with new seeds and new images? None for one seed, where it is not defined.
    """

    models: Interval
    recipe: Interval | None

    @property
    def estimate(self) -> float:
        """The point estimate, which both intervals share."""
        return self.models.estimate

    def negated(self) -> "TwoIntervals":
        """Return the intervals of the negative quantity."""
        return TwoIntervals(models=self.models.negated(), recipe=self.recipe and self.recipe.negated())

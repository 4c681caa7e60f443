"""ASHA with one bracket per arm, on Ray's AsyncHyperBandScheduler; its state is rebuilt by replaying records."""

from dataclasses import dataclass

from search_spaces.errors import UserInputError

METRIC = "macro_f1"


@dataclass(frozen=True, slots=True)
class _TrialHandle:
    """The attributes of a Ray trial that AsyncHyperBandScheduler reads."""

    trial_id: str


class ArmPruner:
    """Decides whether a trial of one arm continues, from its macro-F1 at the rungs.

    Asynchronous successive halving: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, MLSys.
    """

    def __init__(self, *, first_rung: int, max_epochs: int, reduction_factor: float) -> None:
        """Create an empty bracket.

        Args:
            first_rung: epoch of the first rung.
            max_epochs: epochs of a full trial.
            reduction_factor: each rung keeps the best 1 / `reduction_factor` of its trials.

        Raises:
            UserInputError: if Ray is not installed.
        """
        # Imported here, because a search without ASHA needs no Ray.
        try:
            from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
        except ImportError as error:
            raise UserInputError(
                f"ASHA is Ray's, which cannot be imported here ({error}); install ray[tune], or set search.asha.enabled = false"
            ) from None
        self._stop = TrialScheduler.STOP
        self._asha = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric=METRIC,
            mode="max",
            max_t=max_epochs,
            grace_period=first_rung,
            reduction_factor=reduction_factor,
        )

    def add(self, trial_id: str) -> None:
        """Add a trial to the bracket."""
        self._asha.on_trial_add(None, _TrialHandle(trial_id))

    def should_stop(self, trial_id: str, epoch: int, macro_f1: float) -> bool:
        """Return whether ASHA stops the trial after this epoch; `macro_f1` must be finite."""
        result = {"epoch": epoch, METRIC: macro_f1}
        decision = self._asha.on_trial_result(None, _TrialHandle(trial_id), result)
        return bool(decision == self._stop)


def compute_rungs(*, first_rung: int, max_epochs: int, reduction_factor: float) -> tuple[int, ...]:
    """Return the epochs below `max_epochs` at which ASHA decides, as AsyncHyperBandScheduler places them."""
    rungs: list[int] = []
    milestone = float(first_rung)
    while milestone < max_epochs:
        rungs.append(int(-(-milestone // 1)))
        milestone *= reduction_factor
    return tuple(rungs)

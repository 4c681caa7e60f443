"""ASHA per arm: Ray's AsyncHyperBandScheduler, one bracket for each arm, rebuilt from records by replaying them."""

from dataclasses import dataclass

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

METRIC = "macro_f1"


@dataclass(frozen=True, slots=True)
class _TrialHandle:
    """What AsyncHyperBandScheduler reads of a Ray trial."""

    trial_id: str


class ArmPruner:
    """Decides whether a trial of one arm goes on, from macro-F1 at the rungs."""

    def __init__(self, *, first_rung: int, max_epochs: int, reduction_factor: float) -> None:
        """Epochs of the first rung and of a full trial; each rung keeps the best 1/reduction_factor."""
        self._asha = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric=METRIC,
            mode="max",
            max_t=max_epochs,
            grace_period=first_rung,
            reduction_factor=reduction_factor,
        )

    def add(self, trial_id: str) -> None:
        """Take a trial into the bracket."""
        self._asha.on_trial_add(None, _TrialHandle(trial_id))

    def should_stop(self, trial_id: str, epoch: int, macro_f1: float) -> bool:
        """Return whether ASHA stops the trial at this report; `macro_f1` is finite."""
        result = {"epoch": epoch, METRIC: macro_f1}
        decision = self._asha.on_trial_result(None, _TrialHandle(trial_id), result)
        return bool(decision == TrialScheduler.STOP)


def compute_rungs(*, first_rung: int, max_epochs: int, reduction_factor: float) -> tuple[int, ...]:
    """Return the epochs below `max_epochs` at which ASHA decides, as AsyncHyperBandScheduler places them."""
    rungs: list[int] = []
    milestone = float(first_rung)
    while milestone < max_epochs:
        rungs.append(int(-(-milestone // 1)))
        milestone *= reduction_factor
    return tuple(rungs)

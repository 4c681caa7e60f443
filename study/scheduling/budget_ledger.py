"""The device time of each arm, and the choice of the next trial's arm: equal device time within the search's budget."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

# Assumed for a full trial before any cost is known; equal for all arms, so that they alternate.
UNMEASURED_DEVICE_SECONDS = 1.0


@dataclass(slots=True)
class _Account:
    """Device-seconds of one arm's trials: of the finished ones together, and of each running one so far."""

    num_finished: int = 0
    finished_seconds: float = 0.0
    max_trial_seconds: float = 0.0
    running: dict[str, float] = field(default_factory=dict)


class DeviceTimeLedger:
    """Device-seconds spent and committed by each arm.

    Committed device-seconds are those that finished trials spent, and those that running trials have spent and are expected to
    spend.

    The first trials to end are those that ASHA stopped, so the mean over finished trials would be too low while many trials
    run. The expected cost of an arm's trial is therefore the device-seconds spent by all trials of the arm, running ones
    included, divided by the number of finished trials: the estimate of a mean lifetime under censoring ("total time on
    test"; Epstein and Sobel 1953, Life testing). It is capped at the cost of a whole trial: of
    `full_trial_seconds` if it was measured, else that of the most expensive trial so far.
    """

    def __init__(
        self, arms: Sequence[str], *, budget: float | None = None, full_trial_seconds: Mapping[str, float] | None = None
    ) -> None:
        """Open an account for each arm.

        Args:
            arms: names of the arms.
            budget: device-seconds for all arms together; None for no limit.
            full_trial_seconds: device-seconds of a full trial by arm, for the arms in which it was measured.
        """
        self._arms = {arm: _Account() for arm in arms}
        self._full_trial_seconds = dict(full_trial_seconds or {})
        self.set_budget(budget)

    def set_budget(self, budget: float | None) -> None:
        """Set the device-seconds for all arms together; None for no limit."""
        self._quota = None if budget is None else budget / len(self._arms)

    @property
    def is_spent(self) -> bool:
        """Whether a budget is set, nothing is running, and no arm can afford another full trial."""
        is_running = any(account.running for account in self._arms.values())
        return self._quota is not None and not is_running and self.choose() is None

    def start(self, arm: str, trial_id: str) -> None:
        """Record that a trial starts."""
        self._arms[arm].running[trial_id] = 0.0

    def spend(self, arm: str, trial_id: str, device_seconds: float) -> None:
        """Record the device-seconds that a running trial has spent in total."""
        self._arms[arm].running[trial_id] = device_seconds

    def finish(self, arm: str, trial_id: str) -> None:
        """Record that a trial ends."""
        account = self._arms[arm]
        seconds = account.running.pop(trial_id)
        account.finished_seconds += seconds
        account.max_trial_seconds = max(account.max_trial_seconds, seconds)
        account.num_finished += 1

    def expected(self, arm: str) -> float:
        """Return the device-seconds that the arm's next trial is expected to cost."""
        account = self._arms[arm]
        if account.finished_seconds > 0:
            on_test = account.finished_seconds + sum(account.running.values())
            return min(self._whole(arm), on_test / account.num_finished)
        if arm in self._full_trial_seconds:
            return self._full_trial_seconds[arm]
        accounts = self._arms.values()
        seconds = sum(a.finished_seconds for a in accounts)
        return seconds / sum(a.num_finished for a in accounts) if seconds else UNMEASURED_DEVICE_SECONDS

    def committed(self, arm: str) -> float:
        """Return the arm's committed device-seconds."""
        account, expected, whole = self._arms[arm], self.expected(arm), self._whole(arm)
        running = sum(max(spent, min(spent + expected, whole)) for spent in account.running.values())
        return account.finished_seconds + running

    def _whole(self, arm: str) -> float:
        """Return the known cost of a whole trial of the arm in device-seconds; infinite if none is known."""
        account = self._arms[arm]
        most_expensive = max([account.max_trial_seconds, *account.running.values()])
        return max(most_expensive, self._full_trial_seconds.get(arm, 0.0)) or math.inf

    def choose(self, among: Collection[str] | None = None) -> str | None:
        """Return the arm whose next trial leaves the arms' committed device-seconds most nearly equal; one of `among` if given.

        With equal costs this is the arm with the least committed device-seconds; with unequal costs it avoids overshooting by a
        whole trial of an expensive arm. A budget is divided equally, and an arm whose next trial would exceed its part is
        skipped. None if every arm is skipped.
        """
        committed = {arm: self.committed(arm) for arm in self._arms}
        costs = {arm: self.expected(arm) for arm in self._arms}
        open_arms = [arm for arm in self._arms if among is None or arm in among]
        affordable = [arm for arm in open_arms if self._quota is None or committed[arm] + costs[arm] <= self._quota]

        def spread_after(arm: str) -> tuple[float, float]:
            after = {a: c + (costs[arm] if a == arm else 0.0) for a, c in committed.items()}
            return (max(after.values()) - min(after.values()), committed[arm])

        return min(affordable, key=spread_after, default=None)

"""The device time of each arm, and the choice of the next trial's arm: equal device time within the search's budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

# Assumed for a full trial before any cost is known; equal for all arms, so that they alternate.
UNMEASURED_DEVICE_SECONDS = 1.0


class Length(StrEnum):
    """What a search trial is: a full trial, or a rung, which is a complete schedule of few epochs."""

    FULL = "full"
    RUNG = "rung"


@dataclass(slots=True)
class _Account:
    """Device-seconds of one arm's trials of one length: of the finished ones together, and of each running one so far."""

    num_finished: int = 0
    finished_seconds: float = 0.0
    max_trial_seconds: float = 0.0
    running: dict[str, float] = field(default_factory=dict)


class DeviceTimeLedger:
    """Device-seconds spent and committed by each arm.

    Committed device-seconds are those that finished trials spent, and those that running trials have spent and are expected to
    spend.

    The first trials to end are those that ASHA stopped, so the mean over finished trials would be too low while many trials
    run. The expected cost of an arm's trial is therefore the device-seconds spent by all trials of the arm and length, running
    ones included, divided by the number of finished trials: the estimate of a mean lifetime under censoring ("total time on
    test"; Epstein and Sobel 1953, Life testing). It is capped at the cost of a whole trial of this length: of
    `full_trial_seconds` if it was measured, else that of the most expensive trial so far.
    """

    def __init__(
        self,
        arms: Sequence[str],
        *,
        budget: float | None = None,
        full_trial_seconds: Mapping[str, float] | None = None,
        rung_fractions: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Open an account for each arm and length.

        Args:
            arms: names of the arms.
            budget: device-seconds for all arms together; None for no limit.
            full_trial_seconds: device-seconds of a full trial by arm, for the arms in which it was measured.
            rung_fractions: epochs of a rung / epochs of a full trial, by arm; only arms with rungs start trials of that length.
        """
        self._arms = {arm: {length: _Account() for length in Length} for arm in arms}
        self._fractions = {arm: {Length.FULL: 1.0, Length.RUNG: rung_fractions.get(arm, 1.0)} for arm in arms}
        self._full_trial_seconds = dict(full_trial_seconds or {})
        self.set_budget(budget)

    def set_budget(self, budget: float | None) -> None:
        """Set the device-seconds for all arms together; None for no limit."""
        self._quota = None if budget is None else budget / len(self._arms)

    @property
    def num_running(self) -> int:
        """The number of trials that have started and not ended."""
        return sum(len(account.running) for accounts in self._arms.values() for account in accounts.values())

    @property
    def is_spent(self) -> bool:
        """Whether a budget is set, nothing is running, and no arm can afford another full trial."""
        return self._quota is not None and not self.num_running and self.choose() is None

    def start(self, arm: str, trial_id: str, length: Length = Length.FULL) -> None:
        """Record that a trial starts."""
        self._arms[arm][length].running[trial_id] = 0.0

    def spend(self, arm: str, trial_id: str, device_seconds: float) -> None:
        """Record the device-seconds that a running trial has spent in total."""
        self._find(arm, trial_id).running[trial_id] = device_seconds

    def finish(self, arm: str, trial_id: str) -> None:
        """Record that a trial ends."""
        account = self._find(arm, trial_id)
        seconds = account.running.pop(trial_id)
        account.finished_seconds += seconds
        account.max_trial_seconds = max(account.max_trial_seconds, seconds)
        account.num_finished += 1

    def _find(self, arm: str, trial_id: str) -> _Account:
        """Return the account of a running trial."""
        return next(account for account in self._arms[arm].values() if trial_id in account.running)

    def expected(self, arm: str, length: Length = Length.FULL) -> float:
        """Return the device-seconds that the arm's next trial of a length is expected to cost."""
        account, fraction = self._arms[arm][length], self._fractions[arm][length]
        if account.finished_seconds > 0:
            on_test = account.finished_seconds + sum(account.running.values())
            return min(self._whole(arm, length), on_test / account.num_finished)
        if arm in self._full_trial_seconds:
            return fraction * self._full_trial_seconds[arm]
        (other,) = (self._arms[arm][it] for it in Length if it is not length)
        if other.finished_seconds > 0:
            of_other = next(self._fractions[arm][it] for it in Length if it is not length)
            return other.finished_seconds / other.num_finished * fraction / of_other
        alike = [accounts[length] for accounts in self._arms.values()]
        seconds = sum(a.finished_seconds for a in alike)
        return seconds / sum(a.num_finished for a in alike) if seconds else fraction * UNMEASURED_DEVICE_SECONDS

    def committed(self, arm: str) -> float:
        """Return the arm's committed device-seconds."""
        total = 0.0
        for length, account in self._arms[arm].items():
            expected, whole = self.expected(arm, length), self._whole(arm, length)
            total += account.finished_seconds
            total += sum(max(spent, min(spent + expected, whole)) for spent in account.running.values())
        return total

    def can_afford(self, arm: str, length: Length, *, reserved: float = 0.0) -> bool:
        """Return whether the arm's part of the budget covers a trial and the device-seconds `reserved` for others after it."""
        return self._quota is None or self.committed(arm) + self.expected(arm, length) + reserved <= self._quota

    def _whole(self, arm: str, length: Length) -> float:
        """Return the known cost of a whole trial of the arm in device-seconds; infinite if none is known."""
        account = self._arms[arm][length]
        most_expensive = max([account.max_trial_seconds, *account.running.values()])
        measured = self._fractions[arm][length] * self._full_trial_seconds.get(arm, 0.0)
        return max(most_expensive, measured) or math.inf

    def choose(self, wanted: Mapping[str, Length] | None = None) -> str | None:
        """Return the arm whose next trial leaves the arms' committed device-seconds most nearly equal.

        With equal costs this is the arm with the least committed device-seconds; with unequal costs it avoids overshooting by a
        whole trial of an expensive arm. A budget is divided equally, and an arm whose next trial would exceed its part is
        skipped. None if every arm is skipped.

        Args:
            wanted: the length of the next trial of each arm that has one; None for a full trial of every arm.
        """
        wanted = dict.fromkeys(self._arms, Length.FULL) if wanted is None else wanted
        committed = {arm: self.committed(arm) for arm in self._arms}
        affordable = [arm for arm, length in wanted.items() if self.can_afford(arm, length)]

        def spread_after(arm: str) -> tuple[float, float]:
            cost = self.expected(arm, wanted[arm])
            after = {a: c + (cost if a == arm else 0.0) for a, c in committed.items()}
            return (max(after.values()) - min(after.values()), committed[arm])

        return min(affordable, key=spread_after, default=None)

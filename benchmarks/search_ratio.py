"""P7: device time until a search would hand out a configuration that is good enough, against random search without pruning.

Both sides are the product's own director on the recorded curves (`benchmarks.curve_surrogate`), with the same noise, costs and
workers. Good enough is a true macro-F1 of at most one percentage point below the best of the landscape. A search that its
budget does not bring there counts with the whole budget, which flatters it.
"""

import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from benchmarks.curve_surrogate import CurveSurrogate
from benchmarks.ratios import Ratio
from benchmarks.replay_curves import Hyperparameters, load_curves
from benchmarks.replay_sides import OurSide, Setting, full_trial_seconds, make_spec
from benchmarks.replay_simulation import Landscape, Started, simulate
from benchmarks.search_replay import default_setting
from search_spaces.arms import POOLED_ARM
from study.spec import StudySpec

NUM_SEEDS = 20
NUM_WORKERS = 4
BUDGET_IN_FULL_TRIALS = 60.0
TOLERANCE = 0.01


@dataclass(slots=True)
class WatchedSide:
    """A search, and the device-seconds at which its choice first was good enough; None before."""

    side: OurSide
    landscape: Landscape
    spent: float = 0.0
    reached: float | None = None

    def next_trial(self) -> Started | None:
        return self.side.next_trial()

    def on_report(self, trial_id: str, epoch: int, macro_f1: float, device_seconds: float) -> bool:
        goes_on = self.side.on_report(trial_id, epoch, macro_f1, device_seconds)
        self.spent += device_seconds
        if self.reached is None and not goes_on and self._is_good_enough(self.side.choose()):
            self.reached = self.spent
        return goes_on

    def choose(self) -> Hyperparameters | None:
        return self.side.choose()

    def _is_good_enough(self, chosen: Hyperparameters | None) -> bool:
        if chosen is None:
            return False
        true_value = float(self.landscape.mean_curve(chosen)[-1])
        return true_value >= max(self.landscape.true_best.values()) - TOLERANCE


_landscape: Landscape
_recorded: StudySpec


def _start_process(landscape: Landscape, recorded: StudySpec) -> None:
    global _landscape, _recorded
    _landscape, _recorded = landscape, recorded


def _measure_one(task: tuple[Setting, int]) -> float:
    setting, seed = task
    budget = BUDGET_IN_FULL_TRIALS * full_trial_seconds(_landscape)[POOLED_ARM]
    spec = make_spec(_recorded, setting, budget_seconds=budget, seed=seed)
    watched = WatchedSide(OurSide(spec, _landscape), _landscape)
    simulate(watched, _landscape, num_workers=NUM_WORKERS, seed=seed)
    return budget if watched.reached is None else watched.reached


def measure_time_to_target() -> list[Ratio]:
    """Return the ratios of median device times of five groups of seeds."""
    ours = default_setting()
    plain = Setting(side="ours", sampler="random", allocation=ours.allocation, asha=False)
    tasks = [(setting, seed) for seed in range(NUM_SEEDS) for setting in (ours, plain)]
    recording = load_curves()
    pool = ProcessPoolExecutor(
        os.cpu_count(),
        mp_context=get_context("spawn"),
        initializer=_start_process,
        initargs=(CurveSurrogate.fit(recording), recording.spec),
    )
    with pool:
        seconds = list(pool.map(_measure_one, tasks))
    mine, theirs = seconds[::2], seconds[1::2]
    groups = [statistics.median(mine[i::5]) / statistics.median(theirs[i::5]) for i in range(5)]
    return [
        Ratio(
            number="P7",
            what=f"device time to within {100 * TOLERANCE:g} pp of the best / random search without pruning, {NUM_SEEDS} seeds",
            goal=0.4,
            is_at_most=True,
            values=tuple(groups),
            note=f"medians: {ours.label} {statistics.median(mine):.0f}, random {statistics.median(theirs):.0f} device-seconds",
        )
    ]

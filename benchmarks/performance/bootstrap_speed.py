"""The crossed bootstrap against a loop over scikit-learn's f1_score, on the same draws."""

import statistics
import time
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score

from analysis.statistics.bootstrap import compute_bootstrap_differences, compute_crossed_bootstrap, draw_image_weights
from benchmarks.validation.statistics_simulation import NUM_CLASSES, World
from trainables.seeds import numpy_generator

NUM_SEEDS, NUM_IMAGES, NUM_DRAWS = 10, 10_000, 5000
NUM_COMPARED = 50
NUM_REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSpeed:
    """Seconds of all `NUM_DRAWS` draws, of as many by the loop (scaled up from some), and how far they differ."""

    seconds: float
    loop_seconds: float
    largest_difference: float

    @property
    def ratio(self) -> float:
        """The loop's time / ours."""
        return self.loop_seconds / self.seconds


def measure_bootstrap_speed() -> BootstrapSpeed:
    """Return medians of five repetitions, both sides in turn."""
    world = World(seed_sd=0.05, num_seeds=NUM_SEEDS, shifts=(0.0, 0.05), num_images=NUM_IMAGES)
    control, treatment = world.draw(numpy_generator(0, "bootstrap speed"))
    generator = numpy_generator(1, "bootstrap speed")
    weights = draw_image_weights(control.labels, NUM_COMPARED, generator)
    picks = generator.integers(NUM_SEEDS, size=(NUM_COMPARED, NUM_SEEDS))
    ours = compute_bootstrap_differences(treatment, control, weights, picks)
    seconds, loop_seconds, looped = [], [], np.empty(NUM_COMPARED)
    per_repeat = NUM_COMPARED // NUM_REPEATS
    for repeat in range(NUM_REPEATS):
        started = time.perf_counter()
        compute_crossed_bootstrap(treatment, control, confidence=0.95, num_draws=NUM_DRAWS)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        for draw in range(repeat * per_repeat, (repeat + 1) * per_repeat):
            scores = [
                [
                    f1_score(
                        a.labels,
                        a.predicted[s],
                        average="macro",
                        sample_weight=weights[draw],
                        labels=range(NUM_CLASSES),
                    )
                    for s in range(NUM_SEEDS)
                ]
                for a in (treatment, control)
            ]
            looped[draw] = np.mean([scores[0][s] - scores[1][s] for s in picks[draw]])
        loop_seconds.append((time.perf_counter() - started) * NUM_DRAWS / per_repeat)
    return BootstrapSpeed(
        seconds=statistics.median(seconds),
        loop_seconds=statistics.median(loop_seconds),
        largest_difference=float(np.abs(ours - looped).max()),
    )

"""P10: the crossed bootstrap against a loop over scikit-learn's f1_score, on the same draws."""

import statistics

import numpy as np
from sklearn.metrics import f1_score

from analysis.comparison.other_intervals import (
    compute_bootstrap_differences,
    compute_crossed_bootstrap,
    draw_image_weights,
)
from analysis.statistics.arm_predictions import ArmPredictions
from benchmarks.ratios import REPEATS, Ratio, measure_seconds
from benchmarks.validation.statistics_simulation import NUM_CLASSES, World
from trainables.seeds import numpy_generator

NUM_SEEDS, NUM_IMAGES, NUM_DRAWS = 10, 10_000, 5000
NUM_LOOPED = 50  # Draws of the loop, whose time is scaled up.


def measure_bootstrap() -> list[Ratio]:
    """P10: the median times of five repetitions, both sides in turn, and the largest difference of one draw."""
    world = World(seed_sd=0.05, num_seeds=NUM_SEEDS, shifts=(0.0, 0.05), num_images=NUM_IMAGES)
    control, treatment = world.draw(numpy_generator(0, "bootstrap speed"))
    generator = numpy_generator(1, "bootstrap speed")
    weights = draw_image_weights(control.labels, NUM_LOOPED, generator)
    picks = generator.integers(NUM_SEEDS, size=(NUM_LOOPED, NUM_SEEDS))
    ours = compute_bootstrap_differences(treatment, control, weights, picks)
    looped = np.empty(NUM_LOOPED)

    def score(arm: ArmPredictions, draw: int) -> np.ndarray:
        options = {"average": "macro", "sample_weight": weights[draw], "labels": range(NUM_CLASSES)}
        return np.array([f1_score(arm.labels, predicted, **options) for predicted in arm.predicted])

    def loop(draws: np.ndarray) -> None:
        for draw in draws:
            looped[draw] = (score(treatment, draw) - score(control, draw))[picks[draw]].mean()

    seconds, loop_seconds = [], []
    for draws in np.array_split(np.arange(NUM_LOOPED), REPEATS):
        seconds.append(
            measure_seconds(lambda: compute_crossed_bootstrap(treatment, control, confidence=0.95, num_draws=NUM_DRAWS))
        )
        loop_seconds.append(measure_seconds(lambda draws=draws: loop(draws)) * NUM_DRAWS / len(draws))
    name = "a loop over f1_score / the crossed bootstrap, 5,000 draws, 10 seeds, 10,000 images"
    ratio = statistics.median(loop_seconds) / statistics.median(seconds)
    note = f"{statistics.median(seconds):.2f} s, medians of five; largest difference {np.abs(ours - looped).max():.0e}"
    return [Ratio("P10", name, ">= 100", (ratio,), note)]

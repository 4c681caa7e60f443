"""Which arm a study hands over, simulated with recorded models whose truth is known; writes benchmarks/HANDOVER.md.

An arm is a network of one hidden layer on scikit-learn's digits; its configurations are learning rates, each with 100 recorded
models. A study draws images for its search and confirm splits from the pool, chooses the configuration of each arm by the best
of a few trials on the search split, and trains it with fresh seeds. The truth is the mean macro-F1 of the chosen
configurations' models on all images of the pool. Before: the highest mean on the confirm split. After: `choose_arm`.
"""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import binomtest

from analysis.comparison.arm_choice import choose_arm
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import compute_macro_f1
from benchmarks.pages import Table, publish_simulation
from benchmarks.validation.prediction_pools import IntArray, Pool, Recipe, read_digits, train_pool
from trainables.seeds import numpy_generator

PAGE = Path(__file__).parents[1] / "HANDOVER.md"
RATES, PER_CLASS, STEPS = (0.03, 0.05, 0.08), 20, 300
ARMS = ("control", "treatment")
# Hidden units of both arms; the first pair is one recipe twice.
PAIRS = ((12, 12), (12, 24), (8, 12), (7, 12))
# Images of the search and the confirm split; the first is that of the preset demo.
SIZES = ((168, 140), (90, 90), (300, 300), (300, 1000))
SEEDS, TRIALS, ALPHA = 4, 3, 0.05
NUM_STUDIES, NUM_SAMPLED = 200, 20
# The shares of the demo's classes: two of ten are rare.
WEIGHTS = np.array([1.0] * 8 + [0.15] * 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What one simulated study handed over.

    Attributes:
        gap: truth of the better arm minus that of the other one.
        before: whether the highest mean on the confirm split is of the better one.
        after: whether `choose_arm` takes the better one.
    """

    gap: float
    before: bool
    after: bool


@cache
def record_pool(hidden: tuple[int, int], rate: float) -> Pool:
    """Return 100 models of each arm with one learning rate."""
    recipes = [Recipe(hidden=units, per_class=PER_CLASS, steps=STEPS, rate=rate) for units in hidden]
    return train_pool(read_digits(), (recipes[0], recipes[1]), keeps_logits=False)


def simulate_study(hidden: tuple[int, int], sizes: tuple[int, int], number: int) -> Study:
    """Simulate one study.

    Args:
        hidden: units of both arms.
        sizes: images of the search and the confirm split.
        number: of the study.
    """
    generator = numpy_generator(number, "handover", *map(str, (*hidden, *sizes)))
    pools = [record_pool(hidden, rate) for rate in RATES]
    labels = pools[0].labels
    chance = (WEIGHTS / np.bincount(labels))[labels]
    drawn = [generator.choice(len(labels), size=size, p=chance / chance.sum()) for size in sizes]
    confirm: dict[str, ArmPredictions] = {}
    search: dict[str, ArmPredictions] = {}
    truth: dict[str, float] = {}
    for place, name in enumerate(ARMS):
        # The models of an arm that is compared with itself are others than those of its rival.
        models = generator.permutation(np.arange(place * 50, place * 50 + 50) if hidden[0] == hidden[1] else 100)
        tried = generator.integers(len(RATES), size=TRIALS)
        on_search = [_score(pools[c], place, models[-1 - i], drawn[0]) for i, c in enumerate(tried)]
        chosen = pools[tried[int(np.argmax(on_search))]]
        for found, images in ((search, drawn[0]), (confirm, drawn[1])):
            found[name] = ArmPredictions(
                name=name,
                seeds=tuple(range(SEEDS)),
                labels=labels[images],
                sample_ids=np.arange(len(images)),
                predicted=chosen.predicted[place][models[:SEEDS]][:, images].astype(np.int64),
                num_classes=10,
            )
        truth[name] = float(compute_macro_f1(labels, chosen.predicted[place].astype(np.int64), 10).mean())
    found = choose_arm(
        confirm,
        search,
        margin=0.02,
        alpha=ALPHA,
        num_candidates=dict.fromkeys(ARMS, TRIALS),
        seconds=dict.fromkeys(ARMS, 1.0),
    )
    better = max(ARMS, key=lambda name: truth[name])
    gap = truth[better] - min(truth.values())
    return Study(gap=gap, before=found.leader == better, after=found.arm == better)


def _score(pool: Pool, arm: int, model: int, images: IntArray) -> float:
    return float(compute_macro_f1(pool.labels[images], pool.predicted[arm, model, images].astype(np.int64), 10))


def main(sample: Annotated[bool, typer.Option("--sample", help="Few studies of each kind.")] = False) -> None:
    """Simulate the studies, print the table, and write the page."""
    started, rows, missed = time.perf_counter(), [], []
    number = NUM_SAMPLED if sample else NUM_STUDIES
    for hidden in PAIRS:
        for sizes in SIZES:
            studies = [simulate_study(hidden, sizes, one) for one in range(number)]
            gap = 100 * float(np.mean([study.gap for study in studies]))
            counts = [sum(getattr(study, name) for study in studies) for name in ("before", "after")]
            shown = []
            for count in counts:
                interval = binomtest(count, number).proportion_ci(method="wilson")
                shown.append(f"{count / number:.3f} [{interval.low:.3f}, {interval.high:.3f}]")
            cell = f"{hidden[0]} against {hidden[1]} units, {sizes[0]} + {sizes[1]} images"
            only_before = sum(study.before and not study.after for study in studies)
            only_after = sum(study.after and not study.before for study in studies)
            # Worse beyond chance, over the studies in which the rules differ.
            is_worse = binomtest(only_after, max(1, only_after + only_before), alternative="less").pvalue < ALPHA
            if hidden[0] != hidden[1] and only_before > only_after and is_worse:
                missed.append(f"{cell}: less often right than before")
            if sizes == SIZES[0] and gap >= 8 and counts[1] < 0.95 * number:
                missed.append(f"{cell}: {shown[1]} of .95")
            rows.append([cell, f"{gap:.1f}", *shown, f"{only_after} / {only_before}"])
    head = ["arms and search + confirm images", "gap (pp)", "right, before", "right, after", "only after / only before"]
    publish_simulation(started, [Table("Handed over right", head, rows)], missed, "none", None if sample else PAGE)


if __name__ == "__main__":
    typer.run(main)

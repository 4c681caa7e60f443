"""Tables of FORENSICS.md on simulated arms of which the confused classes are known: level and power of the cluster test."""

from dataclasses import dataclass

import numpy as np

from analysis.confusions.clusters import ALPHA, compute_pair_test, find_clusters
from analysis.statistics.arm_predictions import ArmPredictions
from analysis.statistics.metrics import IntArray
from benchmarks.pages import Table
from benchmarks.validation.goals import Goal, Goals, Rate
from benchmarks.validation.worlds import WorldCache

NUM_CLASSES = 10
# How often each class is predicted wrongly, and the error rate of each class: far from equal.
POPULARITY = np.array([0.2, 0.16, 0.12, 0.1, 0.1, 0.08, 0.08, 0.06, 0.06, 0.04])
ERROR_RATES = np.array([0.5, 0.1, 0.3, 0.2, 0.4, 0.05, 0.3, 0.25, 0.2, 0.35])
NUM_PERMUTATIONS = 199
# Arms of one stored outcome.
ARMS_PER_BLOCK = 60
LEVEL_BLOCKS = 67
NAMES = tuple(f"class {i}" for i in range(NUM_CLASSES))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedArm:
    """The parameters of a simulation.

    Attributes:
        num_images, num_seeds: N and S.
        group: classes that are confused with each other beyond chance; empty for the null.
        share: of the errors of the group's classes that fall on the group.
        stickiness: probability that a hard image is wrong in a seed, and that it gets its usual wrong label: seeds are dependent.
    """

    num_images: int
    num_seeds: int = 3
    group: tuple[int, ...] = ()
    share: float = 0.0
    stickiness: float = 0.8

    def draw(self, seed: int) -> ArmPredictions:
        """Return one arm."""
        rng = np.random.default_rng(seed)
        labels = np.arange(self.num_images) % NUM_CLASSES
        hard = rng.random(self.num_images) < ERROR_RATES[labels]
        usual = self._draw_wrong(labels, rng)
        predicted = np.tile(labels, (self.num_seeds, 1))
        for row in predicted:
            wrong = hard & (rng.random(self.num_images) < self.stickiness)
            chosen = np.where(rng.random(self.num_images) < self.stickiness, usual, self._draw_wrong(labels, rng))
            row[wrong] = chosen[wrong]
        return ArmPredictions(
            name="simulated",
            seeds=tuple(range(self.num_seeds)),
            labels=labels,
            sample_ids=np.arange(self.num_images),
            predicted=predicted,
            num_classes=NUM_CLASSES,
        )

    def _draw_wrong(self, labels: IntArray, rng: np.random.Generator) -> IntArray:
        """Return a wrong class for each label: by popularity, or, for a share of the group's, one of the group."""
        weights = np.tile(POPULARITY, (NUM_CLASSES, 1))
        np.fill_diagonal(weights, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        for label in self.group:
            inside = np.isin(np.arange(NUM_CLASSES), self.group) & (np.arange(NUM_CLASSES) != label)
            weights[label] = (1 - self.share) * weights[label] + self.share * inside / inside.sum()
        draws = rng.random(len(labels))
        return np.asarray((weights.cumsum(axis=1)[labels] < draws[:, None]).sum(axis=1), dtype=np.int64).clip(
            0, NUM_CLASSES - 1
        )


def tabulate_clusters(cache: WorldCache) -> tuple[list[Table], list[Goal]]:
    """Return the tables of level and power of the cluster test, and the goals of its level."""
    nulls = [ConfusedArm(num_images=n, num_seeds=s) for n in (300, 1000) for s in (1, 3, 6)]
    found = cache.compute(find_pairs, ((arm, block) for arm in nulls for block in range(LEVEL_BLOCKS)))
    count = LEVEL_BLOCKS * ARMS_PER_BLOCK
    hits = np.reshape(found, (len(nulls), count)).sum(axis=1).tolist()
    rows = [[str(a.num_images), str(a.num_seeds), f"{h / count:.3f}"] for a, h in zip(nulls, hits, strict=True)]
    title = f"Cluster test, family-wise error on {count} null matrices with unequal margins"
    goals = Goals()
    goals.judge(
        [
            Rate(
                name=f"family-wise error of the cluster test, {images} images, S = {seeds}",
                hits=h,
                count=count,
                most=ALPHA,
            )
            for (images, seeds, _), h in zip(rows, hits, strict=True)
        ]
    )
    return [Table(title, ["images", "seeds", "a pair is found"], rows), _tabulate_power(cache)], goals.judged


def _tabulate_power(cache: WorldCache) -> Table:
    """Return how often the confused pairs of a group are found, and how often a wrong one beside them."""
    arms = [
        ConfusedArm(num_images=n, group=(2, 4, 7), share=share)
        for n in (1000, 2000, 4000)
        for share in (0.15, 0.3, 0.5)
    ]
    rows = []
    for arm, found in zip(arms, cache.compute(find_planted, ((arm, 0) for arm in arms)), strict=True):
        hits, wrong, whole = np.mean(found, axis=0)
        rows.append([str(arm.num_images), f"{arm.share:.2f}", f"{hits:.2f}", f"{whole:.2f}", f"{wrong:.3f}"])
    head = ["images", "share of the errors inside", "pairs found", "whole cluster found", "a wrong pair beside"]
    title = f"Cluster test, power for a group of three classes, three seeds, {ARMS_PER_BLOCK} arms a row"
    return Table(title, head, rows)


def find_pairs(arm: ConfusedArm, block: int) -> tuple[bool, ...]:
    """Return whether the cluster test finds a pair in each arm of a block."""
    found = []
    for seed in range(block * ARMS_PER_BLOCK, (block + 1) * ARMS_PER_BLOCK):
        test = compute_pair_test(arm.draw(seed), np.random.default_rng(seed), NUM_PERMUTATIONS)
        found.append(bool((test.p_adjusted <= ALPHA).any()))
    return tuple(found)


def find_planted(arm: ConfusedArm, block: int) -> tuple[tuple[float, float, float], ...]:
    """Return, per arm of a block, the share of planted pairs found, whether another is found, and whether the cluster is."""
    rows = []
    for seed in range(block * ARMS_PER_BLOCK, (block + 1) * ARMS_PER_BLOCK):
        pairs, clusters = find_clusters(arm.draw(seed), NAMES)
        planted = {NAMES[i] for i in arm.group}
        inside = [pair for pair in pairs if set(pair.classes) <= planted]
        whole = any(set(cluster.classes) == planted for cluster in clusters)
        rows.append((len(inside) / 3, float(len(pairs) > len(inside)), float(whole)))
    return tuple(rows)

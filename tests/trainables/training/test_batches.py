"""The batches of an epoch: composed as declared, and a pure function of seed and epoch."""

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from tests.trainables.training.test_loop import assert_same_run, change, make_data, start
from trainables.training.batches import EpochBatches
from trainables.training.checkpoint import Checkpoint
from trainables.training.trial_cost import measure_trial_cost
from trainables.training.trial_run import EpochInterrupted

CLASSES = ("a", "b", "c", "d", "e")
GROUPS = {
    "hard": ("d", "a", "b"),
    "pair": ("b", "e"),
    "every": CLASSES,
    "one": ("c",),
    "wrong": ("a", "x"),
    "empty": (),
}
# Class "b" has 5 training images, fewer than one batch of two classes needs; those of the other splits are not drawn.
LABELS = np.repeat(np.arange(5), [60, 10, 50, 40, 50])
TRAIN = np.random.default_rng(0).permutation(np.concatenate([np.arange(65), np.arange(70, 200)]))
NUM_TRAIN, BATCH = 195, 16
DATA = replace(make_data(), labels=LABELS, class_names=CLASSES, class_groups=GROUPS)


def make(seed: int = 0, labels: np.ndarray = LABELS, **settings: Value) -> EpochBatches:
    fixed: dict[str, Value] = {"batch_size": BATCH, "max_epochs": 8, **settings}
    config = TrialConfig(arm="a", seed=seed, hyperparameters={}, fixed=fixed)
    return EpochBatches(config, replace(DATA, labels=labels), TRAIN)


def find_hard(batches: EpochBatches, epoch: int) -> list[int]:
    """Return the numbers of the batches that are not those of the shuffle."""
    plain = make(batches._seed, batch_size=batches.shape.batch_size)
    pairs = zip(batches.of_epoch(epoch), plain.of_epoch(epoch), strict=False)
    return [number for number, (one, other) in enumerate(pairs) if not torch.equal(one, other)]


def test_without_hard_examples_the_batches_are_those_of_earlier_releases() -> None:
    """The digest is that of the shuffle before there were hard examples."""
    batches = make(seed=3).of_epoch(2)
    assert hashlib.sha256(torch.cat(batches).numpy().tobytes()).hexdigest()[:16] == "991814814e1d27ed"
    assert [len(batch) for batch in batches] == [BATCH] * 12
    for group, first in (("", 1), ("hard", 2)):
        off = make(seed=3, hard_group=group, hard_fraction=0.0, hard_from_epoch=first).of_epoch(2)
        assert all(torch.equal(one, other) for one, other in zip(batches, off, strict=True))


@pytest.mark.parametrize(
    ("fraction", "accumulate", "num_hard", "num_batches"),
    [(0.25, 1, 3, 12), (0.5, 1, 6, 12), (0.01, 1, 1, 12), (0.9, 1, 11, 12), (0.3, 5, 3, 10)],
)
@pytest.mark.parametrize("group", ["hard", "pair", "one"])
def test_every_epoch_is_composed_as_declared(
    group: str, fraction: float, accumulate: int, num_hard: int, num_batches: int
) -> None:
    numbers = [CLASSES.index(name) for name in GROUPS[group]]
    for seed in range(10):
        batches = make(seed, hard_group=group, hard_fraction=fraction, hard_from_epoch=2, accumulate=accumulate)
        assert find_hard(batches, 1) == []
        for epoch in (2, 3):
            found = batches.of_epoch(epoch)
            assert [len(batch) for batch in found] == [BATCH] * num_batches
            hard = find_hard(batches, epoch)
            assert len(hard) == num_hard
            inside = [Counter(LABELS[found[number].numpy()].tolist()) for number in hard]
            for counts in (*inside, sum(inside, Counter[int]())):
                assert set(counts) == set(numbers)
                assert max(counts.values()) - min(counts.values()) <= 1
            images = torch.cat([found[number] for number in hard])
            assert set(images.tolist()) <= set(TRAIN.tolist())
            for number in numbers:
                own = images[torch.from_numpy(LABELS)[images] == number].tolist()
                num_own = int((LABELS[TRAIN] == number).sum())
                repeats = Counter(own).values()
                assert max(repeats) == -(-len(own) // num_own)
                assert len(repeats) == min(len(own), num_own)


def test_hard_batches_are_spread_over_the_epoch() -> None:
    assert find_hard(make(hard_group="hard", hard_fraction=0.25), 1) == [2, 6, 10]
    assert find_hard(make(hard_group="pair", hard_fraction=0.5), 1) == [1, 3, 5, 7, 9, 11]
    assert find_hard(make(hard_group="pair", hard_fraction=0.01), 1) == [6]


def test_a_group_of_all_classes_may_take_every_batch() -> None:
    batches = make(hard_group="every", hard_fraction=1.0)
    assert find_hard(batches, 1) == list(range(12))
    counts = np.bincount(LABELS[torch.cat(batches.of_epoch(1)).numpy()])
    assert counts.max() - counts.min() <= 1


def test_epochs_and_seeds_draw_other_images_and_calls_do_not_matter() -> None:
    def draw(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(make(seed, hard_group="hard", hard_fraction=0.25).of_epoch(epoch)[2].tolist())

    assert len({draw(seed, epoch) for seed in range(5) for epoch in range(1, 6)}) == 25
    batches = make(hard_group="hard", hard_fraction=0.25)
    for epoch in (4, 1, 4):
        assert tuple(batches.of_epoch(epoch)[2].tolist()) == draw(0, epoch)


def digest_epochs() -> str:
    batches = make(seed=7, hard_group="hard", hard_fraction=0.4)
    drawn = torch.cat([torch.cat(batches.of_epoch(epoch)) for epoch in (1, 2)])
    return hashlib.sha256(drawn.numpy().tobytes()).hexdigest()


def test_another_process_has_the_same_batches() -> None:
    code = "from tests.trainables.training.test_batches import digest_epochs as d; print(d())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest_epochs()


@pytest.mark.parametrize(("accumulate", "num_steps"), [(1, 2), (2, 1)])
def test_an_epoch_with_hard_examples_and_ring_swaps_continues_with_the_same_bits(
    accumulate: int, num_steps: int
) -> None:
    """Interrupted after two of five batches, one of which is the first one of hard examples, or after two of four."""
    data = make_data(num_train=40, size=8)
    recipe: dict[str, Value] = {"hard_group": "soft", "hard_fraction": 0.4, "ring_swap_probability": 0.5}
    config = change(batch_size=8, image_size=8, max_epochs=1, accumulate=accumulate, **recipe)
    whole, left = start(config, data), start(config, data)
    assert whole._batches.num_hard == 2
    whole.run_epoch()
    answers = iter([False] * (num_steps - 1) + [True])
    with pytest.raises(EpochInterrupted):
        left.run_epoch(should_stop=lambda: next(answers))
    resumed = start(config, data, Checkpoint.from_bytes(left.checkpoint().to_bytes()))
    resumed.run_epoch()
    assert_same_run(whole, resumed)


def test_the_cost_of_a_trial_is_measured_where_the_first_images_lack_a_class_of_the_group() -> None:
    config = change(hard_group="soft", hard_fraction=0.3, batch_size=8, image_size=8, max_epochs=1)
    data = make_data(num_train=40, size=8)
    train = data.splits.train
    object.__setattr__(data.splits, "train", train[np.argsort(-data.labels[train], kind="stable")])
    cost = measure_trial_cost(config, data, device=torch.device("cpu"), weights=None)
    assert cost.epoch_seconds > 0
    left_out = change(batch_size=8, image_size=8, max_epochs=1, leave_out=str(data.splits.train[-1]))
    assert measure_trial_cost(left_out, data, device=torch.device("cpu"), weights=None).epoch_seconds > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"hard_group": ""},
            r"train.hard_fraction = 0.25 needs train.hard_group, but it is empty; name one of hard, pair",
        ),
        ({"hard_group": "hrad"}, r"train.hard_group: there is no group of classes 'hrad' \(did you mean 'hard'\?\)"),
        ({"hard_group": "empty"}, "train.hard_group: the group 'empty' is empty"),
        ({"hard_group": "wrong"}, "train.hard_group: the group 'wrong' names the class 'x'"),
        ({"batch_size": 2}, "an image of each of its 3 classes, but has 2 images; raise train.batch_size"),
        ({"hard_fraction": 1.0}, r"leaves no batch to the classes outside of 'hard' \(c, e\): batches per epoch: 12"),
        ({"hard_fraction": 0.8, "batch_size": 90}, r"leaves no batch .*: batches per epoch: 2"),
        ({"hard_fraction": 0.1, "batch_size": 500}, r"leaves no batch .*: batches per epoch: 1"),
        ({"hard_from_epoch": 9}, r"1 <= train.hard_from_epoch <= max_epochs \(8\) must hold, but got 9"),
        ({"hard_fraction": 1.5}, "0 <= train.hard_fraction <= 1 must hold, but got 1.5"),
    ],
)
def test_hard_examples_that_cannot_be_drawn_are_refused(settings: dict[str, Value], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make(**{"hard_group": "hard", "hard_fraction": 0.25, **settings})


def test_all_problems_are_listed_and_classes_without_training_images_named() -> None:
    without = np.where(np.isin(LABELS, [0, 3]), 2, LABELS)
    with pytest.raises(UserInputError) as refused:
        make(labels=without, hard_group="hard", hard_fraction=1.0, hard_from_epoch=20, batch_size=2)
    for part in ("but there is none of a, d; leave", "but got 20", "has 2 images", "leaves no batch"):
        assert part in str(refused.value)

"""The batches of an epoch: composed as declared, and a pure function of seed and epoch."""

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from tests.trainables.training.test_loop import assert_same_run, change, make_data, start
from trainables.training.batches import EpochBatches, compute_class_weights, compute_weighted_cross_entropy
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


WEIGHED_CLASSES = ("plane", "cat", "frog", "ship")
WEIGHED_GROUPS = {"rigid": ("plane", "ship"), "deformable": ("cat", "frog")}
WEIGHED_LABELS = np.repeat(np.arange(4), [40, 10, 20, 30])


def make_config(weighting: str, strength: float | None = None, group: str = "deformable") -> TrialConfig:
    values: dict[str, float | str] = {"class_weighting": weighting}
    if strength is not None:
        values["class_weight_strength"] = strength
    return TrialConfig(arm="a", seed=0, hyperparameters=values, fixed={"weighted_group": group})


def compute(config: TrialConfig, labels: np.ndarray = WEIGHED_LABELS, groups: Mapping = WEIGHED_GROUPS) -> torch.Tensor:
    data = replace(make_data(), labels=labels, class_names=WEIGHED_CLASSES, class_groups=groups)
    return compute_class_weights(config, data, np.arange(len(labels)))


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighting", ["none", "inverse_frequency", "group"])
def test_weights_are_float32_positive_with_mean_1(weighting: str, strength: float) -> None:
    weights = compute(make_config(weighting, strength))
    assert weights.dtype == torch.float32
    assert weights.shape == (4,)
    assert (weights > 0).all()
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)


def test_none_and_strength_0_weigh_all_classes_equally() -> None:
    for config in (make_config("none"), make_config("inverse_frequency", 0.0), make_config("group", 0.0)):
        assert torch.equal(compute(config), torch.ones(4))


def test_inverse_frequency_at_strength_1_gives_every_class_the_same_total() -> None:
    totals = compute(make_config("inverse_frequency", 1.0)).numpy() * np.bincount(WEIGHED_LABELS)
    np.testing.assert_allclose(totals, totals[0], rtol=1e-6)


def test_inverse_frequency_at_strength_one_half_uses_the_square_root() -> None:
    weights = compute(make_config("inverse_frequency", 0.5))
    assert float(weights[1] / weights[0]) == pytest.approx(2.0, rel=1e-6)  # counts 10 and 40


def test_inverse_frequency_changes_nothing_on_a_balanced_set() -> None:
    assert torch.equal(compute(make_config("inverse_frequency", 1.0), np.arange(40) % 4), torch.ones(4))


def test_group_members_weigh_1_plus_strength_times_the_others() -> None:
    weights = compute(make_config("group", 0.6))
    np.testing.assert_allclose((weights / weights[0]).numpy(), [1, 1.6, 1.6, 1], rtol=1e-6)


def test_bad_settings_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserInputError, match="did you mean 'group'"):
        compute(make_config("groups"))
    with pytest.raises(UserInputError, match="did you mean 'deformable'"):
        compute(make_config("group", 1.0, "deformabel"))
    with pytest.raises(UserInputError, match="weighted_group"):
        compute(make_config("group", 1.0, ""))
    with pytest.raises(UserInputError, match="describes none"):
        compute(make_config("group", 1.0), groups={})
    with pytest.raises(UserInputError, match="'dog'"):
        compute(make_config("group", 1.0, "pets"), groups={"pets": ("cat", "dog")})


def test_inverse_frequency_refuses_a_class_without_images() -> None:
    with pytest.raises(UserInputError, match="'ship' has none"):
        compute(make_config("inverse_frequency", 1.0), np.array([0, 1, 2]))


@pytest.mark.parametrize(
    ("weighting", "strength", "names"),
    [
        ("group", -1.0, "'cat', 'frog'"),
        ("group", -1.5, "'cat', 'frog'"),
        ("inverse_frequency", 100.0, "'plane', 'ship'"),
    ],
)
def test_a_strength_that_leaves_a_class_no_weight_is_refused(weighting: str, strength: float, names: str) -> None:
    with pytest.raises(
        UserInputError, match=rf"class_weight_strength = {strength:g} leaves {names} no positive weight"
    ):
        compute(make_config(weighting, strength))


@given(smoothing=st.floats(0, 0.5), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_loss_with_hard_targets_is_torchs_weighted_cross_entropy(smoothing: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, 4, generator=generator) * 4
    labels = torch.randint(0, 4, (7,), generator=generator)
    weights = torch.rand(4, generator=generator) + 0.1
    expected = torch.nn.functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    targets = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(compute_weighted_cross_entropy(logits, targets, weights, smoothing), expected)


def test_loss_does_not_depend_on_the_scale_of_the_weights() -> None:
    logits, targets = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.full((5, 4), 0.25)
    weights = torch.tensor([0.5, 1.0, 1.0, 1.5])
    one = compute_weighted_cross_entropy(logits, targets, weights, 0.1)
    torch.testing.assert_close(compute_weighted_cross_entropy(logits, targets, 10 * weights, 0.1), one)
    assert compute_weighted_cross_entropy(logits, targets, weights.flip(0), 0.1) != one


def test_loss_is_computed_in_float32_from_bfloat16_logits() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.5, 0.0]], dtype=torch.bfloat16)
    targets = torch.tensor([[0.7, 0.3, 0.0, 0.0]])
    loss = compute_weighted_cross_entropy(logits, targets, torch.ones(4), 0.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits.float(), targets))

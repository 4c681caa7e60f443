"""Class weights and the loss that uses them."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from tests.trainables.training.test_loop import make_data
from trainables.training.batches import compute_class_weights, compute_weighted_cross_entropy

CLASSES = ("plane", "cat", "frog", "ship")
GROUPS = {"rigid": ("plane", "ship"), "deformable": ("cat", "frog")}
LABELS = np.repeat(np.arange(4), [40, 10, 20, 30])


def make_config(weighting: str, strength: float | None = None, group: str = "deformable") -> TrialConfig:
    values: dict[str, float | str] = {"class_weighting": weighting}
    if strength is not None:
        values["class_weight_strength"] = strength
    return TrialConfig(arm="a", seed=0, hyperparameters=values, fixed={"weighted_group": group})


def compute(config: TrialConfig, labels: np.ndarray = LABELS, groups: Mapping = GROUPS) -> torch.Tensor:
    data = replace(make_data(), labels=labels, class_names=CLASSES, class_groups=groups)
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
    totals = compute(make_config("inverse_frequency", 1.0)).numpy() * np.bincount(LABELS)
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

"""Designs: their configurations, and that no row of the comparison is confounded with another."""

import itertools

import numpy as np
import pytest

from search_spaces.designs import (
    Contrast,
    contrast_with_first,
    make_factorial_design,
    make_fixed_arm,
    make_one_at_a_time_design,
    split_into_arms,
)
from search_spaces.errors import UserInputError
from search_spaces.space_tables import load_space
from tests.built_values import BASE

TRANSFER_LEARNING = load_space("transfer_learning")
CHANGES = {
    **{"cutmix_probability": 0.5, "backbone": "resnet50", "label_smoothing": 0.1, "interpolation": "bilinear"},
    **{"max_lr": 0.1, "weight_decay": 1e-3, "backbone_lr_ratio": 1.0, "class_weighting": "group"},
}


def test_later_arms_are_compared_with_the_first() -> None:
    rows = contrast_with_first(["a", "b", "c"])
    assert [(r.treatment, r.control, r.arms) for r in rows] == [("b", "a", ("b", "a")), ("c", "a", ("c", "a"))]


def test_one_at_a_time_changes_one_factor_per_arm() -> None:
    design = make_one_at_a_time_design(BASE, {"max_lr": 0.1, "backbone": "resnet50"}, TRANSFER_LEARNING)
    assert list(design.configurations) == ["base", "max_lr=0.1", "backbone=resnet50"]
    assert design.configurations["max_lr=0.1"] == {**BASE, "max_lr": 0.1}
    assert [(r.treatment, r.control) for r in design.contrasts] == [
        ("max_lr=0.1", "base"),
        ("backbone=resnet50", "base"),
    ]


@pytest.mark.parametrize(("num_factors", "num_runs"), [(2, 4), (3, 8), (4, 16), (5, 16), (6, 32), (7, 64)])
def test_factorial_designs_separate_every_factor_and_pair(num_factors: int, num_runs: int) -> None:
    changes = dict(itertools.islice(CHANGES.items(), num_factors))
    design = make_factorial_design(BASE, changes, TRANSFER_LEARNING)
    runs = list(design.configurations)
    assert len(runs) == num_runs
    assert runs[0] == "run-1"
    assert design.configurations["run-1"] == BASE
    assert len(design.contrasts) == num_factors * (num_factors + 1) // 2
    signs = np.array([sign_runs(contrast, runs) for contrast in design.contrasts])
    assert (np.abs(signs) == 1).all()
    # Orthogonal columns: no row is confounded with another.
    assert np.array_equal(signs @ signs.T, num_runs * np.eye(len(signs)))
    for row, (name, value) in zip(design.contrasts[:num_factors], changes.items(), strict=True):
        assert row.treatment == f"{name}={value}"
        assert all(design.configurations[arm][name] == value for arm in row.treatment_arms)
        assert all(design.configurations[arm][name] == BASE[name] for arm in row.control_arms)


def test_eight_factors_take_a_quarter_of_all_combinations() -> None:
    base = {**BASE, "class_weighting": "inverse_frequency", "class_weight_strength": 0.5}
    design = make_factorial_design(base, CHANGES, TRANSFER_LEARNING)
    signs = np.array([sign_runs(contrast, list(design.configurations)) for contrast in design.contrasts])
    assert signs.shape == (36, 64)
    assert np.array_equal(signs @ signs.T, 64 * np.eye(36))


def sign_runs(contrast: Contrast, runs: list[str]) -> list[int]:
    return [(run in contrast.treatment_arms) - (run in contrast.control_arms) for run in runs]


def test_parameters_that_no_longer_apply_are_removed() -> None:
    base = {**BASE, "class_weighting": "group", "class_weight_strength": 0.5}
    design = make_one_at_a_time_design(base, {"class_weighting": "none"}, TRANSFER_LEARNING)
    changed = design.configurations["class_weighting=none"]
    assert "class_weight_strength" not in changed
    assert make_fixed_arm("changed", TRANSFER_LEARNING, changed).space.parameters == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_lr": 0.05, "backbone": "resnet50"}, "must change max_lr, but it is 0.05 in design.base too"),
        ({"maxlr": 0.1, "backbone": "resnet50"}, "names 'maxlr', but design.base has no value of it"),
        ({"max_lr": 0.1}, "2 to 8 factors, but got 1"),
    ],
)
def test_bad_changes_are_refused(changes: dict[str, float | str], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make_factorial_design(BASE, changes, TRANSFER_LEARNING)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_lr": 5.0}, "configuration 'x': .*max_lr <= 1.0 must hold, but got 5.0"),
        ({"lr": 5.0}, "configuration 'x': .* has no parameter 'lr'"),
        ({"class_weighting": "group"}, "configuration 'x': the hyperparameter 'class_weight_strength' is missing"),
    ],
)
def test_configuration_that_does_not_fit_the_space_is_named(changed: dict[str, float | str], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make_fixed_arm("x", TRANSFER_LEARNING, {**BASE, **changed})


def test_values_of_a_number_are_compared_by_a_design() -> None:
    with pytest.raises(UserInputError, match=r"'max_lr' is a range of numbers; give it two or more levels"):
        split_into_arms(TRANSFER_LEARNING, "max_lr")
    design = make_one_at_a_time_design(BASE, {"max_lr": 0.1}, TRANSFER_LEARNING)
    arms = [make_fixed_arm(name, TRANSFER_LEARNING, values) for name, values in design.configurations.items()]
    assert [dict(arm.space.fixed)["max_lr"] for arm in arms] == [0.05, 0.1]


def test_value_that_the_space_fixes_may_be_given_again() -> None:
    space = TRANSFER_LEARNING.with_fixed({"interpolation": "bicubic"})
    assert make_fixed_arm("x", space, BASE).space.fixed == tuple(sorted(BASE.items()))
    with pytest.raises(UserInputError, match="interpolation is fixed at 'bicubic', but got 'bilinear'"):
        make_fixed_arm("x", space, {**BASE, "interpolation": "bilinear"})

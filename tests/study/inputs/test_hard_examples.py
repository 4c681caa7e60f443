"""Batches of hard examples in a spec: checked against its images before the launch, over all values that trials may take."""

import functools
import re

import pytest

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.inputs.preparation import Prepared, assemble, check_hard_examples, load_split_images
from study.spec.reading import parse_spec
from study.spec.study_spec import StudySpec
from trainables.data.images import ImageSet
from trainables.data.splits import Splits
from trainables.training.batches import EpochBatches

SPEC = """
name = "small"
[data]
source = "planted"
num_images = 240
[model]
weights = "none"
[train]
image_size = 32
batch_size = 16
{train}
[search]
max_epochs = 4
{search}
[analyze]
groups = {{ pair = ["cross", "bar"], round = ["disc"] }}
"""
OWN = """
[search.space]
hard_fraction = { kind = "categorical", choices = [0.0, 0.25] }
hard_group = { kind = "categorical", choices = ["round", "pair"], when = { hard_fraction = [0.25] } }
hard_from_epoch = { kind = "int", low = 1, high = 3 }
backbone = { kind = "categorical", choices = ["resnet18", "resnet50"] }
"""
VALUES = (
    '{ max_lr = 0.1, backbone_lr_ratio = 0.5, cutmix_probability = 0.0, class_weighting = "none", interpolation = "bicubic", '
    "weight_decay = 1e-4, label_smoothing = 0.0 }"
)
OWN_FIXED = f"fixed = {VALUES}"


@functools.cache
def load_images() -> tuple[ImageSet, Splits]:
    return load_split_images(read("", ""))


def read(train: str, search: str) -> StudySpec:
    return parse_spec(SPEC.format(train=train, search=search), "test")


def check(train: str, search: str = "") -> tuple[StudySpec, Prepared]:
    spec = read(train, search)
    prepared = assemble(spec, *load_images(), "none")
    check_hard_examples(spec, prepared.data, prepared.fixed)
    return spec, prepared


@pytest.mark.parametrize(
    ("train", "search"),
    [
        ("", ""),
        ('hard_group = "nothing"', ""),  # without a fraction no group is used
        ('hard_group = "angular"\nhard_fraction = 0.25', ""),
        ('hard_group = "pair"\nhard_fraction = 0.25\nhard_from_epoch = 4', ""),
        ('hard_group = "pair"', 'factor = "hard_fraction"\nranges = { hard_fraction = [0.0, 0.25] }'),
        ("hard_fraction = 0.25", 'factor = "hard_group"\nranges = { hard_group = ["round", "pair"] }'),
        (
            'hard_group = "pair"',
            "ranges = { hard_fraction = [0.0, 0.5], hard_from_epoch = [1, 4], batch_size = [8, 16] }",
        ),
        ("", f"{OWN_FIXED}{OWN}"),
    ],
)
def test_settings_that_every_trial_can_use_pass_and_make_batches(train: str, search: str) -> None:
    spec, prepared = check(train, search)
    data = prepared.data
    for arm in spec.arms():
        config = TrialConfig(arm=arm.name, seed=0, hyperparameters=spec.middle_settings(arm), fixed=prepared.fixed)
        batches = EpochBatches(config, data, data.splits.train)
        assert batches.num_hard == round(config.number("hard_fraction") * batches.shape.num_batches)
        assert len(batches.of_epoch(4)) == batches.shape.num_batches


@pytest.mark.parametrize(
    ("train", "search", "messages"),
    [
        (
            "hard_fraction = 0.25",
            "",
            ["train.hard_fraction = 0.25 needs train.hard_group, but it is empty; name one of pair, round, angular"],
        ),
        ("hard_fraction = 0.25", 'factor = "hard_group"\nranges = { hard_group = ["", "pair"] }', ["but it is empty"]),
        (
            'hard_fraction = 0.25\nhard_group = "angullar"\nhard_from_epoch = 5',
            "",
            ["no group of classes 'angullar' (did you mean 'angular'?)", "<= max_epochs (4) must hold, but got 5"],
        ),
        (
            'hard_group = "pair"',
            "ranges = { hard_fraction = [0.25, 1.0], batch_size = [4, 64] }",
            [
                "train.hard_fraction = 1 leaves no batch",
                "train.hard_fraction = 0.25 leaves no batch",
                "batches per epoch: 1;",
            ],
        ),
        (
            'hard_group = "angular"\nhard_fraction = 0.25',
            'factor = "batch_size"\nranges = { batch_size = [4, 8] }',
            ["an image of each of its 5 classes, but has 4 images"],
        ),
        ("", f"{OWN_FIXED}{OWN.replace('pair', 'pairs')}", ["no group of classes 'pairs' (did you mean 'pair'?)"]),
        ("", f"{OWN_FIXED}{OWN.replace('high = 3', 'high = 9')}", ["<= max_epochs (4) must hold, but got 9"]),
    ],
)
def test_settings_that_some_trial_cannot_use_are_refused_at_once(train: str, search: str, messages: list[str]) -> None:
    with pytest.raises(UserInputError) as refused:
        check(train, search)
    for message in messages:
        assert str(refused.value).count(message) >= 1
    assert len(set(re.split("; ", str(refused.value)))) >= len(messages)


def test_a_given_configuration_is_checked_too() -> None:
    base = VALUES.replace("{", '{ backbone = "resnet18",')
    design = f'[design]\nkind = "one_at_a_time"\nbase = {base}\nchanges = {{ hard_fraction = 0.25 }}\n'
    check('hard_group = "pair"', design)
    with pytest.raises(UserInputError, match=r"hard_fraction = 0\.25 needs train\.hard_group"):
        check("", design)


def test_groups_of_the_data_set_stand_before_those_of_the_analysis() -> None:
    _, prepared = check("")
    assert prepared.data.class_groups["pair"] == ("cross", "bar")
    assert prepared.data.class_groups["round"] == ("disc", "ring", "ellipse", "crescent", "dumbbell")

"""The data of a spec: images, splits, weights, and the fixed settings of every trial."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.confusions.class_scores import list_group_problems
from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError, list_some, refuse_any
from search_spaces.settings import BUILT_IN_LOOP, TuningSettings
from search_spaces.space import SearchSpace
from study.inputs.human_labels import load_human_shares
from study.spec.named_extensions import check_trust, list_packages
from study.spec.setting_places import SETTINGS
from study.spec.study_spec import StudySpec, list_backbone_configs
from trainables.data.image_array import LazyImages
from trainables.data.image_audit import check_image_set, drop_leaks
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import ImageSet, SkippedFile
from trainables.data.near_duplicates import group_near_duplicates
from trainables.data.sources import decoding_names, load_image_set
from trainables.data.splits import Splits, make_splits
from trainables.models.backbones import build_model, check_input_size
from trainables.models.weights import find_local_path, find_weights_file
from trainables.training.batches import compute_class_weights, list_hard_problems
from trainables.training.head_refit import list_refit_problems
from trainables.training.trainable import list_unread
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import try_trainable

DEFAULT_TEST_FRACTION = 0.2
# Arguments of a source that are no options of it.
ELSEWHERE = {
    "path": "set data.path instead",
    "seed": "the seed is that of the study",
    "source": "set data.source instead",
    "memory_budget": "set resources.image_memory_gb instead",
}
# The settings that determine which batches of hard examples an epoch has, and whether the head is fitted anew.
CHECKED = ("hard_group", "hard_fraction", "hard_from_epoch", "batch_size", "accumulate", "max_epochs", "head_refit")
DECODING_ADVICE = "set train.image_size, data.aspect and data.on_bad_image instead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The data of a spec.

    Attributes:
        image_set: all images.
        splits: train, search, confirm and test.
        data: images, labels and splits for the trials, to be put into the object store.
        fixed: `TrialConfig.fixed` of every trial.
        weights: absolute path of the pretrained weights, or "none" or "imagenet".
        packages: that the spec's backbones, source, sampler and training loops come from, such as timm.
    """

    image_set: ImageSet
    splits: Splits
    data: TrialData
    fixed: dict[str, Value]
    weights: str
    packages: tuple[str, ...]


def image_set_of(data: TrialData) -> ImageSet:
    """Return the images of a study as a task gets them, without their origin and masks."""
    return ImageSet(images=data.images, labels=data.labels, class_names=data.class_names, source="", groups=data.groups)


def prepare(spec: StudySpec, loaded: tuple[ImageSet, Splits] | None = None) -> Prepared:
    """Return the checked data and weights of a spec; raise UserInputError for the first problem.

    Args:
        spec: the spec.
        loaded: its images and splits, see `load_split_images`; None to load them.
    """
    check_trust(spec)
    weights = locate_weights(spec.model.weights)
    image_set, splits = loaded or load_split_images(spec)
    check_image_set(image_set, splits)
    check_folds(spec.confirm.folds, image_set, splits)
    prepared = assemble(spec, image_set, splits, weights)
    check_models(spec, prepared)
    if spec.analyze.human_counts is not None:
        load_human_shares(spec.analyze.human_counts, image_set)
    return prepared


class FoldsError(UserInputError):
    """The test split cannot be divided into as many folds as a spec asks for."""


def check_folds(number: int, image_set: ImageSet, splits: Splits) -> None:
    """Check that the test split can be divided into so many folds (0: it is not).

    Raises:
        FoldsError: if the test set is a published one, which no trial may train on, or naming the classes that have too few
            images, or groups of images, for one in each fold.
    """
    if not number:
        return
    if image_set.official_test is not None:
        raise FoldsError(
            f"confirm.folds = {number} trains on a part of the test images, but the test set of {image_set.source!r} is a "
            "published one, which no trial may train on; set confirm.folds = 0"
        )
    test, groups = splits.test, image_set.units
    units, what = (test, "test images") if groups is None else (groups[test], "groups of test images")
    counts = [len(np.unique(units[image_set.labels[test] == label])) for label in range(image_set.num_classes)]
    few = [f"{name} ({n})" for name, n in zip(image_set.class_names, counts, strict=True) if n < number]
    if few:
        raise FoldsError(
            f"confirm.folds = {number} needs as many {what} of each class, but these have fewer: {list_some(few)}; lower it, or "
            "raise data.test_fraction"
        )


def load_split_images(spec: StudySpec) -> tuple[ImageSet, Splits]:
    """Return the spec's images and splits; raise UserInputError if they cannot be loaded or split."""
    image_set = find_near_duplicate_groups(spec, load_images(spec))
    splits, leaks = make_spec_splits(spec, image_set)
    if leaks and image_set.origin is not None:
        origin = replace(image_set.origin, skipped=image_set.origin.skipped + leaks)
        image_set = replace(image_set, origin=origin)
    return image_set, splits


def assemble(spec: StudySpec, image_set: ImageSet, splits: Splits, weights: str) -> Prepared:
    """Return the data of a spec from its images, their splits and the location of its weights; nothing is checked."""
    return Prepared(
        image_set=image_set,
        splits=splits,
        data=TrialData(
            images=image_set.images,
            labels=image_set.labels,
            splits=splits,
            class_names=image_set.class_names,
            class_groups={**spec.analyze.groups, **image_set.class_groups},
            groups=image_set.units,
            reload=functools.partial(load_images, spec),
        ),
        fixed=fixed_settings(spec, splits, weights),
        weights=weights,
        packages=list_packages(spec),
    )


def find_near_duplicate_groups(spec: StudySpec, image_set: ImageSet) -> ImageSet:
    """Return the images with their near-duplicates; as they are with `data.near_duplicates = "ignore"`."""
    if spec.data.near_duplicates == "ignore":
        return image_set
    return replace(image_set, near_duplicates=group_near_duplicates(image_set.images))


def make_spec_splits(spec: StudySpec, image_set: ImageSet) -> tuple[Splits, tuple[SkippedFile, ...]]:
    """Return the spec's splits of its images; raise UserInputError if a fraction or number does not fit them.

    With `data.on_bad_image = "skip"` they lack the training images that also occur in another split, which come with them.
    """
    test_fraction = spec.data.test_fraction
    if test_fraction is None and image_set.official_test is None:
        test_fraction = DEFAULT_TEST_FRACTION
    splits = make_splits(
        image_set,
        seed=spec.seed,
        search_fraction=spec.data.search_fraction,
        confirm_fraction=spec.data.confirm_fraction,
        test_fraction=test_fraction,
        num_test_images=spec.data.num_test_images,
    )
    return drop_leaks(image_set, splits) if spec.data.on_bad_image == "skip" else (splits, ())


def load_images(spec: StudySpec, memory_budget: ImageMemoryBudget | None = None) -> ImageSet:
    """Return the spec's images, with its memory budget or the given one; raise UserInputError if they cannot be loaded."""
    options = dict(spec.data.options)
    if spec.data.num_images is not None:
        options["num_images"] = spec.data.num_images
    if spec.data.group is not None:
        options["group"] = spec.data.group
    decoding = decoding_names(spec.data.source)
    set_elsewhere = {**dict.fromkeys(decoding, DECODING_ADVICE), **ELSEWHERE}
    clashing = [name for name in spec.data.options if name in set_elsewhere]
    if clashing:
        advice = dict.fromkeys(set_elsewhere[name] for name in clashing)
        raise UserInputError(f"data.options has {', '.join(clashing)}; {'; '.join(advice)}")
    values = {
        "image_size": max(int(size) for size in spec.setting_values("image_size")),
        "aspect": spec.data.aspect,
        "on_bad_image": spec.data.on_bad_image,
    }
    options |= {name: values[name] for name in decoding}
    memory_budget = memory_budget or spec.resources.image_memory_budget
    found = load_image_set(spec.data.source, spec.data.path, seed=spec.seed, memory_budget=memory_budget, **options)
    if memory_budget.streams and not isinstance(found.images, LazyImages):
        raise UserInputError(
            f'resources.images = "streamed" needs a source that decodes files, but the images of {spec.data.source!r} are in '
            'memory; set resources.images = "stored"'
        )
    return found


def fixed_settings(spec: StudySpec, splits: Splits, weights: str) -> dict[str, Value]:
    """Return the settings that all trials share: those that do not vary, and the identity of data and weights."""
    settings: dict[str, Value] = dict(spec.train.model_dump())
    settings |= {
        "max_epochs": spec.search.max_epochs,
        **{name: getattr(spec.model, name) for name in TuningSettings.model_fields},
        "model_arguments": json.dumps(spec.model.arguments, sort_keys=True),
        "weights": weights_identity(weights),
        "data": splits.fingerprint,
    }
    varied = spec.varied_settings
    return {name: value for name, value in settings.items() if name not in varied}


def locate_weights(weights: str) -> str:
    """Return the absolute path of a local file or folder; raise UserInputError if it does not exist."""
    if weights in {"none", "imagenet"}:
        return weights
    path = find_local_path(weights)
    if not path.exists():
        raise UserInputError(
            f'model.weights must be "imagenet", "none", a file, or a folder with one <backbone>.pt or .safetensors each, '
            f"but there is no {path}"
        )
    return str(path.resolve())


def weights_identity(weights: str) -> str:
    """Return the identity of the weights, independent of their location: "none", "imagenet", or a hash of the content."""
    path = Path(weights)
    if weights in {"none", "imagenet"}:
        return weights
    files = (
        [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in {".pt", ".pth", ".safetensors"})
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() if path.is_dir() else b"")
        digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def check_models(spec: StudySpec, prepared: Prepared) -> None:
    """Build every backbone of the space once, with its weights, and try every custom training loop on a few images.

    Raises:
        UserInputError: if a backbone cannot be built, for everything that is wrong with a custom loop, or if a group of
            classes cannot be weighted or made into batches of hard examples.
    """
    _check_own_loops(spec, prepared.data, prepared.fixed)
    named = set(map(str, spec.setting_values("backbone")))
    unused = [name for name, value in spec.model.arguments.items() if isinstance(value, dict) and name not in named]
    if unused:
        raise UserInputError(
            f"model.arguments has tables of {', '.join(unused)}, but the backbones of the study are {', '.join(sorted(named))}; "
            "name one of them"
        )
    for arm in spec.arms():
        for config in list_backbone_configs(arm, spec.middle_settings(arm), prepared.fixed):
            find_weights_file(config.word("backbone"), prepared.weights)
            any_arm = replace(config, arm="any").canonical_json()
            _check_model(any_arm, prepared.image_set.num_classes, prepared.weights)
        if "group" in arm.space.values_of("class_weighting"):
            for group in arm.space.values_of("weighted_group") or (spec.constant_value("weighted_group"),):
                _check_group_weights(prepared, group)
    check_hard_examples(spec, prepared.data, prepared.fixed)


@functools.lru_cache(maxsize=256)
def _check_model(config_json: str, num_classes: int, weights: str) -> None:
    """Build a model and pass an image through it; once per process, which prepares a study and its rounds again and again."""
    config = TrialConfig.from_json(config_json)
    check_input_size(config, build_model(config, num_classes, weights=weights))


def _check_own_loops(spec: StudySpec, data: TrialData, fixed: Mapping[str, Value]) -> None:
    loops = {arm.name: (arm, name) for arm in spec.arms() for name in spec.trainables_of(arm) if name != BUILT_IN_LOOP}
    problems = []
    for arm, name in loops.values():
        # What [train] sets for all arms may be meant for the others.
        constant = [n for n in dict(arm.space.fixed) if n in SETTINGS and SETTINGS[n].section]
        given = [n for n in (*arm.space.names, *dict(arm.space.fixed)) if n not in constant]
        problems += [f"the arm {arm.name!r}: {problem}" for problem in list_unread(name, given)]
    refuse_any(problems)
    for arm, _ in loops.values():
        try_trainable(TrialConfig(arm=arm.name, seed=0, hyperparameters=arm.space.middle(), fixed=fixed), data)


def check_class_groups(spec: StudySpec, image_set: ImageSet) -> None:
    """Check that the groups of `[analyze]` are groups of the images' classes.

    Raises:
        UserInputError: listing empty groups, classes that do not exist, and classes in two groups.
    """
    groups = spec.analyze.groups
    problems = [f"the group {group!r} is empty" for group, classes in groups.items() if not classes]
    problems += list_group_problems(groups, image_set.class_names)
    if problems:
        raise UserInputError(f"analyze.groups: {'; '.join(problems)}")


def _check_group_weights(prepared: Prepared, group: Value) -> None:
    hyperparameters: dict[str, Value] = {
        "class_weighting": "group",
        "class_weight_strength": 1.0,
        "weighted_group": group,
    }
    fixed = {name: value for name, value in prepared.fixed.items() if name != "weighted_group"}
    config = TrialConfig(arm="check", seed=0, hyperparameters=hyperparameters, fixed=fixed)
    compute_class_weights(config, prepared.data, prepared.splits.train)


def check_hard_examples(spec: StudySpec, data: TrialData, fixed: dict[str, Value]) -> None:
    """Check that every batch of hard examples and every new head which the trials of a spec may ask for can be made.

    Args:
        spec: the spec.
        data: its images, labels and splits.
        fixed: `TrialConfig.fixed` of its trials.

    Raises:
        UserInputError: listing all problems of `list_hard_problems` and `list_refit_problems`, over the choices and the ends of
            the ranges.
    """
    problems: dict[str, None] = {}
    for arm in spec.arms():
        for values in _list_combinations(arm.space):
            config = TrialConfig(arm=arm.name, seed=0, hyperparameters=values, fixed=fixed)
            found = list_hard_problems(config, data, data.splits.train)
            found += list_refit_problems(config.word("head_refit"), data, has_folds=spec.confirm.folds > 0)
            problems |= dict.fromkeys(found)
    refuse_any(problems)


def _list_combinations(space: SearchSpace) -> list[dict[str, Value]]:
    """Return the combinations of the values that the settings take in a space, and of the parents of their conditions."""
    wanted = {*CHECKED}
    for parameter in reversed(space.parameters):
        if parameter.name in wanted and parameter.condition is not None:
            wanted.add(parameter.condition.parent)
    found: list[dict[str, Value]] = [{name: value for name, value in space.fixed if name in wanted}]
    for parameter in space.parameters:
        if parameter.name in wanted:
            own: list[dict[str, Value]] = [{parameter.name: value} for value in space.values_of(parameter.name)]
            found = [chosen | more for chosen in found for more in (own if parameter.applies(chosen) else [{}])]
    return found

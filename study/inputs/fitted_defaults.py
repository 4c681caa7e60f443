"""Defaults that fit the data: what a new study's spec leaves out and what its images would refuse or make pointless.

They are fitted once, before the launch, and written into the text that becomes the study's spec.toml: a study keeps what it was
launched with. What the spec gives is never changed.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.space import CategoricalParameter
from study.inputs.preparation import Prepared, load_split_images, locate_weights, prepare
from study.spec.reading import validate_spec
from study.spec.study_spec import StudySpec
from study.state.budget_extensions import launched_spec
from study.state.paths import open_study
from trainables.data.images import ImageSet
from trainables.data.splits import Splits

# Below this ratio of the largest class to the smallest, weights by inverse frequency differ by less than a fifth between classes
# at full strength, so that searching them spends trials on configurations that are nearly the same.
MAX_BALANCED_RATIO = 1.2
MIN_STEPS_PER_EPOCH = 8
MIN_BATCH_SIZE = 8
WEIGHTING, STRENGTH = "class_weighting", "class_weight_strength"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSpec:
    """A spec whose missing values fit its images.

    Attributes:
        spec: the spec.
        notes: a line for each fitted value, with its reason.
    """

    spec: StudySpec
    notes: tuple[str, ...]


def fit_and_prepare(spec: StudySpec, text: str, storage: str | None = None) -> tuple[FittedSpec, Prepared]:
    """Fit the defaults of a new study's spec to its images, and prepare it.

    Args:
        spec: see `study.spec.reading.load_spec`.
        text: its TOML text, also as in `load_spec`.
        storage: the storage root of the study that `search.warm_start` names, whose space the new study must have.

    Raises:
        UserInputError: for the first problem of data or weights.
    """
    earlier = spec.search.warm_start
    warm_start = None if earlier is None else launched_spec(open_study(earlier, storage))
    locate_weights(spec.model.weights)
    image_set, splits = load_split_images(spec)
    fitted = fit_defaults(spec, text, image_set, splits, warm_start)
    return fitted, prepare(fitted.spec, (image_set, splits))


def fit_defaults(
    spec: StudySpec, text: str, image_set: ImageSet, splits: Splits, warm_start: StudySpec | None = None
) -> FittedSpec:
    """Return the spec with a batch size and choices of `class_weighting` that fit the images, where `text` gives none.

    Args:
        spec: the spec.
        text: its TOML text.
        image_set: its images.
        splits: of the images.
        warm_start: the spec of the study that `search.warm_start` names; its class weightings are taken over.
    """
    data = tomllib.loads(text)
    counts = np.bincount(image_set.labels[splits.train], minlength=image_set.num_classes).tolist()
    notes = _fit_batch_size(spec, data, sum(counts))
    if not spec.has_given_arms and WEIGHTING not in {*spec.search.ranges, *spec.search.fixed}:
        if warm_start is None:
            notes += _fit_weighting(spec, data, counts, image_set.class_groups)
        else:
            notes += _adopt_weighting(data, warm_start)
    if not notes:
        return FittedSpec(spec=spec, notes=())
    return FittedSpec(spec=validate_spec(data, where=spec.name), notes=tuple(notes))


def choose_batch_size(default: int, num_train: int) -> int:
    """Return the default, or the largest power of two for which an epoch has eight steps or more.

    At least 8, unless there are fewer training images; then the largest power of two that they fill, and at least 2.
    """
    wanted = max(num_train // MIN_STEPS_PER_EPOCH, min(MIN_BATCH_SIZE, num_train), 2)
    return min(default, 1 << (wanted.bit_length() - 1))


def list_weightings(class_counts: Sequence[int], *, has_group: bool) -> tuple[str, ...]:
    """Return the class weightings that are worth a search.

    Args:
        class_counts: number of training images of each class.
        has_group: whether a named group of classes is to be weighted.
    """
    is_balanced = max(class_counts) < MAX_BALANCED_RATIO * min(class_counts)
    return ("none", *(() if is_balanced else ("inverse_frequency",)), *(("group",) if has_group else ()))


def _fit_batch_size(spec: StudySpec, data: dict[str, Any], num_train: int) -> list[str]:
    default = spec.train.batch_size
    chosen = choose_batch_size(default, num_train)
    if "batch_size" in data.get("train", {}) or "batch_size" in spec.varied_settings or chosen == default:
        return []
    data.setdefault("train", {})["batch_size"] = chosen
    return [f"train.batch_size = {chosen} instead of {default}, because there are {num_train:,} training images"]


def _fit_weighting(
    spec: StudySpec, data: dict[str, Any], class_counts: Sequence[int], class_groups: Mapping[str, Sequence[str]]
) -> list[str]:
    parameter = next((p for p in spec.search_space().parameters if p.name == WEIGHTING), None)
    if not isinstance(parameter, CategoricalParameter):
        return []
    fitting = list_weightings(class_counts, has_group=any(spec.setting_values("weighted_group")))
    if spec.search.factor == WEIGHTING or STRENGTH in {*spec.search.ranges, *spec.search.fixed, *spec.search.prior}:
        fitting = (*fitting, "inverse_frequency")
    fitting = (*fitting, *(str(start[WEIGHTING]) for start in spec.search.start or () if WEIGHTING in start))
    choices = [choice for choice in parameter.choices if choice in fitting]
    if len(choices) in (0, len(parameter.choices)):
        return []
    kind, value = ("fixed", choices[0]) if len(choices) == 1 else ("ranges", choices)
    data.setdefault("search", {}).setdefault(kind, {})[WEIGHTING] = value
    reasons = {
        "group": "train.weighted_group names no group of classes"
        if class_groups
        else "the images describe no groups of classes",
        "inverse_frequency": f"the classes are balanced ({max(class_counts)} to {min(class_counts)} training images)",
    }
    left_out = [reasons[str(choice)] for choice in parameter.choices if choice not in fitting]
    return [f"search.{kind}.{WEIGHTING} = {json.dumps(value)}, because {' and '.join(left_out)}"]


def _adopt_weighting(data: dict[str, Any], earlier: StudySpec) -> list[str]:
    """Take over the class weightings of the study of the warm start."""
    for kind, values in (("ranges", earlier.search.ranges), ("fixed", earlier.search.fixed)):
        if WEIGHTING in values:
            data.setdefault("search", {}).setdefault(kind, {})[WEIGHTING] = values[WEIGHTING]
            return [f"search.{kind}.{WEIGHTING} = {json.dumps(values[WEIGHTING])}, as in {earlier.name}"]
    return []

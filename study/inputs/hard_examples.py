"""The check of a spec's batches of hard examples against its images, before anything is launched."""

import numpy as np

from search_spaces.config import TrialConfig, Value
from search_spaces.errors import UserInputError
from search_spaces.space import SearchSpace
from study.spec.study_spec import StudySpec
from trainables.training.batches import list_hard_problems
from trainables.training.trial_data import TrialData

# The settings that determine which batches of hard examples an epoch has.
NAMES = ("hard_group", "hard_fraction", "hard_from_epoch", "batch_size", "accumulate", "max_epochs")


def check_hard_examples(spec: StudySpec, data: TrialData, fixed: dict[str, Value]) -> None:
    """Check that every batch of hard examples which the trials of a spec may ask for can be made.

    Args:
        spec: the spec.
        data: its images, labels and splits.
        fixed: `TrialConfig.fixed` of its trials.

    Raises:
        UserInputError: listing all problems of `list_hard_problems`, over the choices and the ends of the ranges.
    """
    counts = np.bincount(data.labels[data.splits.train], minlength=len(data.class_names))
    problems: dict[str, None] = {}
    for arm in spec.arms():
        for values in _list_combinations(arm.space):
            config = TrialConfig(arm=arm.name, seed=0, hyperparameters=values, fixed=fixed)
            found = list_hard_problems(config, counts, data.class_names, data.class_groups)
            problems |= dict.fromkeys(found)
    if problems:
        raise UserInputError("; ".join(problems))


def _list_combinations(space: SearchSpace) -> list[dict[str, Value]]:
    """Return the combinations of the values that the settings take in a space, and of the parents of their conditions."""
    wanted = {*NAMES}
    for parameter in reversed(space.parameters):
        if parameter.name in wanted and parameter.condition is not None:
            wanted.add(parameter.condition.parent)
    found: list[dict[str, Value]] = [{name: value for name, value in space.fixed if name in wanted}]
    for parameter in space.parameters:
        if parameter.name in wanted:
            own: list[dict[str, Value]] = [{parameter.name: value} for value in space.values_of(parameter.name)]
            found = [chosen | more for chosen in found for more in (own if parameter.applies(chosen) else [{}])]
    return found

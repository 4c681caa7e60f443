"""What a preset of the augmentation means for a spec: which keys it excludes, and what it fixes in the spaces of the arms."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from search_spaces.arms import Arm
from study.spec.sections import TrainSpec
from trainables.data.augmentation.presets import DEFAULT, PRESET_KEYS, PRESETS

WORD = "augmentation"


def fix_what_presets_set(arm: Arm, train: TrainSpec, given: Collection[str]) -> Arm:
    """Return the arm with the parameters fixed that its preset sets, such as CutMix, except those that the spec gives itself.

    So "none" is no augmentation, and no parameter of its preset is searched, in an arm whose space has `cutmix_probability`.

    Args:
        arm: An arm of a search.
        train: The training settings that all trials share.
        given: Names of the parameters that the spec gives: in `search.ranges`, in `search.fixed`, or as the factor.
    """
    words = _list_words(arm, train)
    if len(words) > 1:
        return arm
    values = PRESETS[words[0]]
    chosen = {name: values[name] for name in arm.space.names if name in values and name not in given}
    return replace(arm, space=arm.space.with_fixed(chosen))


def list_excluded_keys(train: TrainSpec, arms: Sequence[Arm], given: Iterable[str]) -> list[str]:
    """Return a message if [train] gives keys that no arm uses, because the presets of all arms set them; else an empty list.

    Args:
        train: The training settings that all trials share.
        arms: The arms of the study.
        given: Keys of [train] that the spec gives.
    """
    words = list(dict.fromkeys(word for arm in arms for word in _list_words(arm, train)))
    if not words or DEFAULT in words:
        return []
    excluded = ", ".join(f"train.{name}" for name in given if name in PRESET_KEYS)
    choice = " and ".join(f'"{word}"' for word in words)
    message = (
        f'augmentation {choice} sets every key of the augmentation; remove {excluded}, or use augmentation "{DEFAULT}"'
    )
    return [message] if excluded else []


def _list_words(arm: Arm, train: TrainSpec) -> list[str]:
    """Return the presets that the trials of an arm may have."""
    fixed = dict(arm.space.fixed)
    if WORD in arm.space.names:
        return [str(choice) for choice in getattr(arm.space[WORD], "choices", ())]
    return [str(fixed.get(WORD, train.augmentation))]

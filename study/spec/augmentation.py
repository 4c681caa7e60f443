"""What a preset of the augmentation means for a spec: which keys it excludes, and what it fixes in the spaces of the arms."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from search_spaces.arms import Arm
from search_spaces.config import Value
from trainables.data.augmentation.presets import DEFAULT, PRESET_KEYS, PRESETS


def fix_what_presets_set(arm: Arm, words: Sequence[Value], given: Collection[str]) -> Arm:
    """Return the arm with the parameters fixed that its preset sets, such as CutMix, except those that the spec gives itself.

    So "none" is no augmentation, and no parameter of its preset is searched, in an arm whose space has `cutmix_probability`.

    Args:
        arm: An arm of a search.
        words: The presets that its trials may have.
        given: Names of the parameters that the spec gives: in `search.ranges`, in `search.fixed`, or as the factor.
    """
    if len(words) > 1:
        return arm
    values = PRESETS[str(words[0])]
    chosen = {name: values[name] for name in arm.space.names if name in values and name not in given}
    return replace(arm, space=arm.space.with_fixed(chosen))


def list_excluded_keys(words: Sequence[Value], given: Iterable[str]) -> list[str]:
    """Return a message if [train] gives keys that no arm uses, because the presets of all arms set them; else an empty list.

    Args:
        words: The presets of the arms of the study.
        given: Keys of [train] that the spec gives.
    """
    if DEFAULT in words:
        return []
    excluded = ", ".join(f"train.{name}" for name in given if name in PRESET_KEYS)
    choice = " and ".join(f'"{word}"' for word in words)
    message = (
        f'augmentation {choice} sets every key of the augmentation; remove {excluded}, or use augmentation "{DEFAULT}"'
    )
    return [message] if excluded else []

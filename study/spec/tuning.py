"""What `model.tuning` and a preset of the augmentation mean for a spec: which keys they exclude, and what they fix."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from search_spaces.config import Value
from search_spaces.designs import Arm
from search_spaces.settings import DEFAULT_PRESET, PRESET_KEYS, PRESETS, UNMIXED

if TYPE_CHECKING:
    from study.spec.study_spec import StudySpec

TUNING, PROBE = "tuning", "probe"
# What an arm of probes does not use: what features cannot have, and a learning rate of the backbone.
UNUSED: Mapping[str, Value] = MappingProxyType({**UNMIXED, "backbone_lr_ratio": 1.0})


def fix_what_probes_lack(arm: Arm) -> Arm:
    """Return an arm of probes, in which the searched parameters that do nothing are fixed, whatever their ranges are."""
    kept = tuple(parameter for parameter in arm.space.parameters if parameter.name not in UNUSED)
    lacking = {name: UNUSED[name] for name in arm.space.names if name in UNUSED}
    fixed = tuple(sorted({**dict(arm.space.fixed), **lacking}.items()))
    return replace(arm, space=replace(arm.space, parameters=kept, fixed=fixed))


def list_tuning_problems(spec: "StudySpec", arms: Iterable[Arm]) -> list[str]:
    """Return a message for each setting that cached features cannot have, with all arms that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm in arms:
        if PROBE not in (tuning := spec.values_of(arm, TUNING)):
            continue
        for name, nothing in UNMIXED.items():
            if mixes := [value for value in spec.values_of(arm, name) if value != nothing]:
                remedy = f"set {name} to 0" if len(tuning) == 1 else f"make tuning the factor, or set {name} to 0"
                problem = f"trains on features of single images, which {name} = {mixes[-1]:g} cannot mix", remedy
                found.setdefault(problem, []).append(repr(arm.name))
        if (processes := max(spec.processes(arm))) > 1:
            problem = f"trains in one process, but train.processes is {processes}", "set it to 1"
            found.setdefault(problem, []).append(repr(arm.name))
    return [
        f'tuning = "{PROBE}" of {"the arm" if len(names) == 1 else "the arms"} {", ".join(names)} {problem}; {remedy}'
        for (problem, remedy), names in found.items()
    ]


def describe_untrained(spec: "StudySpec") -> list[str]:
    """Return a sentence for each arm that relies on features of a backbone without pretrained weights."""
    if spec.model.weights != "none":
        return []
    return [
        f"the arm {arm.name!r} relies on features of an untrained backbone, because model.weights is none; set it to imagenet, "
        "a file or a folder, unless the backbone brings its own weights"
        for arm in spec.arms()
        if {*spec.values_of(arm, TUNING)} - {"full"} or PROBE in spec.values_of(arm, "head_init")
    ]


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
    if DEFAULT_PRESET in words:
        return []
    excluded = ", ".join(f"train.{name}" for name in given if name in PRESET_KEYS)
    choice = " and ".join(f'"{word}"' for word in words)
    message = (
        f"augmentation {choice} sets every key of the augmentation; remove {excluded}, or use augmentation "
        f'"{DEFAULT_PRESET}"'
    )
    return [message] if excluded else []

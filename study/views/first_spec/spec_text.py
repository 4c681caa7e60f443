"""The TOML text of a first spec, with a comment that explains each choice."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from analysis.formats.numbers import format_seconds
from study.inputs.fitted_defaults import STRENGTH, WEIGHTING
from study.inputs.preparation import DEFAULT_TEST_FRACTION
from study.views.first_spec.machine import WeightsChoice
from study.views.first_spec.proposal import ARMS, CONFIRM_FRACTION, MAX_SMALL_SIDE, SEARCH_FRACTION, Proposal
from study.views.first_spec.survey import Survey

MAX_NAME_LENGTH = 64
# Crops of a third of the area, fastai's default, cut defects out of industrial photographs and slow down small studies;
# torchvision's 0.08 is for training on ImageNet from scratch.
CROP_MIN_AREA = 0.7
# Of every first spec, whatever can be decided with it: a margin is what matters to a user.
MARGIN = 0.01
MAX_AUDIT_IMAGES_ON_CPU = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSpec:
    """Everything that the text of a first spec says.

    Attributes:
        name: of the study.
        survey: what was found.
        proposal: sizes, arms and budget.
        weights: the pretrained weights.
        group: see `data.group`; None without groups.
        is_size_given: whether the user chose the image size.
        weightings: the class weightings worth a search.
        skip_reason: why files are skipped; "" to refuse bad files.
    """

    name: str
    survey: Survey
    proposal: Proposal
    weights: WeightsChoice
    group: str | None
    is_size_given: bool
    weightings: Sequence[str]
    skip_reason: str


def make_name(text: str) -> str:
    """Return a valid name of a study, made of the name of a folder or file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:MAX_NAME_LENGTH] or "images"


def write_spec_text(first: FirstSpec) -> str:
    """Return the text of the spec."""
    parts = (_head, _data, _model, _train, _search, _confirm, _rest)
    return "\n".join(line for part in parts for line in [*part(first), ""]).rstrip() + "\n"


def _head(first: FirstSpec) -> list[str]:
    return [
        f"# Written by `study init {PurePath(first.survey.path).name}`. Every value may be changed; a key that is left out has a "
        "default.",
        f"# Estimate for {first.proposal.machine.describe()}: about {format_seconds(first.proposal.seconds)} of training.",
        f"name = {json.dumps(first.name)}",
        "seed = 0",
    ]


def _data(first: FirstSpec) -> list[str]:
    survey, proposal = first.survey, first.proposal
    lines = [
        "[data]",
        f"# {survey.layout}: {survey.num_images:,} images of {len(survey.class_names)} classes.",
        f'source = "{survey.source}"',
        f"path = {json.dumps(str(survey.path), ensure_ascii=False)}",
    ]
    if first.group is not None:
        lines += ["# Images of one group stay in one split.", f"group = {json.dumps(first.group, ensure_ascii=False)}"]
    if proposal.num_images is not None:
        lines += [
            "# A stratified part of the images outside the test set, because all of them take longer than was asked for.",
            f"num_images = {proposal.num_images}",
        ]
    if "validation" in survey.class_counts:
        lines += ["# The published validation images select: one half in the search, the other to confirm."]
    else:
        lines += [
            "# Shares of the images on which the search selects configurations, and on which they are ranked again."
        ]
        lines += [f"search_fraction = {SEARCH_FRACTION}", f"confirm_fraction = {CONFIRM_FRACTION}"]
    if "test" in survey.class_counts:
        lines += ["# The published test images are the test set, which is read for the final comparison alone."]
    else:
        lines += [
            "# Share of the images that is set aside as the test set, which is read for the final comparison alone."
        ]
        lines += [f"test_fraction = {DEFAULT_TEST_FRACTION}"]
    if first.skip_reason:
        lines += [f"# {first.skip_reason}", '# "refuse" stops and lists them instead.', 'on_bad_image = "skip"']
    return lines


def _model(first: FirstSpec) -> list[str]:
    return [
        "[model]",
        f"# {first.weights.reason}",
        f"weights = {json.dumps(first.weights.weights, ensure_ascii=False)}",
    ]


def _train(first: FirstSpec) -> list[str]:
    proposal, survey = first.proposal, first.survey
    lines = ["[train]"]
    if survey.native_side == proposal.image_size:
        lines += ["# The images' own size: they are stored and trained on as they are."]
    else:
        where = "a GPU" if proposal.machine.num_gpus else "a CPU; pretrained weights do better at 224, on a GPU"
        why = "As given" if first.is_size_given else f"{proposal.image_size} is what the time allows on {where}"
        lines += [f"# Side of the model's input in pixels. {why}."]
        side = survey.stored_side(proposal.image_size)
        how = "as they are" if survey.native_side else "shorter side resized, then center crop"
        lines += [f"# The images are stored at {side} px, {how}."]
    lines += [
        f"image_size = {proposal.image_size}",
        "# Images per step; a small set takes small batches, so that an epoch has several steps.",
        f"batch_size = {proposal.batch_size}",
    ]
    if takes_crops(survey):
        lines += [
            "# Training images are random crops of at least this share of the area; smaller ones may cut off a defect.",
            f"crop_min_area = {CROP_MIN_AREA}",
        ]
    return [
        *lines,
        "# Set it to 0.0 where left and right differ, as in text.",
        "flip_probability = 0.5",
        "# Angles are uniform in +- this value.",
        f"rotation_degrees = {10.0 if takes_crops(survey) else 0.0}",
    ]


def _search(first: FirstSpec) -> list[str]:
    proposal = first.proposal
    ranges: dict[str, object] = {
        "max_lr": [0.003, 0.1],
        "backbone_lr_ratio": [0.1, 1.0],
        "cutmix_probability": [0.0, 0.5],
        "weight_decay": [1e-5, 1e-3],
        "label_smoothing": [0.0, 0.1],
    }
    fixed: dict[str, object] = {}
    reasons = []
    if proposal.factor != "backbone":
        ranges[proposal.factor] = list(ARMS[proposal.factor])
        fixed["backbone"] = "resnet18"
    if proposal.factor == WEIGHTING or len(first.weightings) > 1:
        ranges.setdefault(WEIGHTING, [*first.weightings[1:], *first.weightings[:1]])
        ranges[STRENGTH] = [0.5, 1.0]
    else:
        fixed[WEIGHTING] = first.weightings[0]
        reasons.append("# Class weights change little where the classes are balanced.")
    lines = [
        "[search]",
        f"# The A/B factor: {proposal.describe_arms()}",
        f"factor = {json.dumps(proposal.factor)}",
        f"# Of both arms together: {proposal.describe_trials()}.",
        f"num_trials = {proposal.num_trials}",
        *([f"max_trials_per_arm = {proposal.trials_of_probe}"] if proposal.trials_of_probe else []),
        f"# {proposal.describe_steps()}.",
        f"max_epochs = {proposal.max_epochs}",
        "",
        f"# Narrower than the whole space, which {proposal.num_trials} trials cannot search.",
        "[search.ranges]",
        *_rows(ranges),
    ]
    if first.survey.native_side == proposal.image_size:
        fixed["interpolation"] = "bicubic"
        reasons.append("# Nothing is interpolated at the images' own size.")
    return [*lines, "", *reasons, "[search.fixed]", *_rows(fixed)] if fixed else lines


def _confirm(first: FirstSpec) -> list[str]:
    budget = first.proposal.budget
    return [
        "[confirm]",
        "# Candidates of each arm that are ranked on new seeds before the comparison.",
        f"top_k = {budget.top_k}",
        "# Paired seeds; after each look, what is decided gets no more of them.",
        f"looks = {list(budget.looks)}",
        "# A difference in macro-F1 below it does not matter: the arms count as equal. Set what matters to you, not what can be",
        "# decided: `study init` prints the chance to decide twice the margin, and `study plan --pilot 3` measures it.",
        f"margin = {MARGIN}",
    ]


def _rest(first: FirstSpec) -> list[str]:
    machine = first.proposal.machine
    lines = []
    if not machine.num_gpus:
        lines += ["[analyze]", "# Test images of the audits, which take a while on a CPU."]
        lines += [f"num_audit_images = {MAX_AUDIT_IMAGES_ON_CPU}", ""]
    lines += ["[resources]", f"# Of one trial; {machine.num_at_once} run at once on {machine.describe()}."]
    lines += [f"cpu = {machine.cpu_per_trial}", f"gpu = {machine.gpu_per_trial}"]
    return lines


def takes_crops(survey: Survey) -> bool:
    """Return whether the images are photographs, of which training takes random crops, and not small squares."""
    return survey.median_short_side > MAX_SMALL_SIDE


def _rows(table: Mapping[str, object]) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in table.items()]

"""The TOML text of a first spec, with a comment that explains each choice."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from analysis.report.rendering import render
from study.inputs.fitted_defaults import WEIGHTING
from study.views.first_spec.machine import WeightsChoice
from study.views.first_spec.proposal import ARMS, MAX_SMALL_SIDE, Proposal, list_fractions
from study.views.first_spec.survey import Survey
from trainables.data.images import Aspect

MAX_NAME_LENGTH = 64
# Crops of a third of the area, fastai's default, cut defects out of industrial photographs and slow down small studies;
# torchvision's 0.08 is for training on ImageNet from scratch.
CROP_MIN_AREA = 0.7
# Of every first spec, whatever can be decided with it: a margin is what matters to a user.
MARGIN = 0.01
MAX_AUDIT_IMAGES_ON_CPU = 400
# How images become squares, by data.aspect.
SQUARED: Mapping[Aspect, str] = {
    "crop": "shorter side resized, then center crop",
    "pad": "longer side resized, then padded to a square",
    "squash": "both sides resized",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSpec:
    """Everything that the text of a first spec says.

    Attributes:
        name: of the study.
        survey: what was found.
        proposal: sizes, arms and budget.
        weights: the pretrained weights.
        group: see `data.group`; None without groups.
        ignores_near_duplicates: see `data.near_duplicates`.
        is_size_given: whether the user chose the image size.
        weightings: the class weightings worth a search.
        skip_reason: why files are skipped; "" to refuse bad files.
        aspect: see `data.aspect`.
        aspect_reason: how it was chosen, in one sentence; "" where all images are squares.
    """

    name: str
    survey: Survey
    proposal: Proposal
    weights: WeightsChoice
    group: str | None
    ignores_near_duplicates: bool
    is_size_given: bool
    weightings: Sequence[str]
    skip_reason: str
    aspect: Aspect = "crop"
    aspect_reason: str = ""


def make_name(text: str) -> str:
    """Return a valid name of a study, made of the name of a folder or file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:MAX_NAME_LENGTH] or "images"


def write_spec_text(first: FirstSpec) -> str:
    """Return the text of the spec."""
    survey, proposal = first.survey, first.proposal
    has_weightings = proposal.factor == WEIGHTING or len(first.weightings) > 1
    return render(
        "first_spec.toml.j2",
        first=first,
        survey=survey,
        proposal=proposal,
        budget=proposal.budget,
        folder=PurePath(survey.path).name,
        fractions=list_fractions(has_folds=bool(proposal.budget.folds), confirm_fraction=proposal.confirm_fraction),
        is_native=survey.native_side == proposal.image_size,
        squared=SQUARED[first.aspect],
        has_crops=takes_crops(survey),
        crop_min_area=CROP_MIN_AREA,
        levels=ARMS[proposal.factor],
        weightings=[*first.weightings[1:], *first.weightings[:1]] if has_weightings else [],
        margin=MARGIN,
        num_audit_images=MAX_AUDIT_IMAGES_ON_CPU,
        quote=partial(json.dumps, ensure_ascii=False),
    )


def takes_crops(survey: Survey) -> bool:
    """Return whether the images are photographs, of which training takes random crops, and not small squares."""
    return survey.median_short_side > MAX_SMALL_SIDE

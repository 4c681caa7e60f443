"""`study init`: from a folder of images to a spec that runs."""

import functools
import itertools
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch
from rich.console import Console

from analysis.baselines.values import describe_baselines
from analysis.images.aspects import choose_aspect
from analysis.images.render import describe_class_counts, describe_cut
from search_spaces.errors import UserInputError, attempt, count_noun
from study.baselines.measuring import preview_baselines
from study.inputs import preparation
from study.inputs.fitted_defaults import list_weightings
from study.spec.reading import preset_names, read_preset, validate_spec
from study.spec.study_spec import StudySpec
from study.views.data_inspection import inspection_config
from study.views.first_spec import first_findings as findings
from study.views.first_spec.machine import choose_weights, find_machine, measure_costs
from study.views.first_spec.proposal import (
    CHOICE_MARGINS,
    Proposal,
    consider_folds,
    count_split_images,
    propose,
    size_confirm_split,
)
from study.views.first_spec.spec_text import CROP_MIN_AREA, MARGIN, FirstSpec, make_name, takes_crops, write_spec_text
from study.views.first_spec.survey import Survey, describe_bad, survey_images
from study.views.planning import describe_launch, find_chance
from study.views.printing import print_line, print_lines, print_section
from trainables.data.image_audit import AuditReport, audit_image_set, check_image_set
from trainables.data.images import Aspect, ImageSet, SkippedFile
from trainables.data.problems import DataProblemsError, make_error, make_printable
from trainables.data.splits import Splits, describe_near_duplicates, list_rare_classes
from trainables.training.frozen_features import FrozenBackbone
from trainables.training.trial_cost import TrialCost

# Classes that the table shows; of more, it shows those with the most and the fewest images.
MAX_ROWS = 30
EXPLANATION = """study init FOLDER looks at images, says everything that it finds, and writes a spec that runs.

FOLDER is one of
  - a folder with one folder of images per class:          birds/sparrow/1.jpg
  - train/, val/ and test/ with such folders:              birds/train/sparrow/1.jpg
  - a table (.csv, .tsv, .jsonl or .parquet) with the columns path and label, and optionally split and group
  - a Hugging Face folder: metadata.csv, or train-*.parquet with encoded images
  - tar files of WebDataset:                               birds-train-000000.tar
  - the URI of one of these:                               s3://bucket/birds

Without images of your own, `study run` takes one of the presets:"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """The options of `study init`.

    Attributes:
        path: the folder, manifest, parquet or tar file, or a URI.
        to: the file to write; None for <name>.toml here.
        force: whether to overwrite it.
        weights: see `model.weights`; None to choose.
        image_size: side of the model's input in pixels; None to choose.
        minutes: time that the study may take.
        group: see `data.group`.
        ignores_near_duplicates: see `data.near_duplicates`.
    """

    path: str
    to: Path | None
    force: bool
    weights: str | None
    image_size: int | None
    minutes: float
    group: str | None
    ignores_near_duplicates: bool


def _take_stem(path: str) -> str:
    """Return the name of a folder, or of a file without its suffix."""
    if "://" in path:
        return PurePosixPath(path.partition("?")[0]).stem
    place = Path(path).expanduser().resolve()
    return place.name if place.is_dir() else place.stem


def explain_init(console: Console) -> None:
    """Print what `study init` takes, and the presets with the first sentence of each."""
    print_line(EXPLANATION, console)
    for name in preset_names():
        lines = itertools.takewhile(lambda line: line.startswith("# "), read_preset(name).splitlines())
        comment = " ".join(line.removeprefix("# ") for line in lines)
        print_line(f"  {name:12} {comment.partition('. ')[0].rstrip('.')}", console)


def run_init(options: InitOptions, console: Console) -> Path:
    """Look at the images, print what was found, and write the spec.

    Returns:
        The file.

    Raises:
        UserInputError: listing everything because of which the images cannot be used; if the file exists.
    """
    name = make_name(_take_stem(options.path))
    target = options.to or Path(f"{name}.toml")
    problems = list(_check_target(target, force=options.force))
    weights = attempt(problems, choose_weights, options.weights)
    survey = attempt(problems, survey_images, options.path, options.group)
    if weights is None or survey is None or problems:
        raise UserInputError("\n".join(problems))
    findings.print_survey(survey, console)
    machine = find_machine()
    with console.status("measuring a few training steps"):
        proposal = propose(
            survey,
            machine,
            minutes=options.minutes,
            image_size=options.image_size,
            is_pretrained=weights.weights != "none",
            measure=functools.cache(functools.partial(_measure, survey, machine.gpu_per_trial, machine.cpu_per_trial)),
        )
    chance = functools.partial(find_chance, margin=MARGIN, is_pretrained=weights.weights != "none")
    # The chance is that of twice a margin.
    choice = functools.partial(find_chance, margin=CHOICE_MARGINS / 2 * MARGIN, is_pretrained=weights.weights != "none")
    folded = consider_folds(proposal, survey, options.minutes, chance)
    proposal, folded = (size_confirm_split(one, survey, choice) for one in (proposal, folded))
    first = FirstSpec(
        name=name,
        survey=survey,
        proposal=folded,
        weights=weights,
        group=options.group,
        ignores_near_duplicates=options.ignores_near_duplicates,
        is_size_given=options.image_size is not None,
        weightings=("none",),
        skip_reason="Files that cannot be used are left out.",
    )
    found = _decode(first, proposal, console)
    cut, squared = describe_cut(survey.sizes), ""
    if cut:
        aspect, squared = _choose_aspect(_read(found.first), found.image_set, found.splits, console)
        squared_first = replace(found.first, aspect=aspect, aspect_reason=squared)
        is_other = aspect != found.first.aspect
        # Near-duplicates, and so the splits, and what is left of the masks are those of the squares.
        found = _decode(squared_first, proposal, console) if is_other else replace(found, first=squared_first)
    _print_found(found, console)
    if cut:
        print_line(f"{cut}; data.aspect: {squared}", console)
    first, image_set, splits = found.first, found.image_set, found.splits
    target.write_text(write_spec_text(first), encoding="utf-8")
    spec = _read(first)
    with console.status("measuring a linear probe"):
        prepared = preparation.assemble(spec, image_set, splits, preparation.locate_weights(spec.model.weights))
        baselines = describe_baselines(preview_baselines(spec, prepared, None))
    epochs = first.proposal.max_epochs
    costs = {
        arm: cost.of_epochs(epochs) * spec.resources.count_devices(arm)
        for arm, cost in first.proposal.arm_costs.items()
    }
    spec_file = shlex.quote(str(target))
    for line in (
        *findings.describe_proposal(first, options.minutes),
        describe_launch(spec, splits, None, costs),
        *(f"to beat: {line}" for line in baselines),
        f"wrote {target}",
        f"next: study inspect {spec_file}    (shows the images, duplicates and label issues; trains nothing)",
        f"      study run {spec_file}",
    ):
        print_line(line, console)
    return target


def _check_target(target: Path, *, force: bool) -> Iterator[str]:
    """Yield a message if the file exists, or cannot be written."""
    if target.exists() and not force:
        yield f"{target} exists; give another file with --to, or --force to overwrite it"
    elif target.is_dir() or not os.access(target if target.exists() else target.absolute().parent, os.W_OK):
        yield f"{target} cannot be written; give another file with --to"


def _measure(survey: Survey, gpu: int, cpu: int, image_size: int, batch_size: int) -> Mapping[str, TrialCost]:
    """Return the cost of a trial by backbone, at an image size and a batch size."""
    counts = count_split_images(survey)
    data = {
        "name": "cost",
        # Stands for the survey's images, which are not read.
        "data": {"source": "digits"},
        "model": {"weights": "none"},
        "train": {
            "image_size": image_size,
            "batch_size": batch_size,
            "crop_min_area": CROP_MIN_AREA if takes_crops(survey) else 1.0,
        },
        "search": {"max_epochs": 2},
        "resources": {"cpu": cpu, "gpu": gpu},
    }
    return measure_costs(
        validate_spec(data, where="study init"),
        num_classes=len(survey.class_names),
        num_train=max(counts["train"], 2),
        num_search=max(counts["search"], 1),
        stored_side=survey.stored_side(image_size),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Decoded images of a spec, their splits and audit, and the spec with what follows from them.

    Attributes:
        first: the spec.
        image_set: that can be used.
        splits: of the images.
        refused: audit of the images before training images that are in another split are left out.
        used: audit of the images and splits.
        bad: image files that cannot be used.
    """

    first: FirstSpec
    image_set: ImageSet
    splits: Splits
    refused: AuditReport
    used: AuditReport
    bad: tuple[SkippedFile, ...]


def _decode(first: FirstSpec, without_folds: Proposal, console: Console) -> _Found:
    """Return the decoded images, with the proposal without folds where the images cannot be divided into as many.

    Raises:
        UserInputError: listing everything because of which the images cannot be used.
    """
    try:
        return _decode_once(first)
    except preparation.FoldsError as error:
        print_line(f"no folds: {error}", console)
        return _decode_once(replace(first, proposal=without_folds))


def _decode_once(first: FirstSpec) -> _Found:
    skipping = _read(first)
    refusing = _read(replace(first, skip_reason=""))
    image_set = preparation.find_near_duplicate_groups(skipping, preparation.load_images(skipping))
    assert image_set.origin is not None
    bad = tuple(file for file in image_set.origin.skipped if file not in first.survey.skipped)
    try:
        findings.check_largest_group(image_set)
        report = audit_image_set(image_set, preparation.make_spec_splits(refusing, image_set)[0])
        splits, _ = preparation.make_spec_splits(skipping, image_set)
        used = check_image_set(image_set, splits)
        preparation.check_folds(first.proposal.budget.folds, image_set, splits)
    except DataProblemsError as error:
        raise make_error(make_printable(str(first.survey.path)), [*error.problems, *describe_bad(bad)]) from None
    left_out = [f"{count_noun(len(bad), 'image file')} that cannot be used"] if bad else []
    if report.num_leaks:
        left_out.append(f"{count_noun(report.num_leaks, 'training image')} also in another split")
    first = replace(
        first,
        proposal=first.proposal.with_train_images(len(splits.train)),
        skip_reason=f"Without {' and '.join(left_out)}." if left_out else "",
        weightings=list_weightings(used.class_counts["train"], has_group=False),
    )
    return _Found(first=first, image_set=image_set, splits=splits, refused=report, used=used, bad=bad)


def _print_found(found: _Found, console: Console) -> None:
    """Print what was found on the images."""
    survey, image_set, splits = found.first.survey, found.image_set, found.splits
    assert image_set.origin is not None
    rare = [rare.problem for rare in list_rare_classes(image_set, splits)]
    problems = findings.list_findings(image_set, found.refused, found.bad, survey.skipped)
    findings.print_findings(survey, [*rare, *problems], console)
    notes = (*image_set.origin.notes, *describe_near_duplicates(image_set, splits).values())
    print_lines((f"- {note}" for note in notes), console)
    print_section(describe_class_counts(image_set.class_names, found.used.class_counts, MAX_ROWS), console)
    has_folds = bool(found.first.proposal.budget.folds)
    print_line(findings.describe_splits(survey, has_folds=has_folds), console)


def _choose_aspect(spec: StudySpec, image_set: ImageSet, splits: Splits, console: Console) -> tuple[Aspect, str]:
    """Return how images become squares, by a probe on images that are decoded as the spec says, and the reason."""
    current, problem = spec.data.aspect, "a probe needs two classes with two images each"
    if spec.model.weights == "none":
        return current, f"{current}, which was not measured, because a probe needs pretrained weights"
    prepared = preparation.assemble(spec, image_set, splits, preparation.locate_weights(spec.model.weights))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = None
    with console.status("measuring a linear probe on cropped, padded and squashed images"):
        backbone = FrozenBackbone.build(inspection_config(spec, prepared), prepared.weights, device)
        try:
            found = choose_aspect(backbone, image_set, splits, current, seed=spec.seed)
        except UserInputError as error:
            problem = str(error)
    if found is None:
        return current, f"{current}, which was not measured: {problem}"
    return found.aspect, findings.describe_aspect(found)


def _read(first: FirstSpec) -> StudySpec:
    return validate_spec(tomllib.loads(write_spec_text(first)), where="study init")

"""What `study init` prints: everything that was found, what it proposes, and the next commands."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from rich.console import Console

from analysis.formats.numbers import format_percent, format_seconds
from analysis.images.render import describe_sizes
from analysis.images.values import AspectChoice
from search_spaces.errors import count_noun
from study.views.first_spec.proposal import CHOICE_MARGINS, OVERHEAD_SECONDS
from study.views.first_spec.spec_text import MARGIN, FirstSpec, takes_crops
from study.views.first_spec.survey import Survey, describe_bad, name_files
from study.views.printing import print_line, print_lines
from trainables.data.image_audit import AuditReport, name_images
from trainables.data.images import ImageSet, SkippedFile
from trainables.data.near_duplicates import NearDuplicates
from trainables.data.problems import Problem, make_error, write_cut_names

# Share of the images that one group of near-duplicates may hold, and of near-duplicates that must share a part of their names.
MAX_GROUP_FRACTION, MIN_SHARED = 0.1, 0.95


def list_findings(
    image_set: ImageSet, report: AuditReport, bad: Sequence[SkippedFile], unused: Sequence[SkippedFile]
) -> list[Problem]:
    """Return what is odd about the images, with all names.

    Args:
        image_set: the images that can be used.
        report: its audit, before training images that are in another split were left out.
        bad: image files that cannot be used.
        unused: files that are not images.
    """
    copies = "the training images among them that are also in another split are left out"
    conflicts = _name_conflicts(image_set)
    # What changes labels stands before what changes scores, and that before what only leaves images out.
    found = [
        Problem(
            "equal images with different labels",
            tuple(name_images(image_set, ids) for ids in report.conflicts),
            "remove those in the wrong class",
        ),
        Problem(
            f"{count_noun(len(conflicts), 'pair')} of near-duplicates with different labels",
            conflicts,
            "look which label is wrong; `study inspect` shows them",
            is_counted=True,
        ),
        Problem(
            f"{count_noun(report.num_duplicates, 'exact copy')} of other images",
            tuple(name_images(image_set, ids) for ids in report.duplicates),
            copies if report.num_leaks else "none is in two splits",
        ),
        *describe_bad(bad, "left out"),
        Problem(f"{count_noun(len(unused), 'file')} not used", name_files(unused), ""),
    ]
    return [problem for problem in found if problem.names]


def _name_conflicts(image_set: ImageSet) -> tuple[str, ...]:
    """Return the pairs of near-duplicates with different labels, each image with its label."""
    pairs = [] if image_set.near_duplicates is None else image_set.near_duplicates.pairs[:, :2].tolist()
    labels = image_set.labels
    conflicts = [pair for pair in pairs if labels[pair[0]] != labels[pair[1]]]
    return tuple(
        " and ".join(
            f"{name} ({image_set.class_names[labels[i]]})"
            for i, name in zip(pair, name_images(image_set, pair), strict=True)
        )
        for pair in conflicts
    )


def check_largest_group(image_set: ImageSet) -> None:
    """Raise UserInputError, with what to do, if one group of near-duplicates holds more than a tenth of the images."""
    found = image_set.near_duplicates
    if found is None or not len(found.sizes) or found.sizes[0] <= MAX_GROUP_FRACTION * len(image_set):
        return
    largest = np.bincount(found.groups).argmax()
    members = name_images(image_set, np.flatnonzero(found.groups == largest).tolist())
    rule = (
        f"near-duplicates stay in one split, but a group of them holds {len(members):,} of the {len(image_set):,} images, more "
        f"than {MAX_GROUP_FRACTION:.0%}"
    )
    advice = (
        f"name what belongs together with --group{_read_names(image_set, found)} and give --ignore-near-duplicates, or the "
        "latter alone where these are independent images"
    )
    raise make_error(image_set.source, [Problem(rule, members, advice)])


def _read_names(image_set: ImageSet, found: NearDuplicates) -> str:
    """Return what the file names say about groups: a part of them that is equal among near-duplicates; "" if nothing."""
    assert image_set.origin is not None
    parts = [re.split(r"[\W_]+", PurePosixPath(name).stem) for name in image_set.origin.names]
    if len(set(map(len, parts))) > 1:
        return ""
    columns = [np.array(column) for column in zip(*parts, strict=True)]
    # The largest group may hold what differs.
    has_group = (found.groups != np.arange(len(parts))) & (found.groups != np.bincount(found.groups).argmax())
    firsts, others = found.groups[has_group], np.flatnonzero(has_group)
    shared = [c for c in columns if len(others) and (c[firsts] == c[others]).mean() >= MIN_SHARED]
    telling = max(shared, key=lambda column: len(np.unique(column)), default=columns[0][:0])
    if len(np.unique(telling)) < 2:
        return ""
    example = PurePosixPath(image_set.origin.names[0]).name
    return f" (near-duplicates have the part {telling[0]!s} of names such as {example} in common: make it a column of a table)"


def print_survey(survey: Survey, console: Console) -> None:
    """Print the layout, the number of images, their sizes and kinds."""
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in survey.kinds.items())
    print_line(f"{survey.path}: {survey.layout}", console)
    print_line(
        f"{survey.num_images:,} images of {len(survey.class_names)} classes; {describe_sizes(survey.sizes)}; {kinds}",
        console,
    )


def print_findings(survey: Survey, findings: Sequence[Problem], console: Console) -> None:
    """Print what is odd, with at most twenty names each and the rest in a file."""
    print_lines((f"- {problem}" for problem in findings), console)
    if where := write_cut_names(str(survey.path), findings):
        print_line(where, console)


def describe_aspect(choice: AspectChoice) -> str:
    """Return the proposed aspect, with the scores of the probe that chose it."""
    scores = ", ".join(f"{aspect} {format_percent(score)}" for aspect, score in choice.macro_f1.items())
    if choice.aspect == choice.current:
        why = f"none is better than {choice.current} by more than its standard error"
    else:
        gain = choice.gains[choice.aspect]
        points, error = 100 * gain.estimate, 100 * (gain.high - gain.estimate)
        why = f"{points:.1f} pp better than {choice.current}, with a standard error of {error:.1f} pp"
    return (
        f"{choice.aspect}, by a linear probe on {choice.backbone} ({choice.num_images:,} images outside the test set, out of "
        f"fold): macro-F1 {scores}; {why}"
    )


def describe_splits(survey: Survey, *, has_folds: bool) -> str:
    """Return a sentence on where the test, search and confirm images come from."""
    test = "the published test images" if "test" in survey.class_counts else "a fifth of the images, set aside"
    if has_folds:
        test = "half of the images, each tested once per seed by a model that has not seen it"
    published = "validation" in survey.class_counts
    groups = "; images of one group stay in one split" if survey.has_groups else ""
    return (
        f"test set: {test}; search and confirm: "
        f"{'the published validation images' if published else 'shares of the training images'}{groups}"
    )


def describe_proposal(first: FirstSpec, minutes: float) -> list[str]:
    """Return lines with the proposed sizes, the arms, the budget and its expected time."""
    proposal = first.proposal
    stored = f"stored at {first.survey.stored_side(proposal.image_size)} px"
    stored += ", random crops for training" if takes_crops(first.survey) else ""
    epochs = ", ".join(f"{arm} {cost.epoch_seconds:.1f} s" for arm, cost in proposal.costs.items())
    fewer = f", of {proposal.num_images:,} images" if proposal.num_images is not None else ""
    lines = [
        f"proposal for {minutes:g} min on {proposal.machine.describe()}: {proposal.image_size} px ({stored}), batch size "
        f"{proposal.batch_size}{fewer}",
        f"arms: {proposal.describe_arms()}",
        f"{proposal.describe_steps()}; {proposal.num_trials} search trials, {proposal.describe_trials()}; comparison on "
        f"{proposal.describe_seeds()}",
        f"estimate: about {format_seconds(proposal.seconds)} of training, beside start, analysis and report (an epoch of "
        f"{epochs}, from a few measured steps)",
        f"weights: {first.weights.weights}. {first.weights.reason}",
    ]
    if proposal.confirm_chance is not None:
        lines.append(
            f"model to hand over: chosen on the confirm images, which detect a difference of {100 * CHOICE_MARGINS * MARGIN:g} "
            f"pp with a chance of {proposal.confirm_chance:.0%}; where they do not, with the search images"
        )
    if proposal.seconds + OVERHEAD_SECONDS > 60 * minutes:
        lines.append(f"warning: even the smallest study is expected to take longer than {minutes:g} min")
    if first.weights.are_missing:
        lines.append("warning: without pretrained weights, small sets of photographs are learned badly")
    return lines

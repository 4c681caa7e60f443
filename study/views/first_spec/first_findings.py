"""What `study init` prints: everything that was found, what it proposes, and the next commands."""

from collections.abc import Sequence

from rich.console import Console

from analysis.formats.numbers import format_percent, format_seconds
from analysis.images.render import describe_sizes
from analysis.images.values import AspectChoice
from study.views.first_spec.proposal import OVERHEAD_SECONDS
from study.views.first_spec.spec_text import FirstSpec, takes_crops
from study.views.first_spec.survey import Survey, count_noun, describe_bad, name_files
from study.views.printing import print_line
from trainables.data.image_audit import AuditReport, name_images
from trainables.data.images import ImageSet, SkippedFile
from trainables.data.problems import Problem, write_cut_names


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
    found = [
        Problem(f"{count_noun(len(unused), 'file')} not used", name_files(unused), ""),
        *describe_bad(bad, "left out"),
        Problem(
            f"{count_noun(report.num_duplicates, 'exact copy')} of other images",
            tuple(name_images(image_set, ids) for ids in report.duplicates),
            copies if report.num_leaks else "none is in two splits",
        ),
        Problem(
            "equal images with different labels",
            tuple(name_images(image_set, ids) for ids in report.conflicts),
            "remove those in the wrong class",
        ),
    ]
    return [problem for problem in found if problem.names]


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
    for problem in findings:
        print_line(f"- {problem}", console)
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


def describe_splits(survey: Survey) -> str:
    """Return a sentence on where the test, search and confirm images come from."""
    test = "the published test images" if "test" in survey.class_counts else "a fifth of the images, set aside"
    published = "validation" in survey.class_counts
    groups = "; images of one group stay in one split" if survey.has_groups else ""
    return (
        f"test set: {test}; search and confirm: "
        f"{'the published validation images' if published else 'shares of the training images'}{groups}"
    )


def describe_proposal(first: FirstSpec, minutes: float) -> list[str]:
    """Return lines with the proposed sizes, the arms, the budget and its expected time."""
    proposal, budget = first.proposal, first.proposal.budget
    stored = f"stored at {first.survey.stored_side(proposal.image_size)} px"
    stored += ", random crops for training" if takes_crops(first.survey) else ""
    epochs = ", ".join(f"{arm} {cost.epoch_seconds:.1f} s" for arm, cost in proposal.costs.items())
    fewer = f", of {proposal.num_images:,} images" if proposal.num_images is not None else ""
    lines = [
        f"proposal for {minutes:g} min on {proposal.machine.describe()}: {proposal.image_size} px ({stored}), batch size "
        f"{proposal.batch_size}{fewer}",
        f"arms: {proposal.describe_arms()}",
        f"{proposal.describe_steps()}; {proposal.num_trials} search trials, {proposal.describe_trials()}; comparison on "
        f"{' and '.join(map(str, budget.looks))} seeds",
        f"estimate: about {format_seconds(proposal.seconds)} of training, beside start, analysis and report (an epoch of "
        f"{epochs}, from a few measured steps)",
        f"weights: {first.weights.weights}. {first.weights.reason}",
    ]
    if proposal.seconds + OVERHEAD_SECONDS > 60 * minutes:
        lines.append(f"warning: even the smallest study is expected to take longer than {minutes:g} min")
    if first.weights.are_missing:
        lines.append("warning: without pretrained weights, small sets of photographs are learned badly")
    return lines

"""`study judge`: models that were trained elsewhere, judged by their predictions. Needs no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from analysis.arms.values import OutsideArm, OutsideFindings
from analysis.comparison import tables
from analysis.comparison.render import build_side_csv, format_row_lines
from analysis.comparison.values import ComparisonRow
from analysis.confusions import render as confusion_sentences
from analysis.confusions.class_scores import list_unknown_classes
from analysis.confusions.rates import compute_human_shares
from analysis.confusions.values import MAX_ISSUES
from analysis.external.outside_findings import analyze_outside_arms, compare_outside_arms, list_comparison_problems
from analysis.external.outside_predictions import OutsidePredictions, read_predictions_files
from analysis.formats.numbers import format_interval
from analysis.report.pages import MOST_ROWS, build_comparison_page, build_forensics_page
from analysis.statistics.interval import ALPHA, MARGIN
from search_spaces.errors import UserInputError, attempt, list_some, refuse_any
from study.inputs.human_labels import read_counts
from study.views.printing import print_line, print_lines
from trainables.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """The options of `study judge`.

    Attributes:
        class_names: names of the classes, separated by commas; None for those in the files.
        control: the arm that every other arm is compared with; None for the first one.
        margin: equivalence margin in macro-F1, a fraction; None for `MARGIN`.
        alpha: family-wise error rate over the rows; None for `ALPHA`.
        groups: groups of classes to examine separately, ``NAME=CLASS,CLASS`` each.
        human_counts: an .npy file of (images, classes) counts of human labels; None if there are none.
        to: a folder for the findings; None to write no files.
    """

    class_names: str | None = None
    control: str | None = None
    margin: float | None = None
    alpha: float | None = None
    groups: Sequence[str] = ()
    human_counts: Path | None = None
    to: Path | None = None


def judge_models(files: Sequence[Path], options: JudgeOptions, console: Console) -> None:
    """Print the findings about models trained elsewhere; with two or more arms, the A/B table before them.

    Args:
        files: of predictions, see `read_predictions_files`.
        options: of the command.
        console: receives the table, the findings and the names of the files that are written.

    Raises:
        UserInputError: listing everything that is wrong with the files and the options, before anything is printed.
    """
    rows, found = judge_files(files, options)
    if rows:
        console.print(tables.build_rich_table(rows))
        print_lines(format_row_lines(rows), console)
    _print_findings(found, console)
    if options.to is None:
        print_line("--to FOLDER writes pages, with the confusion matrix and the scores of the classes.", console)
        return
    for name, text in _build_files(", ".join(dict.fromkeys(file.stem for file in files)), rows, found).items():
        Store(options.to).write_text(name, text)
        print_line(f"{options.to}/{name}", console)


def judge_files(files: Sequence[Path], options: JudgeOptions) -> tuple[Sequence[ComparisonRow], OutsideFindings]:
    """Return the rows of the A/B table, none for one arm, and the findings; `judge_models` has the arguments and errors."""
    predictions, groups, human = _read(files, options)
    margin, alpha = options.margin or MARGIN, options.alpha or ALPHA
    rows = compare_outside_arms(predictions, control=options.control, margin=margin, alpha=alpha, groups=groups)
    return rows, analyze_outside_arms(predictions, human=human, groups=groups, control=options.control)


def _read(
    files: Sequence[Path], options: JudgeOptions
) -> tuple[OutsidePredictions, dict[str, tuple[str, ...]], NDArray[np.float64] | None]:
    """Return the predictions, the groups of classes, and (N, K) shares of human labels."""
    problems = [
        f"--{name}: `0 < {name} < 1` must hold, but got {value}"
        for name, value in (("margin", options.margin), ("alpha", options.alpha))
        if value is not None and not 0.0 < value < 1.0
    ]
    if options.to is not None and options.to.exists() and not options.to.is_dir():
        problems.append(f"--to must name a folder, but {options.to} is a file")
    named = [group for text in options.groups if (group := attempt(problems, _parse_group, text))]
    groups, human = dict(named), None
    if len(groups) < len(named):
        problems.append(f"groups need different names, but got {list_some(name for name, _ in named)}")
    counts = None if options.human_counts is None else attempt(problems, read_counts, options.human_counts)
    names = None if options.class_names is None else [name.strip() for name in options.class_names.split(",")]
    predictions = attempt(problems, read_predictions_files, files, names)
    if predictions is not None:
        problems += list_unknown_classes(groups, predictions.names)
        if counts is not None:
            num_images = len(predictions.first.labels)
            human = attempt(problems, compute_human_shares, counts, num_images, predictions.names)
        problems += _list_arm_problems(predictions, options)
    refuse_any(problems, "these models cannot be judged:" if len(problems) > 1 else "")
    assert predictions is not None
    return predictions, groups, human


def _list_arm_problems(predictions: OutsidePredictions, options: JudgeOptions) -> list[str]:
    """Return why several arms cannot be compared, or which options have no effect on one arm."""
    if len(predictions.arms) > 1:
        return list_comparison_problems(predictions, options.control)
    given = {"--control": options.control, "--margin": options.margin, "--alpha": options.alpha}
    unused = ", ".join(name for name, value in given.items() if value is not None)
    if not unused:
        return []
    only = next(iter(predictions.arms))
    return [f"a comparison needs two arms, but there is only {only!r}; add another, or remove {unused}"]


def _parse_group(text: str) -> tuple[str, tuple[str, ...]]:
    name, found, classes = text.partition("=")
    names = tuple(word.strip() for word in classes.split(",") if word.strip())
    if not found or not name.strip() or not names:
        raise UserInputError(f"--group takes NAME=CLASS,CLASS, but got {text!r}")
    return name.strip(), names


def _build_files(title: str, rows: Sequence[ComparisonRow], found: OutsideFindings) -> dict[str, str]:
    """Return the content of the files in --to by name; a comparison is among them where there are rows."""
    forensics = {"forensics.html": build_forensics_page(title, found), "forensics.json": found.to_json()}
    if not rows:
        return forensics
    return {
        "comparison.html": build_comparison_page(title, tables.build_table_rows(rows)),
        "comparison.csv": tables.build_csv(rows),
        "comparison.md": tables.build_markdown(rows),
        "comparison.tex": tables.build_latex(rows),
        "side_metrics.csv": build_side_csv(rows),
        **forensics,
    }


def _print_findings(found: OutsideFindings, console: Console) -> None:
    for arm in found.arms:
        _print_arm(arm, console)
    most = "at least " if len(found.label_issues) == MAX_ISSUES else ""
    if found.label_issues:
        print_line(f"{most}{len(found.label_issues)} suspected label errors", console)
    print_lines((f"Note: {note}" for note in found.notes), console)


def _print_arm(arm: OutsideArm, console: Console) -> None:
    score = arm.test_macro_f1
    seeds = "one seed" if len(arm.seeds) == 1 else f"{len(arm.seeds)} seeds"
    print_line(f"{arm.arm}: macro-F1 {format_interval(score, 2)}, {seeds}", console)
    if arm.directed:
        console.print(confusion_sentences.build_directed_table(arm.directed[:MOST_ROWS]))
        print_line(confusion_sentences.describe_directed(arm), console)
    print_line(confusion_sentences.describe_clusters(arm, arm.arm), console)
    if arm.confused_pairs:
        pairs = sorted(arm.confused_pairs, key=lambda pair: -pair.rate.estimate)
        console.print(confusion_sentences.build_pair_table(pairs[:MOST_ROWS]))
    print_lines((confusion_sentences.describe_contrast(contrast, arm.arm) for contrast in arm.group_contrasts), console)

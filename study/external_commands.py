"""What the commands of the command line do with predictions of models that were trained elsewhere. Needs no Ray."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from analysis.classes.label_issues import MAX_ISSUES
from analysis.external.comparison import compare_outside_arms
from analysis.external.forensics import OutsideArm, analyze_outside_arms
from analysis.external.predictions import read_predictions_files
from analysis.report import tables
from analysis.report.arm_tables import build_directed_table, build_pair_table
from analysis.report.forensic_sentences import describe_clusters, describe_contrast, describe_directed
from analysis.report.forensics_page import MOST_ROWS, build_forensics_page
from analysis.report.number_formats import format_interval
from analysis.report.pages import build_comparison_page
from analysis.report.side_metric_tables import build_side_csv, format_side_line
from study.inputs.human_labels import read_counts
from study.views.printing import print_line
from trainables.storage.store import Store


def compare_predictions(
    files: Sequence[Path],
    *,
    class_names: Sequence[str] | None,
    control: str | None,
    margin: float,
    alpha: float,
    groups: Mapping[str, Sequence[str]],
    to: Path | None,
    console: Console,
) -> None:
    """Print the A/B table of models trained elsewhere.

    Args:
        files: of predictions, as of `read_predictions_files`.
        class_names: names of the classes; None for those in the files.
        control: the arm that every other arm is compared with; None for the first one.
        margin: equivalence margin in macro-F1.
        alpha: family-wise error rate over the rows.
        groups: groups of classes, by name, on whose images the metrics beside macro-F1 are computed too.
        to: a folder for comparison.html, .csv, .md and .tex, and side_metrics.csv; None to write no files.
        console: receives the table.
    """
    predictions = read_predictions_files(files, class_names)
    rows = compare_outside_arms(predictions, control=control, margin=margin, alpha=alpha, groups=groups)
    console.print(tables.build_rich_table(rows))
    for row in rows:
        print_line(tables.format_row(row), console)
        if line := format_side_line(row):
            print_line(line, console)
    if to is not None:
        texts = {
            "html": build_comparison_page(_title(files), tables.build_table_rows(rows)),
            "csv": tables.build_csv(rows),
            "md": tables.build_markdown(rows),
            "tex": tables.build_latex(rows),
        }
        _write_files(to, "comparison", texts, console)
        _write_files(to, "side_metrics", {"csv": build_side_csv(rows)}, console)


def analyze_predictions(
    files: Sequence[Path],
    *,
    class_names: Sequence[str] | None,
    human_counts: Path | None,
    groups: Mapping[str, Sequence[str]],
    to: Path | None,
    console: Console,
) -> None:
    """Print the forensics of models trained elsewhere.

    Args:
        files: of predictions, as of `read_predictions_files`.
        class_names: names of the classes; None for their numbers.
        human_counts: an .npy file of (images, classes) counts of people's answers; None if there are none.
        groups: groups of classes to contrast, by name.
        to: a folder for forensics.html and forensics.json; None to write no files.
        console: receives the findings.
    """
    counts = None if human_counts is None else read_counts(human_counts)
    found = analyze_outside_arms(read_predictions_files(files, class_names), human_counts=counts, groups=groups)
    for arm in found.arms:
        _print_arm(arm, console)
    most = "at least " if len(found.label_issues) == MAX_ISSUES else ""
    if found.label_issues:
        print_line(f"{most}{len(found.label_issues)} suspected label errors", console)
    for note in found.notes:
        print_line(f"Note: {note}", console)
    if to is not None:
        texts = {"html": build_forensics_page(_title(files), found), "json": found.to_json()}
        _write_files(to, "forensics", texts, console)
    else:
        print_line(
            "--to FOLDER writes these findings with the confusion matrix and the scores of the classes as a page.",
            console,
        )


def _print_arm(arm: OutsideArm, console: Console) -> None:
    score = arm.test_macro_f1
    seeds = "one seed" if len(arm.seeds) == 1 else f"{len(arm.seeds)} seeds"
    print_line(f"{arm.arm}: macro-F1 {format_interval(score, 2)}, {seeds}", console)
    if arm.directed:
        console.print(build_directed_table(arm.directed[:MOST_ROWS]))
        print_line(describe_directed(arm), console)
    print_line(describe_clusters(arm), console)
    if arm.confused_pairs:
        pairs = sorted(arm.confused_pairs, key=lambda pair: -pair.rate.estimate)
        console.print(build_pair_table(pairs[:MOST_ROWS]))
    for contrast in arm.group_contrasts:
        print_line(describe_contrast(contrast, arm.arm), console)


def _title(files: Sequence[Path]) -> str:
    return ", ".join(dict.fromkeys(file.stem for file in files))


def _write_files(folder: Path, stem: str, texts: Mapping[str, str], console: Console) -> None:
    for suffix, text in texts.items():
        Store(folder).write_text(f"{stem}.{suffix}", text)
        print_line(f"{folder}/{stem}.{suffix}", console)

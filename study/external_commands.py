"""What the commands of the command line do with predictions of models that were trained elsewhere. Needs no Ray."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from analysis.external.forensics import analyze_outside_arms
from analysis.external.predictions import compare_outside_arms, describe_single_seeds, read_predictions_file
from analysis.report import tables
from analysis.report.arm_tables import build_pair_table
from analysis.report.figures import figure_to_png, plot_confusion
from analysis.report.forensic_sentences import describe_clusters, describe_contrast
from analysis.report.pages import build_comparison_page, build_forensics_page
from search_spaces.errors import UserInputError
from study.inputs.human_labels import read_counts
from trainables.records.store import Store


def compare_predictions(
    file: Path, *, control: str | None, margin: float, alpha: float, to: Path | None, console: Console
) -> None:
    """Print the A/B table of models trained elsewhere.

    Args:
        file: a parquet file of predictions, as of `read_predictions_file`.
        control: the arm that every other arm is compared with; None for the first one.
        margin: equivalence margin in macro-F1.
        alpha: family-wise error rate over the rows.
        to: a folder for comparison.html, .csv, .md and .tex; None to write no files.
        console: receives the table.

    Raises:
        UserInputError: with the estimates, if an arm has only one seed.
    """
    rows, single = compare_outside_arms(read_predictions_file(file), control=control, margin=margin, alpha=alpha)
    if single:
        raise UserInputError(describe_single_seeds(single))
    console.print(tables.build_rich_table(rows))
    for row in rows:
        console.print(tables.format_row(row), soft_wrap=True, highlight=False)
    if to is not None:
        texts = {
            "html": build_comparison_page(file.stem, tables.build_table_rows(rows)),
            "csv": tables.build_csv(rows),
            "md": tables.build_markdown(rows),
            "tex": tables.build_latex(rows),
        }
        _write_files(to, "comparison", texts, console)


def analyze_predictions(
    file: Path,
    *,
    class_names: Sequence[str] | None,
    human_counts: Path | None,
    groups: Mapping[str, Sequence[str]],
    to: Path | None,
    console: Console,
) -> None:
    """Print the forensics of models trained elsewhere.

    Args:
        file: a parquet file of predictions, as of `read_predictions_file`.
        class_names: names of the classes; None for their numbers.
        human_counts: an .npy file of (images, classes) counts of people's answers; None if there are none.
        groups: groups of classes to contrast, by name.
        to: a folder for forensics.html and forensics.json; None to write no files.
        console: receives the findings.
    """
    counts = None if human_counts is None else read_counts(human_counts)
    found = analyze_outside_arms(
        read_predictions_file(file), class_names=class_names, human_counts=counts, groups=groups
    )
    for arm in found.arms:
        score = arm.test_macro_f1
        console.print(
            f"{arm.arm}: macro-F1 {score.estimate:.4f} [{score.low:.4f}, {score.high:.4f}], {len(arm.seeds)} seeds. "
            f"{describe_clusters(arm)}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        if arm.confused_pairs:
            console.print(build_pair_table(arm.confused_pairs))
        for contrast in arm.group_contrasts:
            console.print(describe_contrast(contrast, arm.arm), soft_wrap=True, highlight=False, markup=False)
    console.print(f"{len(found.label_issues)} labels to look at first", highlight=False)
    if to is not None:
        pictures = {
            arm.arm: figure_to_png(
                plot_confusion(arm.confusion, found.class_names, f"{arm.arm}: confusion", arm.clusters)
            )
            for arm in found.arms
        }
        texts = {"html": build_forensics_page(file.stem, found, pictures), "json": found.to_json()}
        _write_files(to, "forensics", texts, console)


def _write_files(folder: Path, stem: str, texts: Mapping[str, str], console: Console) -> None:
    for suffix, text in texts.items():
        Store(folder).write_text(f"{stem}.{suffix}", text)
        console.print(f"{folder}/{stem}.{suffix}", soft_wrap=True)

"""The page on models that were trained elsewhere, from their predictions alone."""

from collections.abc import Sequence

from analysis.arms.values import OutsideArm, OutsideFindings
from analysis.confusions.render import plot_confusion
from analysis.confusions.values import CONFUSION_TOLERANCE, MAX_ISSUES, ClassScore
from analysis.report.rendering import ReportFigure, embed_figure, render
from trainables.records.confusion_figure import MOST_ANNOTATED_CLASSES

# Rows of a table that are visible at once; the others unfold.
MOST_ROWS = 15
# With more classes than the matrix has room for numbers, a second matrix shows the most confused ones.
MOST_CONFUSED = 15


def build_forensics_page(title: str, findings: OutsideFindings) -> str:
    """Return the forensics of models that were trained elsewhere as a single HTML file without scripts.

    Args:
        title: heading of the page.
        findings: everything that the page shows.
    """
    return render(
        "forensics.html.j2",
        title=title,
        findings=findings,
        most=MOST_ROWS,
        tolerance=CONFUSION_TOLERANCE,
        arms=[(arm, _rank_classes(arm), _draw_matrices(arm, findings.class_names)) for arm in findings.arms],
        most_issues=MAX_ISSUES,
    )


def _rank_classes(arm: OutsideArm) -> list[ClassScore]:
    """Return the scores of the classes, the lowest F1 first, and those without images last."""
    return sorted(arm.class_scores, key=lambda score: (score.num_images == 0, score.f1.estimate))


def _draw_matrices(arm: OutsideArm, class_names: Sequence[str]) -> list[tuple[ReportFigure, bool]]:
    """Return the figures of the confusion matrix, and whether each is shown at once: the others unfold."""
    figures = []
    is_large = len(class_names) > MOST_ANNOTATED_CLASSES
    chosen = _choose_confused(arm, class_names)
    if is_large and len(chosen) > 1:
        part = [[arm.confusion.rates[i][j] for j in chosen] for i in chosen]
        names = [class_names[c] for c in chosen]
        clusters = [cluster for cluster in arm.clusters if set(cluster.classes) <= set(names)]
        drawn = plot_confusion(part, names, f"{arm.arm}: the {len(names)} most confused classes", clusters)
        alt = f"Part of the confusion matrix of {arm.arm}: rates with intervals of the most confused classes."
        figures.append((embed_figure(drawn, alt), True))
    drawn = plot_confusion(arm.confusion.rates, class_names, f"{arm.arm}: confusion matrix", arm.clusters)
    alt = f"Confusion matrix of {arm.arm}: rates with intervals."
    return [*figures, (embed_figure(drawn, alt), not is_large)]


def _choose_confused(arm: OutsideArm, class_names: Sequence[str]) -> list[int]:
    """Return the classes of the most frequent confusions, those that are confused side by side."""
    index = {name: i for i, name in enumerate(class_names)}
    groups: list[list[int]] = []
    for cell in arm.directed:
        pair = [index[cell.true_class], index[cell.predicted_class]]
        touched = [group for group in groups if set(group) & set(pair)]
        added = [c for c in pair if not any(c in group for group in groups)]
        if sum(map(len, groups)) + len(added) > MOST_CONFUSED:
            continue
        merged = [c for group in touched for c in group] + added
        groups = [group for group in groups if group not in touched] + [merged]
    return [c for group in sorted(groups, key=len, reverse=True) for c in group]

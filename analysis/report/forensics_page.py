"""The page on models that were trained elsewhere, from their predictions alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.arms.values import OutsideArm, OutsideFindings
from analysis.confusions.render import plot_confusion
from analysis.confusions.values import (
    CONFUSION_TOLERANCE,
    MAX_ISSUES,
    ConfusedPair,
    Confusion,
    DirectedConfusion,
    HumanExcess,
    Materiality,
)
from analysis.formats.numbers import format_count, format_interval, format_percent, format_signed_pp, join_verdicts
from analysis.report.rendering import ReportFigure, embed_figure, render
from trainables.records.confusion_figure import MOST_ANNOTATED_CLASSES

# Rows of a table that are visible at once; the others unfold.
MOST_ROWS = 15
# With more classes than the matrix has room for numbers, a second matrix shows the most confused ones.
MOST_CONFUSED = 15
ROUNDING = 0.0005

DIRECTED_COLUMNS = (
    "true class",
    "predicted class",
    "rate",
    "interval over the tolerance",
    "verdict",
    "images of the true class",
    "images that would decide",
)
PAIR_COLUMNS = ("pair of classes", "confusion rate", "expected by chance", "excess (pp)", "p, adjusted for all pairs")
HUMAN_COLUMNS = ("human rate", "excess over humans (pp)", "interpretation")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBar:
    """A rate with its interval as positions in [0, 1] of the axis that the rows of a table share; `tolerance` is another one."""

    low: float
    estimate: float
    high: float
    tolerance: float


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
        arms=[_arrange_arm(arm, findings.class_names) for arm in findings.arms],
        summary=[_summarize(arm) for arm in findings.arms],
        issues=[_issue_cells(issue) for issue in findings.label_issues],
        most_issues=MAX_ISSUES,
    )


def _summarize(arm: OutsideArm) -> list[str]:
    worst = min(arm.class_scores, key=lambda score: (score.num_images == 0, score.f1.estimate))
    cells = [cell for cell in arm.directed if cell.verdict is Materiality.MATERIAL]
    strongest = f": {cells[0].true_class} → {cells[0].predicted_class}" if cells else ""
    return [
        arm.arm,
        str(len(arm.seeds)),
        format_interval(arm.test_macro_f1, 2),
        f"{worst.class_name}, {format_interval(worst.f1)}",
        f"{len(cells)}{strongest}",
        str(len(arm.confused_pairs)),
    ]


def _arrange_arm(arm: OutsideArm, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what the template shows of an arm: its tables as rows of text, and its figures."""
    humans = any(pair.human for pair in arm.confused_pairs) or any(cell.human for cell in arm.directed)
    reach = max((cell.rate.models.high for cell in arm.directed), default=1.0)
    reach = max(reach, 2 * CONFUSION_TOLERANCE)
    scores = sorted(arm.class_scores, key=lambda score: (score.num_images == 0, score.f1.estimate))
    pairs = sorted(arm.confused_pairs, key=lambda pair: -pair.rate.estimate)
    return {
        "finding": arm,
        "directed_columns": DIRECTED_COLUMNS + (HUMAN_COLUMNS if humans else ()),
        "pair_columns": PAIR_COLUMNS + (HUMAN_COLUMNS if humans else ()),
        "directed": [(_directed_cells(cell, humans), _bar(cell, reach)) for cell in arm.directed],
        "pairs": [_pair_cells(pair, humans) for pair in pairs],
        "clusters": [(", ".join(c.classes), format_percent(c.stability, 0)) for c in arm.clusters],
        "scores": [
            [s.class_name, format_count(s.num_images), *(format_interval(x) for x in (s.precision, s.recall, s.f1))]
            for s in scores
        ],
        "figures": _draw_matrices(arm, class_names),
    }


def _directed_cells(cell: DirectedConfusion, humans: bool) -> list[str]:
    decides = "" if cell.verdict is not Materiality.UNDECIDED else "none"
    if cell.images_to_decide is not None:
        decides = format_count(cell.images_to_decide)
    verdict = join_verdicts(cell.verdict, cell.recipe_verdict)
    cells = [cell.true_class, cell.predicted_class, format_interval(cell.rate), verdict]
    return [*cells, format_count(cell.num_images), decides, *_human_cells(cell.human, humans)]


def _bar(cell: DirectedConfusion, reach: float) -> RateBar:
    rate = cell.rate.models
    return RateBar(
        low=rate.low / reach,
        estimate=rate.estimate / reach,
        high=rate.high / reach,
        tolerance=CONFUSION_TOLERANCE / reach,
    )


def _pair_cells(pair: ConfusedPair, humans: bool) -> list[str]:
    excess = 100 * (pair.rate.estimate - pair.expected_rate)
    p_value = "<0.001" if pair.p_adjusted < ROUNDING else f"{pair.p_adjusted:.3f}"
    cells = [" and ".join(pair.classes), format_interval(pair.rate), format_percent(pair.expected_rate)]
    return [*cells, f"{excess:+.1f}", p_value, *_human_cells(pair.human, humans)]


def _human_cells(human: HumanExcess | None, humans: bool) -> list[str]:
    if not humans:
        return []
    if human is None:
        return ["—", "—", "—"]
    return [
        format_percent(human.human_rate),
        format_signed_pp(human.excess, ""),
        join_verdicts(human.word, human.recipe_word),
    ]


def _issue_cells(issue: Any) -> list[str]:
    quality = "<0.001" if issue.label_quality < ROUNDING else f"{issue.label_quality:.3f}"
    return [str(issue.sample_id), issue.label, issue.suggested, quality]


def _draw_matrices(arm: OutsideArm, class_names: Sequence[str]) -> list[tuple[ReportFigure, bool]]:
    """Return the figures of the confusion matrix, and whether each is shown at once: the others unfold."""
    figures = []
    is_large = len(class_names) > MOST_ANNOTATED_CLASSES
    chosen = _choose_confused(arm, class_names)
    if is_large and len(chosen) > 1:
        part = _select(arm.confusion, chosen)
        names = [class_names[c] for c in chosen]
        clusters = [cluster for cluster in arm.clusters if set(cluster.classes) <= set(names)]
        drawn = plot_confusion(part, names, f"{arm.arm}: the {len(names)} most confused classes", clusters)
        alt = f"Part of the confusion matrix of {arm.arm}: rates with intervals of the most confused classes."
        figures.append((embed_figure(drawn, alt), True))
    drawn = plot_confusion(arm.confusion, class_names, f"{arm.arm}: confusion matrix", arm.clusters)
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


def _select(confusion: Confusion, classes: Sequence[int]) -> Confusion:
    def take(matrix: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
        return tuple(tuple(matrix[i][j] for j in classes) for i in classes)

    return Confusion(counts=take(confusion.counts), rates=take(confusion.rates), excess=take(confusion.excess))

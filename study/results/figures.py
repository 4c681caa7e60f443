"""The figures of the findings, as PNGs and, where that is smaller, as SVG."""

from collections.abc import Sequence

from analysis.findings.arm_findings import ArmFinding
from analysis.findings.comparison_findings import ComparisonRow
from analysis.findings.intervention_findings import InterventionFindings
from analysis.report.arm_figures import plot_class_f1
from analysis.report.audit_figures import plot_ring_audits
from analysis.report.cause_figures import plot_root_causes
from analysis.report.comparison_figures import plot_interval_bars
from analysis.report.confusion_figures import plot_confusion
from analysis.report.figures import figure_to_png, figure_to_svg
from analysis.report.intervention_figures import plot_interventions
from analysis.report.search_figures import plot_arm_shares, plot_learning_curves, plot_rungs, plot_tuning_curves
from study.results.search_results import SearchResults
from trainables.records.record import TrialRecord


def draw_figures(
    arms: Sequence[ArmFinding],
    rows: Sequence[ComparisonRow],
    search: SearchResults,
    records: Sequence[TrialRecord],
    interventions: InterventionFindings | None,
) -> dict[str, bytes]:
    """Return every figure that there is something to draw in by file name: a PNG, and an SVG beside it where that is smaller.

    The colors of confusion matrices have no counterpart on a dark page, so that these are PNGs alone.

    Args:
        arms: findings about the arms.
        rows: of the A/B table.
        search: results of the search.
        records: of the search.
        interventions: of a study of interventions.
    """
    figures = {
        "class_f1.png": plot_class_f1(arms),
        "learning_curves.png": plot_learning_curves(_collect_curves(records), search.rung_epochs),
        "arm_shares.png": plot_arm_shares(search.arms),
    }
    if search.tuning_curves:
        figures["tuning_curves.png"] = plot_tuning_curves(search.tuning_curves)
    if any(rung.completed or rung.stopped for rung in search.rung_scores):
        figures["rungs.png"] = plot_rungs(search.rung_scores)
    if any(arm.ring_audits for arm in arms):
        figures["clever_hans.png"] = plot_ring_audits({arm.arm: arm.ring_audits for arm in arms})
    if any(cause.effects for arm in arms for cause in arm.root_causes):
        figures["root_causes.png"] = plot_root_causes({arm.arm: arm.root_causes for arm in arms})
    if interventions is not None and any(effect.target for effect in interventions.effects):
        figures["interventions.png"] = plot_interventions(interventions.effects)
    if rows:
        figures["comparison.png"] = plot_interval_bars(rows)
    for arm in arms:
        title = f"{arm.arm}: confusion on the test split, {len(arm.seeds)} seeds"
        class_names = [score.class_name for score in arm.class_scores]
        figures[f"confusion_{arm.arm}.png"] = plot_confusion(arm.confusion, class_names, title, arm.clusters)
    pngs = {name: figure_to_png(figure) for name, figure in figures.items()}
    drawings = {n: figure_to_svg(figure) for n, figure in figures.items() if not n.startswith("confusion_")}
    smaller = {svg_name(name): svg for name, svg in drawings.items() if len(svg) < len(pngs[name])}
    return pngs | smaller


def svg_name(name: str) -> str:
    """Return the name of the SVG beside a PNG."""
    return f"{name.removesuffix('.png')}.svg"


def _collect_curves(records: Sequence[TrialRecord]) -> dict[str, list[tuple[list[int], list[float | None], str]]]:
    """Return (epochs, macro-F1, state) of every trial, by arm."""
    curves: dict[str, list[tuple[list[int], list[float | None], str]]] = {}
    for record in records:
        epochs = [e.epoch for e in record.epochs]
        scores = [e.macro_f1 for e in record.epochs]
        curves.setdefault(record.config.arm, []).append((epochs, scores, record.state.value))
    return dict(sorted(curves.items()))

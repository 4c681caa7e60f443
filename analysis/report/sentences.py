"""Sentences on a whole study, and the texts of its figures."""

from collections.abc import Sequence

from analysis.arms.values import ArmFinding
from analysis.formats.numbers import format_percent
from analysis.heat_maps.render import describe_view
from analysis.report.study_findings import Findings
from analysis.search.values import SearchArm


def describe_report(findings: Findings) -> str:
    """Return when the report was created, and what the study compares."""
    factor = f"Compared: {findings.factor}. " if findings.factor else ""
    return f"Report created {findings.created}. {factor}{len(findings.class_names)} classes."


def describe_missing_gates(arms: Sequence[ArmFinding], search: Sequence[SearchArm]) -> list[str]:
    """Return a sentence for each arm of the search that has no finished run, and so does not pass the minimum."""
    judged = {arm.arm for arm in arms}
    return [
        f"{arm.arm} does not pass the minimum: all of its runs diverged." for arm in search if arm.arm not in judged
    ]


def describe_figure(key: str, findings: Findings) -> str:
    """Return the alternative text of a figure."""
    for panel in findings.panels:
        if findings.figures.get(key) == panel.figure:
            views = " ".join(describe_view(view) for view in panel.views)
            return f"Heat maps of image {panel.sample_id}, true class {panel.true_class}. {views}"
    known = _describe_known_figures(findings)
    for arm in findings.arms:
        known[f"confusion_{arm.arm}"] = (
            f"Confusion matrix of {arm.arm} on the test split: rates with confidence intervals; findings.json has the numbers."
        )
    return known.get(key, key.replace("_", " "))


def _describe_known_figures(findings: Findings) -> dict[str, str]:
    effects = findings.interventions.effects if findings.interventions else ()
    targets = "; ".join(f"{e.stated.arm}: {e.outcome}, target {e.target.verdict}" for e in effects if e.target)
    verdicts = "; ".join(f"{row.treatment} against {row.control}: {row.verdict}" for row in findings.rows)
    shares = ", ".join(f"{arm.arm} {format_percent(arm.share, 0)}" for arm in findings.search)
    arms = ", ".join(arm.arm for arm in findings.arms)
    return {
        "interventions": f"Predicted and measured change of each intervention's target. {targets}.",
        "comparison": f"Differences in macro-F1 with confidence intervals and the margin band: {verdicts}.",
        "arm_shares": f"Bar charts of the device time and the trials of each arm. Shares of device time: {shares}.",
        "learning_curves": "Macro-F1 on the search split against the epoch, one line per trial; pruned trials are dashed.",
        "clever_hans": "Accuracy loss of each class with a ring of another class, with intervals, per arm and ring width; the "
        "tables per class have the numbers.",
        "root_causes": "Bar charts of the effect of removing each cue, one per confused pair; the table has the numbers.",
        "tuning_curves": "Best macro-F1 so far on the search split against the device time of each arm's search.",
        "rungs": "Macro-F1 at the last epoch against macro-F1 at the rung, per rung and arm; the table has the numbers.",
        "class_f1": f"Bar chart of F1 per class with confidence intervals for {arms}; the tables have the numbers.",
    }

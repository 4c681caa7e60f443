"""Sentences on the comparison and the search, and the filters of the templates; nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.findings.arm_findings import ArmFinding
from analysis.findings.comparison_findings import Question, Verdict
from analysis.findings.study_findings import Findings
from analysis.report.forensic_sentences import (
    describe_admission,
    describe_audit,
    describe_cam_estimate,
    describe_cause,
    describe_clusters,
    describe_contrast,
    describe_decision,
    describe_directed,
    describe_effect,
    describe_focus,
    describe_frequencies,
    describe_passed,
    describe_symptom,
    describe_view,
)
from analysis.report.number_formats import (
    escape_markdown,
    format_bytes,
    format_correlation,
    format_count,
    format_estimate,
    format_gflops,
    format_interval,
    format_parameters,
    format_percent,
    format_pp,
    format_seconds,
    format_sentence,
    format_signed_pp,
    join_verdicts,
)
from analysis.report.side_metric_tables import build_side_cells, build_side_header, describe_side_metrics
from analysis.report.tables import TableRow, describe_divergence, describe_questions, describe_rule
from analysis.search.tuning_curves import find_lead_changes
from search_spaces.designs import NO_INTERACTION

_COMPLETED_ONLY = "Pruned and failed trials have no final score and are not shown."


def describe_report(findings: Findings) -> str:
    """Return when the report was created, and what the study compares."""
    factor = f"Compared: {findings.factor}. " if findings.factor else ""
    return f"Report created {findings.created}. {factor}{len(findings.class_names)} classes."


def describe_verdict(row: TableRow) -> str:
    """Return the verdict of an A/B row as a sentence, without its numbers."""
    treatment, control, margin = row.value.treatment, row.value.control, format_pp(row.value.margin)
    if control == NO_INTERACTION:
        return {
            Verdict.BETTER: f"{treatment}: the combined effect is larger than the sum of the individual effects.",
            Verdict.WORSE: f"{treatment}: the combined effect is smaller than the sum of the individual effects.",
            Verdict.EQUIVALENT: f"{treatment}: the effects are additive within the margin of {margin}.",
            Verdict.UNDECIDED: f"{treatment}: it is undecided whether the effects are additive.",
        }[row.value.verdict]
    size = {
        "material": f", and by more than the margin of {margin}",
        "negligible": f", but by less than the margin of {margin}",
    }.get(row.value.materiality, "")
    scope = " (these two models; with one seed, nothing is known about the recipe)"
    cause = " over all runs, of which more diverged on one side" if row.value.is_decided_by_divergence else ""
    return {
        Verdict.BETTER: f"{treatment} is better than {control}{cause}{size}",
        Verdict.WORSE: f"{treatment} is worse than {control}{cause}{size}",
        Verdict.EQUIVALENT: f"{treatment} and {control} are equivalent within the margin of {margin}",
        Verdict.UNDECIDED: f"Undecided: the data do not separate {treatment} from {control}",
    }[row.value.verdict] + f"{scope if row.value.question is Question.MODELS else ''}."


def describe_numbers(row: TableRow) -> str:
    """Return the numbers of an A/B row on one line."""
    cost = [row.cost] if row.value.cost_ratio is not None else []
    mde = [f"MDE {row.mde} pp"] if row.value.minimum_detectable_effect is not None else []
    return " | ".join([row.comparison, f"{row.effect} {row.interval}", row.verdict, row.seeds, *mde, *cost])


def describe_evidence(row: TableRow) -> str:
    """Return the number of seeds and images, the confidence and the minimum detectable effect of an A/B row."""
    rule = describe_rule(row)
    seeds = f"{row.value.num_seeds} paired seed{'s' if row.value.num_seeds > 1 else ''}"
    parts = [
        f"{seeds}, {format_count(row.value.num_images)} test images, {row.confidence} confidence interval.",
        ""
        if row.value.minimum_detectable_effect is None
        else f"Minimum detectable effect (MDE) at 80 % power: {row.mde} pp.",
        f"For these models on new images: {row.models}.",
        f"Also: {rule}." if rule else "",
        f"Divergence: {divergence}." if (divergence := describe_divergence(row.value)) else "",
    ]
    return " ".join(part for part in parts if part)


def describe_row_questions(rows: Sequence[TableRow]) -> str:
    """Return the questions that the intervals of a table answer, as sentences that end with a space."""
    found = describe_questions([row.value for row in rows])
    return (
        "".join(f"{sentence} " for sentence in found)
        or "The intervals cover the variation over seeds and test images. "
    )


def describe_class_differences(row: TableRow) -> str:
    """Return the classes whose F1 differs between the two arms."""
    flagged = [c for c in row.value.class_differences if c.is_flagged]
    named = ", ".join(f"{c.class_name} ({100 * c.effect.estimate:+.1f} pp)" for c in flagged) or "none"
    return (
        "Classes with a difference in F1, at a false discovery rate of 10 % (exploratory; Benjamini-Hochberg over "
        f"{len(row.value.class_differences)} classes): {named}."
    )


def describe_gate(arm: ArmFinding, minimum: float) -> str:
    """Return whether an arm passes the minimum, and the lower bound that decides it."""
    verb = "passes" if arm.minimum_cleared else "does not pass"
    recipe, limit = arm.test_macro_f1.recipe, format_percent(minimum, 2)
    if recipe is None:
        return f"{arm.arm} {verb} the minimum: one finished run gives no lower bound; the minimum is {limit}."
    of_all = ", but lower with its runs that diverged" if recipe.low > minimum and not arm.minimum_cleared else ""
    low = format_percent(recipe.low, 2)
    return (
        f"{arm.arm} {verb} the minimum: the recipe's lower bound of macro-F1 is {low}{of_all}, the minimum is {limit}."
    )


def describe_missing_gates(findings: Findings) -> list[str]:
    """Return a sentence for each arm that has no finished run, and so does not pass the minimum."""
    judged = {arm.arm for arm in findings.arms}
    return [
        f"{arm.arm} does not pass the minimum: all of its runs diverged."
        for arm in findings.search
        if arm.arm not in judged
    ]


def describe_search(findings: Findings) -> str:
    """Return how device time was allocated to the arms, and what the search knew before it started."""
    allocation = {
        "per_arm": "Each arm had its own sampler, its own brackets and an equal target share of the device time.",
        "pooled": "One sampler searched the whole space (allocation: pooled), so no two arms were compared.",
        "given": "The configurations were given, so nothing was searched; each was trained once before its confirmation seeds.",
    }[findings.allocation]
    sentences = [allocation]
    if findings.warm_start:
        sentences.append(f"The samplers were initialized with the trials of {findings.warm_start}.")
    return " ".join([*sentences, *findings.starts])


def describe_pruning(findings: Findings) -> str:
    """Return the epochs at which trials could be pruned, and the meaning of the time saved."""
    if not findings.rungs:
        return "Early stopping was disabled."
    epochs = "epoch" if len(findings.rungs) == 1 else "epochs"
    return (
        f"Trials could be pruned after {epochs} {', '.join(map(str, findings.rungs))}. The time saved is an estimate: the device "
        "time that the pruned trials would have needed to reach the last epoch, each at its own speed."
    )


def describe_tuning(findings: Findings) -> str:
    """Return which arm led at which device time of the search; "" if fewer than two arms have a tuning curve."""
    leaders = find_lead_changes(findings.tuning_curves)
    if not leaders:
        return ""
    (_, first), *later = leaders
    changes = "".join(f", then {arm} from {format_seconds(seconds)} of device time" for seconds, arm in later)
    return (
        f"Best score so far at equal device time: {first}{changes or ' throughout'}. This is one search per arm; another search "
        "may order the arms differently."
    )


def describe_search_plot(key: str) -> str:
    """Return the caption of one of Optuna's plots: which trials it shows, and how to read it."""
    kind = key if key.startswith("search_") else key.partition("_")[0]
    return {
        "parallel": f"One line per completed trial; darker lines have a higher macro-F1. {_COMPLETED_ONLY}",
        "slice": f"One point per completed trial; darker points are later trials. {_COMPLETED_ONLY}",
        "importance": "Importance for reaching the best 10 % of the completed trials (PED-ANOVA). The estimate is rough for "
        "fewer than about 50 completed trials.",
        "search_edf": "Fraction of the completed trials of each arm with a score at or below the value on the x axis.",
        "search_timeline": "Start and end of every trial of the search. COMPLETE: reached the last epoch; PRUNED: stopped at a "
        "rung; FAIL: diverged or crashed.",
    }[kind]


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
    for searched in findings.search:
        name = searched.arm
        known[f"parallel_{name}"] = (
            f"Parallel coordinates of {name}: hyperparameters and macro-F1 of its completed trials."
        )
        known[f"slice_{name}"] = f"Slice plots of {name}: macro-F1 of its completed trials against each hyperparameter."
        known[f"importance_{name}"] = (
            f"Bar chart of the hyperparameter importance in {name}: {_list_importances(findings, name)}"
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
        "search_edf": "Empirical distribution of macro-F1 over the completed trials, one curve per arm.",
        "search_timeline": "Timeline of the search: one bar per trial from start to end, colored by its final state.",
        "class_f1": f"Bar chart of F1 per class with confidence intervals for {arms}; the tables have the numbers.",
    }


def _list_importances(findings: Findings, arm: str) -> str:
    own = [f"{i.parameter} {format_percent(i.importance, 0)}" for i in findings.importances if i.arm == arm]
    return ", ".join(own) + "."


FILTERS: Mapping[str, Any] = {
    "percent": format_percent,
    "interval": format_interval,
    "seconds": format_seconds,
    "bytes": format_bytes,
    "count": format_count,
    "gflops": format_gflops,
    "parameters": format_parameters,
    "title": describe_report,
    "verdict": describe_verdict,
    "numbers": describe_numbers,
    "evidence": describe_evidence,
    "class_differences": describe_class_differences,
    "side_metrics": describe_side_metrics,
    "side_header": build_side_header,
    "side_cells": build_side_cells,
    "questions": describe_row_questions,
    "minimum": describe_gate,
    "missing_gates": describe_missing_gates,
    "audit": describe_audit,
    "cause": describe_cause,
    "contrast": describe_contrast,
    "effect": describe_effect,
    "frequencies": describe_frequencies,
    "admission": describe_admission,
    "passed": describe_passed,
    "cam_estimate": describe_cam_estimate,
    "focus": describe_focus,
    "estimate": format_estimate,
    "signed": format_signed_pp,
    "clusters": describe_clusters,
    "directed": describe_directed,
    "decision": describe_decision,
    "symptom": describe_symptom,
    "verdicts": join_verdicts,
    "view": describe_view,
    "correlation": format_correlation,
    "search": describe_search,
    "pruning": describe_pruning,
    "tuning": describe_tuning,
    "sentence": format_sentence,
    "md": escape_markdown,
}

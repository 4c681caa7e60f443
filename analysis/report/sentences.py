"""How the report says what was compared and searched: text from values, nothing computed."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.findings.arm_findings import ArmFinding
from analysis.findings.comparison_findings import Verdict
from analysis.findings.study_findings import Findings
from analysis.report.forensic_sentences import (
    describe_admission,
    describe_audit,
    describe_cause,
    describe_clusters,
    describe_contrast,
    describe_effect,
    describe_focus,
    describe_frequencies,
    describe_view,
)
from analysis.report.number_formats import (
    escape_markdown,
    format_bytes,
    format_correlation,
    format_count,
    format_estimate,
    format_interval,
    format_percent,
    format_pp,
    format_seconds,
    format_sentence,
    format_signed_pp,
    format_value,
)
from analysis.report.tables import TableRow, describe_rule
from analysis.search.tuning_curves import find_lead_changes
from search_spaces.designs import NO_INTERACTION


def describe_verdict(row: TableRow) -> str:
    """Return what an A/B row says, as a sentence without its numbers."""
    treatment, control, margin = row.value.treatment, row.value.control, format_pp(row.value.margin)
    if control == NO_INTERACTION:
        return {
            Verdict.BETTER: f"{treatment}: the two changes together give more than the sum of what each gives.",
            Verdict.WORSE: f"{treatment}: the two changes together give less than the sum of what each gives.",
            Verdict.EQUIVALENT: f"{treatment}: the two effects add up, within the margin of {margin}.",
            Verdict.UNDECIDED: f"{treatment}: undecided whether the two effects add up.",
        }[row.value.verdict]
    size = {
        "material": f", and by more than the margin of {margin}",
        "negligible": f", but by less than the margin of {margin}",
    }.get(row.value.materiality, "")
    return {
        Verdict.BETTER: f"{treatment} is better than {control}{size}.",
        Verdict.WORSE: f"{treatment} is worse than {control}{size}.",
        Verdict.EQUIVALENT: f"{treatment} and {control} are equivalent within the margin of {margin}.",
        Verdict.UNDECIDED: f"Undecided: these runs do not tell {treatment} from {control}.",
    }[row.value.verdict]


def describe_evidence(row: TableRow) -> str:
    """Return how sure an A/B row is: seeds, images, and the smallest difference that it could have found."""
    rule = describe_rule(row)
    return (
        f"{row.value.num_seeds} paired seeds, {format_count(row.value.num_images)} test images; interval at "
        f"{row.confidence}; a true difference of {row.mde} pp would be found with 80 % power (MDE)."
        + (f" Also: {rule}." if rule else "")
    )


def describe_class_differences(row: TableRow) -> str:
    """Return which classes the two arms differ on."""
    flagged = [c for c in row.value.class_differences if c.is_flagged]
    named = ", ".join(f"{c.class_name} ({100 * c.effect.estimate:+.1f} pp)" for c in flagged) or "none"
    return (
        f"Classes that differ in F1 at a false discovery rate of 10 % (exploratory, Benjamini-Hochberg over "
        f"{len(row.value.class_differences)} classes): {named}."
    )


def describe_gate(arm: ArmFinding, gate: float) -> str:
    """Return whether an arm clears the gate, and the lower bound that decides it."""
    word = "clears" if arm.gate_cleared else "does not clear"
    low = format_percent(arm.test_macro_f1.low, 2)
    return f"{arm.arm} {word} the gate: lower bound {low} of macro-F1, gate {format_percent(gate, 2)}."


def describe_search(findings: Findings) -> str:
    """Return how device time was shared out, and what the samplers knew before, as sentences."""
    shared = {
        "per_arm": "Every arm had its own sampler and its own brackets, and an equal part of the device time was aimed at.",
        "pooled": "One sampler searched the whole space (allocation: pooled), so no two arms were compared.",
        "given": "The configurations were given: nothing was searched, and each was trained once before its seeds.",
    }[findings.allocation]
    return f"{shared} The samplers started from the trials of {findings.warm_start}." if findings.warm_start else shared


def describe_tuning(findings: Findings) -> str:
    """Return which arm's search was ahead at which budget of device time, as a sentence; "" where there is nothing to compare."""
    leaders = find_lead_changes(findings.tuning_curves)
    if not leaders:
        return ""
    (_, first), *later = leaders
    changes = "".join(f", then {arm} from {format_seconds(seconds)} of device time on" for seconds, arm in later)
    return f"Expected best of the search, at equal device time: {first} is ahead{changes or ' throughout'}."


def search_plot_keys(arms: Sequence[str]) -> list[str]:
    """Return the figures' names of Optuna's plots, in the order in which they are shown."""
    own = [f"{kind}_{arm}" for arm in arms for kind in ("importance", "parallel", "slice")]
    return [*own, "search_edf", "search_timeline"]


def describe_search_plot(key: str) -> str:
    """Return the caption of one of Optuna's plots: which trials are in it, and how to read it."""
    kind = key if key.startswith("search_") else key.partition("_")[0]
    return {
        "parallel": "One line per trial that ran every epoch, darker where macro-F1 is higher. Stopped and failed trials have "
        "no last score and are not in it.",
        "slice": "One point per trial that ran every epoch, darker for later trials. Stopped and failed trials have no last "
        "score and are not in it.",
        "importance": "What told the best tenth of the trials that ran every epoch from all of them (PED-ANOVA); rough "
        "below about 50 such trials.",
        "search_edf": "Share of an arm's trials at or below a score, of those that ran every epoch.",
        "search_timeline": "Every trial of the search from start to end: COMPLETE ran every epoch, PRUNED was stopped at a rung, "
        "FAIL diverged or crashed.",
    }[kind]


def describe_figure(key: str, findings: Findings) -> str:
    """Return the alternative text of a figure: what a reader who does not see it needs to know."""
    arms = ", ".join(arm.arm for arm in findings.arms)
    known = {
        "comparison": f"Intervals of the differences in macro-F1 over the margin band: {_say_rows(findings)}",
        "arm_shares": f"Bars of each arm's share of the search's device time and of its trials: {_say_shares(findings)}",
        "learning_curves": "Macro-F1 on the search split over epochs, one line per trial, pruned trials dashed.",
        "clever_hans": "Accuracy that each class loses to a ring of another class, with intervals, per arm and ring; "
        "its numbers stand in the tables below.",
        "root_causes": "Bars of what taking each cue away gains for each confused pair; its numbers stand in the table.",
        "tuning_curves": "Expected best macro-F1 on the search split over the device-seconds of each arm's search, with bands.",
        "rungs": "Macro-F1 at the last epoch over macro-F1 at the rung, one panel per rung and arm; its numbers stand in the "
        "table above.",
        "search_edf": "Cumulative distribution of macro-F1 over the trials that ran every epoch, one curve per arm.",
        "search_timeline": "Bars from start to end of every trial of the search, coloured by final state.",
        "class_f1": f"Bars of F1 per class with intervals for {arms}; the numbers stand in the table below.",
    }
    known |= {
        f"confusion_{arm.arm}": f"Confusion matrix of {arm.arm} on the test split, rates with intervals; "
        "its numbers are in findings.json."
        for arm in findings.arms
    }
    for arm in findings.search:
        known |= {
            f"parallel_{arm.arm}": f"Parallel coordinates of {arm.arm}: hyperparameters and macro-F1 of its complete trials.",
            f"slice_{arm.arm}": f"Slices of {arm.arm}: macro-F1 of its complete trials over each hyperparameter.",
            f"importance_{arm.arm}": f"Bars of the importance of each hyperparameter of {arm.arm}: "
            f"{_say_importances(findings, arm.arm)}",
        }
    for panel in findings.panels:
        if findings.figures.get(key) == panel.figure:
            views = "; ".join(describe_view(view) for view in panel.views)
            return f"Grad-CAM panel of image {panel.sample_id}, true class {panel.true_class}: {views}."
    return known.get(key, key.replace("_", " "))


def _say_rows(findings: Findings) -> str:
    return "; ".join(f"{row.treatment} against {row.control}: {row.verdict}" for row in findings.rows) + "."


def _say_importances(findings: Findings, arm: str) -> str:
    own = [f"{i.parameter} {format_percent(i.importance, 0)}" for i in findings.importances if i.arm == arm]
    return ", ".join(own) + "."


def _say_shares(findings: Findings) -> str:
    return ", ".join(f"{arm.arm} {format_percent(arm.share, 0)}" for arm in findings.search) + "."


FILTERS: Mapping[str, Any] = {
    "percent": format_percent,
    "interval": format_interval,
    "pp": format_pp,
    "seconds": format_seconds,
    "bytes": format_bytes,
    "count": format_count,
    "value": format_value,
    "verdict": describe_verdict,
    "evidence": describe_evidence,
    "class_differences": describe_class_differences,
    "gate": describe_gate,
    "audit": describe_audit,
    "cause": describe_cause,
    "contrast": describe_contrast,
    "effect": describe_effect,
    "frequencies": describe_frequencies,
    "admission": describe_admission,
    "focus": describe_focus,
    "estimate": format_estimate,
    "signed": format_signed_pp,
    "clusters": describe_clusters,
    "view": describe_view,
    "correlation": format_correlation,
    "search": describe_search,
    "tuning": describe_tuning,
    "sentence": format_sentence,
    "md": escape_markdown,
}

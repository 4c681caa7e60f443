"""How the report says numbers and findings: text from values, nothing computed."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.findings import ArmFinding, Findings, RungFinding, Verdict
from analysis.forensic_findings import AuditVerdict, CamView, FrequencyAudit, GroupContrast, RingAudit, RootCause
from analysis.interval import Interval
from analysis.outside_forensics import OutsideArm
from analysis.root_cause import MIXED
from analysis.tables import TableRow, describe_rule
from analysis.tuning_curves import find_lead_changes
from search_spaces.designs import NO_INTERACTION

_MARKDOWN_ESCAPES = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "\n": " ",
        "\r": " ",
        **{character: f"\\{character}" for character in "\\`*_[]|#~$"},
    }
)


def format_percent(fraction: float | None, decimals: int = 1) -> str:
    """Return a fraction in percent: "65.3 %"; a dash where there is none."""
    return "—" if fraction is None else f"{100 * fraction:.{decimals}f} %"


def format_interval(interval: Interval, decimals: int = 1) -> str:
    """Return a fraction with its interval in percent: "65.3 % [63.9, 66.7]"."""
    low, high = (f"{100 * end:.{decimals}f}" for end in (interval.low, interval.high))
    return f"{format_percent(interval.estimate, decimals)} [{low}, {high}]"


def format_pp(fraction: float) -> str:
    """Return a difference of fractions in percentage points without sign: "0.5 pp"."""
    return f"{100 * fraction:g} pp"


def format_seconds(seconds: float) -> str:
    """Return a duration in the two units that matter: "7.4 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def format_bytes(num_bytes: int) -> str:
    """Return a size in binary units: "512 B", "1.2 GiB"; a dash for 0, which means not measured."""
    if num_bytes == 0:
        return "—"
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_count(count: float) -> str:
    """Return a count: "950", "11.2 M" from a million on."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,.0f}"


def format_value(value: Any) -> str:
    """Return a setting: floats with four significant digits, lists with commas, the rest as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value) or "none"
    return "none" if value is None else str(value)


def flatten_passport(passport: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Return (dotted key, text) for every leaf, in the passport's order."""
    lines: list[tuple[str, str]] = []
    for key, value in passport.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines.extend(flatten_passport(value, f"{name}."))
        else:
            lines.append((name, format_value(value)))
    return tuple(lines)


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


def describe_clusters(arm: ArmFinding | OutsideArm) -> str:
    """Return which classes an arm confuses as a group, and how stable that is."""
    if not arm.confused_pairs:
        return f"No pair of classes is confused more often than chance by {arm.arm}."
    if not arm.clusters:
        return "The pairs below are confused more often than chance, but no group of them stands in 95 % of the bootstraps."
    named = "; ".join(
        f"{', '.join(c.classes)} (together in {format_percent(c.stability, 0)} of the bootstraps)" for c in arm.clusters
    )
    return f"Clusters: {named}."


def describe_audit(audit: RingAudit) -> str:
    """Return an audit's verdict with the numbers and the rule that it rests on."""
    failed = [c for c in audit.classes if c.verdict is AuditVerdict.FAIL]
    confirmed = [c.class_name for c in failed if c.is_confirmed]
    words = {
        AuditVerdict.FAIL: f"FAIL: {', '.join(c.class_name for c in failed)}",
        AuditVerdict.PASS: "PASS: no class loses more than the tolerance",
        AuditVerdict.UNDECIDED: "UNDECIDED: no class fails, but not every class passes",
    }[audit.verdict]
    if failed:
        words += f"; confirmed where the ring holds no object: {', '.join(confirmed) or 'none'}"
        words += f"; it is read {place_region(audit.region)}"
    return (
        f"{words}. Over all classes a ring of another class costs {format_signed_pp(audit.gap)}; from the ring alone "
        f"{format_interval(audit.ring_only_accuracy)} are right, by chance {format_percent(audit.chance)}."
    )


def place_region(region: str) -> str:
    """Return a part of the ring as a place: "in the top left corner", "on the left side", "all around"."""
    return (
        f"in the {region}" if region.endswith("corner") else f"on the {region}" if region.endswith("side") else region
    )


def describe_frequencies(audit: FrequencyAudit) -> str:
    """Return the frequency test's verdict with the numbers that it rests on."""
    words = {
        AuditVerdict.FAIL: "FAIL: the arm reads waves that fill the whole picture",
        AuditVerdict.PASS: "PASS: exchanging them costs less than the tolerance",
        AuditVerdict.UNDECIDED: "UNDECIDED",
    }[audit.verdict]
    waves = ", ".join(f"{down}x{across}" for down, across in audit.waves)
    return (
        f"{words}. The waves of another class instead of the own one cost {format_signed_pp(audit.gap)} of accuracy. Exchanged "
        f"were the waves whose power tells classes apart most beyond their neighbours' (periods down x across): {waves}. "
        "A wave of few periods is a part of the objects' coarse layout too, so the cost is an upper bound of what such a wave "
        "alone is worth."
    )


def describe_admission(arm: ArmFinding) -> str:
    """Return whether an arm's heat maps count as evidence, and what failed where they do not."""
    found = arm.cam_admission
    if found is None:
        return f"The heat maps of {arm.arm} were not tested, so they are not admitted as evidence."
    failed = ", ".join(test.name for test in found.tests if not test.is_passed)
    height, width = found.map_size
    what = f"maps of {height}x{width} cells from {found.layer}, {format_count(found.num_images)} images"
    if found.is_admitted:
        return f"The heat maps of {arm.arm} are admitted as evidence: all four tests were passed ({what})."
    return f"The heat maps of {arm.arm} are not admitted as evidence: {failed} ({what})."


def describe_focus(arm: ArmFinding) -> str:
    """Return how much of the maps' energy lies on the object beyond chance; "" where no masks are known."""
    found = arm.cam_admission
    if found is None or found.object_focus is None:
        return ""
    return (
        f"Share of the maps' energy on the object, less that in other images' masks (which takes the bias to the centre away): "
        f"{format_signed_pp(found.object_focus)}."
    )


def format_estimate(interval: Interval) -> str:
    """Return a plain number with its interval: "0.12 [0.05, 0.19]"."""
    return f"{interval.estimate + 0.0:.2f} [{interval.low + 0.0:.2f}, {interval.high + 0.0:.2f}]"


def format_signed_pp(interval: Interval) -> str:
    """Return a difference of fractions in percentage points: "+12.3 pp [+8.1, +16.5]"."""
    estimate, low, high = (100 * x + 0.0 for x in (interval.estimate, interval.low, interval.high))
    return f"{estimate:+.1f} pp [{low:+.1f}, {high:+.1f}]"


def describe_cause(cause: RootCause) -> str:
    """Return the verdict on a confused pair with what it rests on."""
    if cause.note:
        return f"not measured: {cause.note}"
    if cause.cause == MIXED:
        return f"mixed: no cue leads beyond error ({cause.num_images} images)"
    return f"{cause.cause}, ahead of the next cue by {cause.lead.estimate:.2f} [{cause.lead.low:.2f}, {cause.lead.high:.2f}]"


def describe_effect(cause: RootCause, cue: str) -> str:
    """Return one cue's Shapley value with its interval, in logits; a dash where it was not measured."""
    for found in cause.effects:
        if found.cue == cue:
            return f"{found.effect.estimate:+.2f} [{found.effect.low:+.2f}, {found.effect.high:+.2f}]"
    return "—"


def describe_contrast(contrast: GroupContrast, arm: str) -> str:
    """Return how an arm does on two groups of classes, with the classes as the unit."""
    one, other = contrast.groups
    return (
        f"{arm}: mean F1 of the {one} classes minus that of the {other} ones {100 * contrast.difference:+.1f} pp, exact "
        f"permutation p {contrast.p_value:.3f} over {contrast.num_classes} classes (the least that so few classes can have is "
        f"{contrast.smallest_p:.3f})."
    )


def describe_gate(arm: ArmFinding, gate: float) -> str:
    """Return whether an arm clears the gate, and the lower bound that decides it."""
    word = "clears" if arm.gate_cleared else "does not clear"
    low = format_percent(arm.test_macro_f1.low, 2)
    return f"{arm.arm} {word} the gate: lower bound {low} of macro-F1, gate {format_percent(gate, 2)}."


def describe_view(view: CamView) -> str:
    """Return what one arm says of a panel's image, and from which layer its map comes."""
    height, width = view.map_size
    empty = "; degenerate map" if view.degenerate else ""
    return (
        f"{view.arm} says {view.predicted_class} ({format_percent(view.predicted_probability, 0)}; true class "
        f"{format_percent(view.true_probability, 0)}), map of {height}x{width} cells from {view.layer}{empty}"
    )


def format_correlation(rung: RungFinding) -> str:
    """Return a rung's rank correlation with its interval, "0.87 [0.55, 0.97]"; without where it has none; or a dash."""
    if rung.rank_correlation is None:
        return "—"
    if rung.interval is None:
        return f"{rung.rank_correlation:.2f}"
    return f"{rung.rank_correlation:.2f} [{rung.interval.low:.2f}, {rung.interval.high:.2f}]"


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


def format_sentence(clause: str) -> str:
    """Return a clause as a sentence: a capital first, a full stop last."""
    return f"{clause[:1].upper()}{clause[1:]}."


def escape_markdown(text: object) -> str:
    """Return text that markdown shows as it is, on one line, also inside a table."""
    return str(text).translate(_MARKDOWN_ESCAPES)


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

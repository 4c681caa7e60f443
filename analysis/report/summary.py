"""Sentences on a whole study: which arm, how sure, where it fails and what helps; and the texts of its figures.

Nothing is computed here.
"""

from collections.abc import Mapping, Sequence

from analysis.arms.values import ArmFinding, ModelAudit
from analysis.baselines.render import compare_with_probe, describe_conflict
from analysis.baselines.values import LINEAR_PROBE
from analysis.causes.values import MIXED
from analysis.comparison.tables import TableRow, format_difference
from analysis.comparison.values import Question, Verdict
from analysis.confusions.values import Materiality
from analysis.formats.numbers import format_count, format_interval, format_percent, format_pp, format_signed_pp
from analysis.heat_maps.render import describe_view
from analysis.heat_maps.values import CamPanel
from analysis.interventions.values import InterventionFindings
from analysis.report.study_findings import Findings
from analysis.search.values import SearchArm
from analysis.shortcuts.values import AuditVerdict, ClassAudit
from search_spaces.designs import NO_INTERACTION
from search_spaces.errors import count_noun

WHICH, CERTAINTY, FAILURES = "Which", "How sure", "Where it fails, and what helps"
# Completed search trials of an arm below which its configuration was hardly chosen.
FEW_TRIALS = 3
MOST_NAMES = 4


def summarize(
    findings: Findings, rows: Sequence[TableRow], rounds: Mapping[str, InterventionFindings]
) -> tuple[tuple[str, str], ...]:
    """Return (question, answer in words) for the three questions that a reader asks first; nothing without arms.

    Args:
        findings: of the study.
        rows: of its A/B table.
        rounds: what its interventions did, by the name of their study.
    """
    if not findings.arms:
        return ()
    winner = max(findings.arms, key=lambda arm: arm.test_macro_f1.estimate)
    return (
        (WHICH, " ".join(_say_which(findings, winner, rows))),
        (CERTAINTY, " ".join(_say_how_sure(findings, rows))),
        (FAILURES, " ".join([*_say_where(winner), *_say_what_helps(findings, rounds)])),
    )


def _say_which(findings: Findings, winner: ArmFinding, rows: Sequence[TableRow]) -> list[str]:
    score = format_percent(winner.test_macro_f1.estimate)
    direct = [row for row in rows if winner.arm in (row.value.treatment, row.value.control)]
    of_arms = " of the arms" if findings.baselines and findings.baselines.row else ""
    sentences = [f"{winner.arm} has the highest macro-F1{of_arms} on the test split, {score}."]
    if len(findings.arms) == 1:
        sentences = [f"{winner.arm}, the only arm, has a macro-F1 of {score} on the test split."]
    sentences += _say_baseline(findings, winner.arm)
    if direct and all(row.value.verdict is Verdict.UNDECIDED for row in rows):
        sentences.append("No difference between the arms is certain.")
    # The rows of a factorial design compare levels of factors, and no row the winner.
    shown = direct or [row for row in rows if row.value.control != NO_INTERACTION]
    sentences += [_compare(row) for row in shown[:MOST_NAMES]]
    if len(shown) > MOST_NAMES:
        sentences.append(f"{len(shown) - MOST_NAMES} more rows are in the table.")
    if findings.interventions is not None:
        sentences.append(findings.interventions.conclusion)
    return sentences


def _say_baseline(findings: Findings, best: str) -> list[str]:
    """Return what is handed over, and how the best arm compares with the study's probe; `best` is the arm named before."""
    found = findings.baselines
    if found is None or not found.handed_over:
        return []
    handed = "The probe" if found.handed_over == LINEAR_PROBE else found.handed_over
    sentences = [f"{'It' if handed == best else handed} is handed over."]
    sentences += describe_conflict(found, findings.rows, findings.argument or findings.study)
    if found.probe is None:
        score = format_percent(found.majority.test_macro_f1)
        return [*sentences, f"Always predicting the majority class gives a macro-F1 of {score}.", *found.notes]
    return sentences if found.row is None else [*sentences, f"{compare_with_probe(found, found.winner)}."]


def _compare(row: TableRow) -> str:
    """Return a row as a sentence, with the better side first."""
    value = row.value
    over_all = value.all_runs_effect if value.is_decided_by_divergence else None
    shown = format_difference(over_all) if over_all else f"{row.effect} {row.interval}"
    scope = " for these models" if value.question is Question.MODELS else " over all runs" if over_all else ""
    if value.verdict is Verdict.EQUIVALENT:
        return (
            f"{value.treatment} and {value.control} are equivalent{scope} within {format_pp(value.margin)} ({shown})."
        )
    if value.verdict is Verdict.UNDECIDED:
        return f"{row.comparison}{scope}: {shown}, not significant (UNDECIDED)."
    return f"{value.treatment} is {value.verdict.lower()} than {value.control}{scope}: {shown}."


def _say_how_sure(findings: Findings, rows: Sequence[TableRow]) -> list[str]:
    sentences = []
    if rows:
        first = rows[0].value
        seeds = count_noun(first.num_seeds, "paired seed")
        scope = "new test images alone" if first.question is Question.MODELS else "new seeds and new test images"
        sentences.append(f"{seeds} and {format_count(first.num_images)} test images; the verdict holds for {scope}.")
    if findings.folds:
        sentences.append(
            "Each test image was tested once per seed, by a model that had not seen it: every seed cut the test split into "
            f"{findings.folds} folds anew, and a trial trained on all images but its fold. Audits, causes and heat maps are of "
            f"all test images and the {findings.folds} models of an arm's first seed: each image is judged by the one that has "
            "not seen it, and what is swapped into it comes from images of its own fold."
        )
    open_rows = [row for row in rows if row.value.settles]
    sentences += [f"{row.comparison}: {row.value.settles}." for row in open_rows[:MOST_NAMES]]
    few = [arm for arm in findings.search if arm.num_completed < FEW_TRIALS and findings.allocation != "given"]
    if few:
        counts = ", ".join(f"{arm.arm} {arm.num_completed}" for arm in few)
        sentences.append(f"Hardly searched, by complete trials: {counts}.")
    if findings.warnings:
        sentences.append(f"{count_noun(len(findings.warnings), 'warning')} below.")
    return sentences or ["One arm, so no arms were compared."]


def _say_where(winner: ArmFinding) -> list[str]:
    sentences = [_say_confusion(winner)]
    failing = list_failing(winner)
    if failing:
        worst = max(failing, key=lambda found: found.gap.estimate)
        others = f" and {len(failing) - 1} more class{'' if len(failing) == 2 else 'es'}" if len(failing) > 1 else ""
        sentences.append(
            f"It leans on the surroundings: {worst.class_name}{others} fail{'' if others else 's'} the Clever Hans audit "
            f"({worst.class_name} loses {format_signed_pp(worst.gap.models).replace('+', '')})."
        )
    if winner.frequency_audit is not None and winner.frequency_audit.verdict is AuditVerdict.FAIL:
        sentences.append("It fails the frequency audit.")
    return sentences


def _say_confusion(winner: ArmFinding) -> str:
    if not winner.directed:
        return f"{winner.arm} confuses no class more often than by chance."
    material = [cell for cell in winner.directed if cell.verdict is Materiality.MATERIAL]
    first = (material or list(winner.directed))[0]
    rate = format_interval(first.rate.models)
    sentence = f"{first.true_class} is predicted as {first.predicted_class} in {rate} of its images"
    pair = {first.true_class, first.predicted_class}
    causes = [found.cause for found in winner.root_causes if set(found.classes) == pair]
    named = [cause for cause in causes if cause not in (None, MIXED)]
    sentence += f", for which the {named[0]} is the cause" if named else ""
    more = len(material) - 1
    return f"{sentence}{f'; {more} more confusions are material' if more > 1 else '; one more is material' if more == 1 else ''}."


def list_failing(winner: ArmFinding | ModelAudit) -> list[ClassAudit]:
    """Return the classes that fail the first Clever Hans audit of an arm or of a model."""
    classes = winner.ring_audits[0].classes if winner.ring_audits else ()
    return [found for found in classes if found.verdict is AuditVerdict.FAIL]


def _say_what_helps(findings: Findings, rounds: Mapping[str, InterventionFindings]) -> list[str]:
    if rounds:
        return [f"Tried in {name}: {found.conclusion}" for name, found in rounds.items()]
    if findings.interventions is not None:
        return []
    return [f"What would help has not been tried yet: `study intervene {findings.argument or findings.study}`."]


def describe_report(findings: Findings) -> str:
    """Return when the report was created, and what the study compares."""
    factor = f"Compared: {findings.factor}. " if findings.factor else ""
    return f"Report created {findings.created}. {factor}{len(findings.class_names)} classes."


def describe_missing_gates(arms: Sequence[ArmFinding], search: Sequence[SearchArm]) -> list[str]:
    """Return a sentence for each arm of the search that has no finished run, and so does not pass the minimum."""
    judged = {arm.arm for arm in arms}
    failed = [arm.arm for arm in search if arm.arm not in judged]
    return [f"{arm} does not pass the minimum: all of its runs diverged." for arm in failed]


def describe_figures(findings: Findings, panels: Sequence[tuple[CamPanel, str]]) -> dict[str, str]:
    """Return the alternative texts of the figures that have a place in a section, by key, whether or not they were drawn.

    Args:
        findings: of the study.
        panels: of heat maps, with the keys of their figures.
    """
    effects = findings.interventions.effects if findings.interventions else ()
    targets = "; ".join(f"{e.stated.arm}: {e.outcome}, target {e.target.verdict}" for e in effects if e.target)
    shown_rows = [row.winner_first() for row in findings.rows]
    verdicts = "; ".join(f"{row.treatment} against {row.control}: {row.verdict}" for row in shown_rows)
    shares = ", ".join(f"{arm.arm} {format_percent(arm.share, 0)}" for arm in findings.search)
    arms = ", ".join(arm.arm for arm in findings.arms)
    texts = {
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
    for arm in findings.arms:
        texts[f"confusion_{arm.arm}"] = (
            f"Confusion matrix of {arm.arm} on the test split: rates with confidence intervals; findings.json has the numbers."
        )
    for panel, key in panels:
        views = " ".join(map(describe_view, panel.views))
        texts[key] = f"Heat maps of image {panel.sample_id}, true class {panel.true_class}. {views}"
    return texts

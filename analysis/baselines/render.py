"""Baselines as text: their scores, what the study hands over, and the verdict against the linear probe."""

from collections.abc import Iterable
from dataclasses import asdict

from analysis.baselines.values import LINEAR_PROBE, BaselineFindings, describe_training_images, name_baseline
from analysis.comparison import tables
from analysis.comparison.values import ChoiceRule, ComparisonRow, Question, Verdict
from analysis.formats.numbers import format_percent, format_seconds
from analysis.formats.table_formats import FittedTable, to_csv, to_terminal
from search_spaces.errors import list_some

BASELINE_HEADER = ("baseline", "macro-F1, search", "confirm", "test", "training images", "time")
_ROW_COLUMNS = ("effect_pp", "low_pp", "high_pp", "verdict", "treatment", "divergence")


def describe_handover(found: BaselineFindings, rows: Iterable[ComparisonRow], study: str) -> list[str]:
    """Return which model is handed over and why, and the verdict on the best arm against the study's probe.

    Args:
        found: with the choice.
        rows: of the arms.
        study: its name or path, for commands.
    """
    verdict = compare_with_probe(found, found.winner)
    return [*_say_why(found, rows, study), *([f"{verdict}."] if verdict else []), *_describe_evidence(found)]


def describe_below_table(found: BaselineFindings, rows: Iterable[ComparisonRow], study: str) -> list[str]:
    """Return the sentences below the table of a report, whose first answer has the verdict, or the notes without a probe."""
    return [*_say_why(found, rows, study), *_describe_evidence(found), *(found.notes if found.probe else ())]


def compare_with_probe(found: BaselineFindings, name: str) -> str:
    """Return the verdict on the winner, called `name`, against the study's probe, without a period; "" without a row."""
    row, probe = found.row, found.probe
    if row is None or probe is None:
        return ""
    verbs = {Verdict.BETTER: "is better than", Verdict.WORSE: "is worse than"}
    scope = f", but equivalent within {100 * row.margin:g} pp" if row.verdict is Verdict.EQUIVALENT else ""
    scope += " for these models" if row.question is Question.MODELS else ""
    over_all = row.all_runs_effect if row.is_decided_by_divergence else None
    scope += " over all runs" if over_all else ""
    return (
        f"{name} {verbs.get(row.verdict, 'is not shown to be better than')} a linear probe on frozen features of "
        f"{probe.backbone} (macro-F1 {format_percent(probe.test_macro_f1)} after {format_seconds(probe.seconds)}){scope}: "
        f"{tables.format_difference(over_all or row.effect)}"
    )


def list_baseline_cells(found: BaselineFindings) -> list[list[str]]:
    """Return the cells of each baseline in the order of `BASELINE_HEADER`."""
    chosen = found.probe if len(found.probes) > 1 else None
    return [
        [
            f"{name_baseline(one) if one.backbone else one.name}{' (chosen)' if one is chosen else ''}",
            *(format_percent(score, 2) for score in (one.search_macro_f1, one.confirm_macro_f1, one.test_macro_f1)),
            describe_training_images(one),
            format_seconds(one.seconds),
        ]
        for one in (found.majority, *found.probes)
    ]


def list_baseline_rows(found: BaselineFindings | None) -> list[tables.TableRow]:
    """Return the row of the winner against the probe as text, for the end of the A/B table; none without it."""
    return [] if found is None or found.row is None else list(tables.build_table_rows([found.row]))


def build_baseline_rich_table(found: BaselineFindings) -> FittedTable:
    """Return the table of baselines for a terminal."""
    return to_terminal("Baselines: scores and cost", BASELINE_HEADER, list_baseline_cells(found))


def build_baseline_csv(found: BaselineFindings) -> str:
    """Return a line per baseline as csv, scores as fractions; that of the study's probe has columns of `found.row`."""
    row = tables.list_values(found.row) if found.row else {}
    of_row, nothing = {key: row.get(key) for key in _ROW_COLUMNS}, dict.fromkeys(_ROW_COLUMNS)
    baselines = (found.majority, *found.probes)
    return to_csv([asdict(one) | (of_row if one is found.probe else nothing) for one in baselines])


def _say_why(found: BaselineFindings, rows: Iterable[ComparisonRow], study: str) -> list[str]:
    if found.choice is None:
        return []
    choice, probe = found.choice, found.probe
    scores = {arm: format_percent(score) for arm, score in choice.confirm_macro_f1.items()}
    if found.handed_over == LINEAR_PROBE and probe is not None:
        why = (
            f"The {name_baseline(probe)} is handed over: its macro-F1 on the confirm split, "
            f"{format_percent(probe.confirm_macro_f1)}, is higher than that of {choice.arm}, {scores[choice.arm]}."
        )
        return [why, *describe_conflict(found, rows, study)]
    if choice.rule is ChoiceRule.ONLY:
        why = f"{choice.arm}, the only arm, is handed over; macro-F1 on the confirm split {scores[choice.arm]}."
        return [why, *describe_conflict(found, rows, study)]
    others = sorted((arm for arm in scores if arm != choice.leader), key=lambda arm: -choice.confirm_macro_f1[arm])
    assert choice.effect is not None
    shown = f"{scores[choice.leader]} against {scores[others[0]]}, {tables.format_difference(choice.effect)}"
    if choice.rule is ChoiceRule.DECIDED:
        why = f"{choice.arm} is handed over: on the confirm split it is better than every other arm ({shown})."
        return [why, *describe_conflict(found, rows, study)]
    pooled = dict(sorted(choice.pooled_macro_f1.items(), key=lambda item: -item[1]))
    tied = list_some([choice.leader, *(arm for arm in others if arm in pooled)])
    by = ", ".join(f"{arm} {format_percent(score)}" for arm, score in pooled.items())
    reason = (
        "has the highest macro-F1 on the search and confirm images together"
        if choice.rule is ChoiceRule.POOLED
        else "costs the least device time of those with the highest macro-F1 on the search and confirm images together"
    )
    why = f"{choice.arm} is handed over: {tied} are tied on the confirm split ({shown}), and it {reason} ({by})."
    return [why, *describe_conflict(found, rows, study)]


def describe_conflict(found: BaselineFindings, rows: Iterable[ComparisonRow], study: str) -> list[str]:
    """Return a sentence for each arm that the verdicts say is better than the one that is handed over; mostly none."""
    chosen, shown = found.handed_over, [row.winner_first() for row in rows]
    return [
        f"But {row.treatment} is better than {chosen} on the test split, which judges and never chooses; "
        f"`study export {study}` writes both, as export/{chosen} and export/{row.treatment}."
        for row in shown
        if row.verdict is Verdict.BETTER and row.control == chosen
    ]


def _describe_evidence(found: BaselineFindings) -> list[str]:
    row = found.row
    if row is None:
        return []
    probe = "The probe was fitted anew for each seed and fold" if found.folds else "The probe is one fixed model"
    text = tables.build_table_rows([row])[0]
    seeds = "" if row.question is Question.MODELS else f"new seeds of {row.treatment} and "
    notes = (tables.describe_rule(text), tables.describe_divergence(row), row.settles)
    return [
        f"The interval of {row.treatment} against the probe ({text.confidence} confidence, {text.seeds}, "
        f"{row.num_images:,} test images) covers {seeds}new test images. {probe} for these training images. "
        "The row has its own alpha, outside the family of arms.",
        *(f"{text.comparison}: {note}." for note in notes if note),
        *([tables.PLAN_CHANGED] if row.plan_changed else []),
    ]

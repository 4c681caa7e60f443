"""Baselines as text: their scores, what the study hands over, and the verdict against the linear probe."""

from collections.abc import Iterable
from dataclasses import asdict

from rich.table import Table

from analysis.baselines.values import LINEAR_PROBE, BaselineFindings, describe_training_images, name_baseline
from analysis.comparison import tables
from analysis.comparison.values import ComparisonRow, Question, Verdict
from analysis.formats.numbers import format_percent, format_seconds, format_signed_pp
from analysis.formats.table_formats import to_csv, to_terminal

BASELINE_HEADER = ("baseline", "macro-F1, search", "confirm", "test", "training images", "time")
_ROW_COLUMNS = ("effect_pp", "low_pp", "high_pp", "verdict", "treatment", "divergence")


def describe_handover(found: BaselineFindings, rows: Iterable[ComparisonRow] = ()) -> list[str]:
    """Return which model is handed over and why, and the verdict on the winner against the study's probe; `rows` are of arms."""
    verdict = compare_with_probe(found, found.winner)
    return [*_say_why(found, rows), *([f"{verdict}."] if verdict else []), *_describe_evidence(found)]


def describe_below_table(found: BaselineFindings, rows: Iterable[ComparisonRow] = ()) -> list[str]:
    """Return the sentences below the table of a report, whose first answer has the verdict, or the notes without a probe."""
    return [*_say_why(found, rows), *_describe_evidence(found), *(found.notes if found.probe else ())]


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
        f"{format_signed_pp(over_all or row.effect)}"
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


def build_baseline_rich_table(found: BaselineFindings) -> Table:
    """Return the table of baselines for a terminal of at least 80 columns."""
    return to_terminal("Baselines: scores and cost", BASELINE_HEADER, list_baseline_cells(found))


def build_baseline_csv(found: BaselineFindings) -> str:
    """Return a line per baseline as csv, scores as fractions; that of the study's probe has columns of `found.row`."""
    row = tables.list_values(found.row) if found.row else {}
    of_row, nothing = {key: row.get(key) for key in _ROW_COLUMNS}, dict.fromkeys(_ROW_COLUMNS)
    baselines = (found.majority, *found.probes)
    return to_csv([asdict(one) | (of_row if one is found.probe else nothing) for one in baselines])


def _say_why(found: BaselineFindings, rows: Iterable[ComparisonRow]) -> list[str]:
    score = f"the {name_baseline(found.probe)} ({format_percent(found.probe.confirm_macro_f1)})" if found.probe else ""
    own = format_percent(found.winner_confirm_macro_f1)
    if found.handed_over == LINEAR_PROBE:
        return [
            f"On the confirm split, {score} has a higher macro-F1 than the mean of every arm ({found.winner}: {own}): "
            "it is handed over."
        ]
    beside = f", not below {score}" if score else ""
    why = f"On the confirm split, {found.winner} has the highest mean macro-F1 of the arms ({own}){beside}: it is handed over."
    return [why, *_say_conflict(found.handed_over, rows)] if found.handed_over else []


def _say_conflict(chosen: str, rows: Iterable[ComparisonRow]) -> list[str]:
    """Return a sentence for each arm that the verdicts say is better than the one that is handed over."""
    better = [row.treatment for row in rows if row.verdict is Verdict.BETTER and row.control == chosen]
    better += [row.control for row in rows if row.verdict is Verdict.WORSE and row.treatment == chosen]
    also = "which chooses no model; `study export` writes every arm."
    return [f"But {arm} is better than {chosen} on the test split, {also}" for arm in better]


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

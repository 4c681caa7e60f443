"""The interventions of a study as text: terminal, csv, and the cells of the report's tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from analysis.findings.interval import Interval
from analysis.findings.intervention_findings import (
    InterventionEffect,
    InterventionFindings,
    Outcome,
    StatedIntervention,
    StatedInterventions,
    TargetKind,
)
from analysis.report.number_formats import format_percent, format_seconds, format_value, shorten
from analysis.report.table_formats import to_csv

STATED_CHANGED = (
    "The targets or predictions of the interventions were changed after they were written, so that their verdicts do not hold as "
    "they are stated."
)
STATED_HEADER = (
    *("intervention", "changes", "symptom", "diagnosis", "verdict", "target", "predicted change", "refuted if"),
    "should spare",
)
MEASURED_HEADER = (
    *("intervention", "predicted (pp)", "measured (pp)", "target", "prediction", "macro-F1 (pp)", "verdict"),
    *("largest loss elsewhere (pp)", "ring gap (pp)", "seeds", "cost"),
)
NOTHING = "—"
NO_PREDICTION = "no prediction"


@dataclass(frozen=True, slots=True, kw_only=True)
class InterventionTables:
    """The report's tables: what was stated before, and what was measured.

    Attributes:
        stated: cells in the order of `STATED_HEADER`, one row per intervention.
        measured: cells in the order of `MEASURED_HEADER`.
        notes: sentences below the tables.
    """

    stated: tuple[tuple[str, ...], ...]
    measured: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def build_intervention_tables(found: InterventionFindings) -> InterventionTables:
    """Return the tables of a study of interventions."""
    return InterventionTables(
        stated=tuple(map(list_stated_cells, found.stated.interventions)),
        measured=tuple(map(_list_measured_cells, found.effects)),
        notes=(*describe_interventions(found), *describe_shares(found.effects)),
    )


def list_stated_cells(stated: StatedIntervention) -> tuple[str, ...]:
    """Return what an intervention states, in the order of `STATED_HEADER`."""
    return (
        f"{stated.arm}: {stated.title}",
        describe_changes(stated),
        stated.symptom,
        stated.diagnosis,
        stated.verdict,
        f"{describe_target(stated)}, {stated.num_target_images} images{', seen' if stated.is_seen else ''}",
        _describe_prediction(stated),
        stated.refuted_by,
        stated.spares,
    )


def describe_changes(stated: StatedIntervention) -> str:
    """Return the changed settings: "cutmix_probability 0.5"."""
    return ", ".join(f"{name} {shorten(format_value(value))}" for name, value in stated.changes.items())


def describe_target(stated: StatedIntervention) -> str:
    """Return the target: "cat as dog, dog as cat", or "ring gap of frog"."""
    if stated.target.kind is TargetKind.CELLS:
        return ", ".join(f"{true} as {called}" for true, called in stated.target.cells)
    return f"{stated.target.kind} of {', '.join(stated.target.classes)}"


def describe_interventions(found: InterventionFindings) -> list[str]:
    """Return the rule of the round, the conclusion, notes of the arms, and that statements were changed."""
    stated = found.stated
    sentences = [STATED_CHANGED] if found.is_changed else []
    sentences.append(found.conclusion)
    if found.is_factorial:
        sentences.append(
            "A factorial design: each effect is the mean over the runs with the intervention minus that over the runs without "
            "it, and the A/B table has the interactions."
        )
    sentences.append(
        f"Round {stated.round} in {stated.source_arm} of {stated.parent}, trained anew as the control. {stated.num_choosing} "
        f"test images chose targets and predictions, and the other {stated.num_judging} judge; a target that is marked as seen "
        f"is judged by all. The error rate of this round is {found.alpha:.4g}, half for macro-F1 and half for the targets."
    )
    if found.has_moderated_rows:
        sentences.append(
            "The rows of macro-F1 share what they say about the variance between seeds, of which each alone says little."
        )
    sentences.append(f"The test split was read {found.num_test_reads} times, the parent's reads included.")
    sentences += [f"{effect.stated.arm}: {effect.note}." for effect in found.effects if effect.note]
    sentences += describe_not_tried(stated)
    return sentences


def describe_not_tried(stated: StatedInterventions) -> list[str]:
    """Return the sentence that names the interventions that are left out, with the reasons; [] where the user chose."""
    if not stated.not_tried:
        return []
    return [f"Not tried: {'; '.join(f'{one.name}, since {one.reason}' for one in stated.not_tried)}."]


def build_stated_rich_table(stated: StatedInterventions) -> Table:
    """Return what the interventions state, for a terminal."""
    caption = " ".join(describe_not_tried(stated))
    table = Table(title=f"Interventions, round {stated.round}", caption=caption, box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("intervention", "symptom, diagnosis, verdict", "target", "predicted change"):
        table.add_column(name)
    for one in stated.interventions:
        seen = ", seen" if one.is_seen else ""
        table.add_row(
            Text(f"{one.arm}\n{describe_changes(one)}"),
            Text(f"{one.symptom}; {one.diagnosis}; {one.verdict}"),
            Text(f"{describe_target(one)} ({one.num_target_images} images{seen})"),
            Text(f"{_describe_prediction(one)}\nrefuted if {one.refuted_by}"),
        )
    return table


def build_intervention_rich_table(found: InterventionFindings) -> Table:
    """Return the chain from symptom to measured effect, one row per intervention, for a terminal."""
    table = Table(
        title=f"Interventions in {found.stated.source_arm}, round {found.stated.round}",
        caption=" ".join(describe_interventions(found)),
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for name in ("symptom, diagnosis, verdict", "intervention", "target: predicted, measured (pp)", "macro-F1 (pp)"):
        table.add_column(name)
    for effect in found.effects:
        stated, cells = effect.stated, dict(zip(MEASURED_HEADER, _list_measured_cells(effect), strict=True))
        ring = f"\nring gap {cells['ring gap (pp)']}" if effect.ring_gap is not None else ""
        table.add_row(
            Text(f"{stated.symptom}; {stated.diagnosis}; {stated.verdict}"),
            Text(f"{stated.arm}\n{describe_changes(stated)}\n{cells['cost']}"),
            Text(
                f"{describe_target(stated)}{', seen' if stated.is_seen else ''}\npredicted {cells['predicted (pp)']}\n"
                f"measured {cells['measured (pp)']} {cells['target']}\nprediction: {cells['prediction']}{ring}"
            ),
            Text(
                f"{cells['macro-F1 (pp)']}\n{cells['verdict']}\nloss elsewhere: {cells['largest loss elsewhere (pp)']}"
            ),
        )
    return table


def format_effect(effect: InterventionEffect, *, is_changed: bool) -> str:
    """Return one line: target, predicted and measured change, verdicts and cost."""
    cells = dict(zip(MEASURED_HEADER, _list_measured_cells(effect), strict=True))
    parts = [
        effect.stated.arm,
        f"{describe_target(effect.stated)}{' (seen)' if effect.stated.is_seen else ''}",
        f"predicted {cells['predicted (pp)']}",
        f"measured {cells['measured (pp)']} {cells['target']}",
        f"prediction: {cells['prediction']}",
        f"macro-F1 {cells['macro-F1 (pp)']} {cells['verdict']}",
        f"loss elsewhere {cells['largest loss elsewhere (pp)']}",
        cells["cost"],
    ]
    return " | ".join([*parts, *(["STATEMENTS CHANGED"] if is_changed else [])])


def build_intervention_csv(found: InterventionFindings) -> str:
    """Return the interventions as csv with numbers in full precision; changes are in percentage points (`_pp`)."""
    return to_csv([_make_record(effect, found) for effect in found.effects])


def _make_record(effect: InterventionEffect, found: InterventionFindings) -> dict[str, object]:
    stated, target = effect.stated, effect.target
    return {
        "arm": stated.arm,
        "symptom": stated.symptom,
        "diagnosis": stated.diagnosis,
        "verdict": stated.verdict,
        "changes": describe_changes(stated),
        "target": describe_target(stated),
        "seen": stated.is_seen,
        **_columns("predicted", stated.prediction.effect),
        "predicted_from": stated.prediction.basis,
        "refuted_by": stated.refuted_by,
        **_columns("measured", None if target is None else target.effect),
        "target_verdict": "" if target is None else target.verdict.value,
        "outcome": effect.outcome.value,
        **_columns("macro_f1", effect.macro_f1),
        "macro_f1_verdict": "" if effect.macro_f1_verdict is None else effect.macro_f1_verdict.value,
        "collateral_class": "" if effect.collateral is None else effect.collateral.class_name,
        **_columns("collateral", None if effect.collateral is None else effect.collateral.effect),
        **_columns("ring_gap", effect.ring_gap),
        "cost_ratio": effect.cost_ratio,
        "device_seconds": effect.device_seconds,
        "recommended": found.is_recommended(stated.arm),
        "statements_changed": found.is_changed,
        "note": effect.note,
    }


def _columns(name: str, interval: Interval | None) -> dict[str, float | None]:
    ends = (None, None, None) if interval is None else (interval.estimate, interval.low, interval.high)
    keys = (f"{name}_pp", f"{name}_low_pp", f"{name}_high_pp")
    return {key: None if end is None else 100 * end for key, end in zip(keys, ends, strict=True)}


def _list_measured_cells(effect: InterventionEffect) -> tuple[str, ...]:
    target, loss = effect.target, effect.collateral
    return (
        effect.stated.arm,
        _points(effect.stated.prediction.effect) if effect.outcome is not Outcome.NONE else NO_PREDICTION,
        _points(None if target is None else target.effect),
        NOTHING if target is None else target.verdict.value,
        effect.outcome.value,
        _points(effect.macro_f1),
        NOTHING if effect.macro_f1_verdict is None else effect.macro_f1_verdict.value,
        NOTHING if loss is None else f"{loss.class_name} {_points(loss.effect)}",
        _points(effect.ring_gap),
        NOTHING if target is None else str(target.num_seeds),
        _describe_cost(effect),
    )


def _describe_cost(effect: InterventionEffect) -> str:
    seconds = format_seconds(effect.device_seconds)
    return seconds if effect.cost_ratio is None else f"{effect.cost_ratio:.1f}x cost, {seconds}"


def _describe_prediction(stated: StatedIntervention) -> str:
    effect = stated.prediction.effect
    return (
        f"{NO_PREDICTION}: {stated.prediction.basis}"
        if effect is None
        else f"{_points(effect)} pp: {stated.prediction.basis}"
    )


def _points(interval: Interval | None) -> str:
    if interval is None:
        return NOTHING
    estimate, low, high = (100 * end + 0.0 for end in (interval.estimate, interval.low, interval.high))
    return f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]"


def describe_shares(effects: Sequence[InterventionEffect]) -> list[str]:
    """Return the target's share of images in the control and with each intervention, as sentences."""
    return [
        f"{effect.stated.arm}: {describe_target(effect.stated)}: {format_percent(effect.target.control)} in the control, "
        f"{format_percent(effect.target.treatment)} with the intervention, {effect.target.num_images} images."
        for effect in effects
        if effect.target is not None
    ]

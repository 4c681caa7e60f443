"""The interventions of a study as tables, csv, sentences and the figure of predicted against measured changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.formats.figures import ARM_COLORS, INK, draw_interval, new_figure
from analysis.formats.numbers import format_percent, format_seconds, format_signed_pp, format_value, shorten
from analysis.formats.table_formats import FittedTable, list_points, to_csv, to_terminal
from analysis.interventions import values
from analysis.statistics.interval import Interval
from trainables.records.confusion_figure import literal_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATED_CHANGED = (
    "The targets or predictions of the interventions were changed after they were written, so that their verdicts do not hold as "
    "they are stated."
)
NOTHING = "—"
NO_PREDICTION = "no prediction"


def list_stated_cells(stated: values.StatedIntervention) -> list[str]:
    """Return what an intervention stated before, in the order of `STATED_COLUMNS`."""
    return [cell(stated) for cell in STATED_COLUMNS.values()]


def list_changed_settings(stated: values.StatedIntervention) -> str:
    """Return the changed settings: "cutmix_probability 0.5"."""
    return ", ".join(f"{name} {shorten(format_value(value))}" for name, value in stated.changes.items())


def describe_target(stated: values.StatedIntervention) -> str:
    """Return the target: "cat as dog, dog as cat", or "ring gap of frog"."""
    if stated.target.kind is values.TargetKind.CELLS:
        return ", ".join(f"{true} as {called}" for true, called in stated.target.cells)
    return f"{stated.target.kind} of {', '.join(stated.target.classes)}"


def describe_interventions(found: values.InterventionFindings) -> list[str]:
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
    sentences += _describe_levels(found)
    if found.has_moderated_rows:
        sentences.append(
            "The rows of macro-F1 share what they say about the variance between seeds, of which each alone says little."
        )
    sentences.append(f"The test split was read {found.num_test_reads} times, the parent's reads included.")
    sentences += [f"{effect.stated.arm}: {effect.note}." for effect in found.effects if effect.note]
    sentences += describe_not_tried(stated)
    return sentences


def _describe_levels(found: values.InterventionFindings) -> list[str]:
    """Return the sentence on the levels at which a loss of macro-F1 must be excluded."""
    levels: dict[float, list[str]] = {}
    for effect in found.effects:
        levels.setdefault(effect.noninferior_level, []).append(effect.stated.arm)
    shown = " and ".join(f"{level:.2g} for {', '.join(arms)}" for level, arms in sorted(levels.items(), reverse=True))
    return [
        "An intervention that is BETTER on its target alone is recommended if a loss of macro-F1 of the margin or more is "
        f"excluded at its level, {shown}; a wrong recommendation then has a probability of at most {found.alpha:.4g}."
    ]


def describe_not_tried(stated: values.StatedInterventions) -> list[str]:
    """Return the sentence that names the interventions that are left out, with the reasons; [] where the user chose."""
    if not stated.not_tried:
        return []
    return [f"Not tried: {'; '.join(f'{one.name}, since {one.reason}' for one in stated.not_tried)}."]


def build_stated_rich_table(stated: values.StatedInterventions) -> FittedTable:
    """Return what the interventions state, for a terminal."""
    rows = [
        (
            f"{one.arm}\n{list_changed_settings(one)}",
            f"{one.symptom}; {one.diagnosis}; {one.verdict}",
            f"{describe_target(one)} ({one.num_target_images} images{', seen' if one.is_seen else ''})",
            f"{_describe_prediction(one)}\nrefuted if {one.refuted_by}",
        )
        for one in stated.interventions
    ]
    header = ("intervention", "symptom, diagnosis, verdict", "target", "predicted change")
    return to_terminal(f"Interventions, round {stated.round}", header, rows, " ".join(describe_not_tried(stated)))


def build_intervention_rich_table(found: values.InterventionFindings) -> FittedTable:
    """Return the chain from symptom to measured effect, one row per intervention, for a terminal."""
    rows = []
    for effect in found.effects:
        stated, cells = effect.stated, list_measured_cells(effect)
        ring = f"\nring gap {cells['ring gap (pp)']}" if effect.ring_gap is not None else ""
        rows.append(
            (
                f"{stated.symptom}; {stated.diagnosis}; {stated.verdict}",
                f"{stated.arm}\n{list_changed_settings(stated)}\n{cells['cost']}",
                f"{describe_target(stated)}{', seen' if stated.is_seen else ''}\npredicted {cells['predicted (pp)']}\n"
                f"measured {cells['measured (pp)']} {cells['target']}\nprediction: {cells['prediction']}{ring}",
                f"{cells['macro-F1 (pp)']}\n{cells['verdict']}\nloss elsewhere: {cells['surest loss elsewhere (pp)']}",
            )
        )
    title = f"Interventions in {found.stated.source_arm}, round {found.stated.round}"
    header = ("symptom, diagnosis, verdict", "intervention", "target: predicted, measured (pp)", "macro-F1 (pp)")
    return to_terminal(title, header, rows, " ".join(describe_interventions(found)))


def format_effect(effect: values.InterventionEffect, *, is_changed: bool) -> str:
    """Return one line: target, predicted and measured change, verdicts and cost."""
    cells = list_measured_cells(effect)
    parts = [
        effect.stated.arm,
        f"{describe_target(effect.stated)}{' (seen)' if effect.stated.is_seen else ''}",
        f"predicted {cells['predicted (pp)']}",
        f"measured {cells['measured (pp)']} {cells['target']}",
        f"prediction: {cells['prediction']}",
        f"macro-F1 {cells['macro-F1 (pp)']} {cells['verdict']}",
        f"loss elsewhere {cells['surest loss elsewhere (pp)']}",
        cells["cost"],
    ]
    return " | ".join([*parts, *(["STATEMENTS CHANGED"] if is_changed else [])])


def build_intervention_csv(found: values.InterventionFindings) -> str:
    """Return the interventions as csv with numbers in full precision; changes are in percentage points (`_pp`)."""
    return to_csv([_make_record(effect, found) for effect in found.effects])


def _make_record(effect: values.InterventionEffect, found: values.InterventionFindings) -> dict[str, object]:
    stated, target, loss = effect.stated, effect.target, effect.collateral
    return {
        "arm": stated.arm,
        "symptom": stated.symptom,
        "diagnosis": stated.diagnosis,
        "verdict": stated.verdict,
        "changes": list_changed_settings(stated),
        "target": describe_target(stated),
        "seen": stated.is_seen,
        **list_points("predicted", stated.prediction.effect),
        "predicted_from": stated.prediction.basis,
        "refuted_by": stated.refuted_by,
        **list_points("measured", None if target is None else target.effect),
        "target_verdict": "" if target is None else target.verdict.value,
        "outcome": effect.outcome.value,
        **list_points("macro_f1", effect.macro_f1),
        "macro_f1_verdict": "" if effect.macro_f1_verdict is None else effect.macro_f1_verdict.value,
        "p_noninferior": effect.p_noninferior,
        "noninferior_level": effect.noninferior_level,
        "collateral_class": "" if loss is None else loss.class_name,
        **list_points("collateral", None if loss is None else loss.effect),
        "certain_losses": None if loss is None else loss.num_certain,
        **list_points("ring_gap", effect.ring_gap),
        "cost_ratio": effect.cost_ratio,
        "device_seconds": effect.device_seconds,
        "recommended": found.is_recommended(stated.arm),
        "statements_changed": found.is_changed,
        "note": effect.note,
    }


def _describe_cost(effect: values.InterventionEffect) -> str:
    seconds = format_seconds(effect.device_seconds)
    return seconds if effect.cost_ratio is None else f"{effect.cost_ratio:.1f}x cost, {seconds}"


def _describe_collateral(loss: values.Collateral | None) -> str:
    if loss is None:
        return NOTHING
    more = f", {loss.num_certain} classes certainly lose" if loss.num_certain > 1 else ""
    return f"{loss.class_name} {_points(loss.effect)}{more}"


def _describe_prediction(stated: values.StatedIntervention) -> str:
    effect, basis = stated.prediction.effect, stated.prediction.basis
    return f"{NO_PREDICTION}: {basis}" if effect is None else f"{_points(effect)} pp: {basis}"


def _points(interval: Interval | None) -> str:
    return NOTHING if interval is None else format_signed_pp(interval, "")


STATED_COLUMNS: Mapping[str, Callable[[values.StatedIntervention], str]] = {
    "intervention": lambda stated: f"{stated.arm}: {stated.title}",
    "changes": list_changed_settings,
    "symptom": lambda stated: stated.symptom,
    "diagnosis": lambda stated: stated.diagnosis,
    "verdict": lambda stated: stated.verdict,
    "target": lambda stated: (
        f"{describe_target(stated)}, {stated.num_target_images} images{', seen' if stated.is_seen else ''}"
    ),
    "predicted change": _describe_prediction,
    "refuted if": lambda stated: stated.refuted_by,
    "should spare": lambda stated: stated.spares,
}
MEASURED_COLUMNS: Mapping[str, Callable[[values.InterventionEffect], str]] = {
    "intervention": lambda effect: effect.stated.arm,
    "predicted (pp)": lambda effect: (
        _points(effect.stated.prediction.effect) if effect.outcome is not values.Outcome.NONE else NO_PREDICTION
    ),
    "measured (pp)": lambda effect: _points(None if effect.target is None else effect.target.effect),
    "target": lambda effect: NOTHING if effect.target is None else effect.target.verdict.value,
    "prediction": lambda effect: effect.outcome.value,
    "macro-F1 (pp)": lambda effect: _points(effect.macro_f1),
    "verdict": lambda effect: NOTHING if effect.macro_f1_verdict is None else effect.macro_f1_verdict.value,
    "surest loss elsewhere (pp)": lambda effect: _describe_collateral(effect.collateral),
    "ring gap (pp)": lambda effect: _points(effect.ring_gap),
    "seeds": lambda effect: NOTHING if effect.target is None else str(effect.target.num_seeds),
    "cost": _describe_cost,
}


def list_measured_cells(effect: values.InterventionEffect) -> dict[str, str]:
    """Return what was measured, by the names of `MEASURED_COLUMNS`."""
    return {name: cell(effect) for name, cell in MEASURED_COLUMNS.items()}


def describe_shares(effects: Sequence[values.InterventionEffect]) -> list[str]:
    """Return the target's share of images in the control and with each intervention, as sentences."""
    return [
        f"{effect.stated.arm}: {describe_target(effect.stated)}: {format_percent(effect.target.control)} in the control, "
        f"{format_percent(effect.target.treatment)} with the intervention, {effect.target.num_images} images."
        for effect in effects
        if effect.target is not None
    ]


PREDICTED, MEASURED = ARM_COLORS[1], ARM_COLORS[0]


def plot_interventions(effects: Sequence[values.InterventionEffect]) -> Figure:
    """Draw the predicted and the measured change of each target, in percentage points, with their intervals."""
    shown = [effect for effect in effects if effect.target is not None]
    figure = new_figure((8.0, 1.6 + 0.6 * max(len(shown), 1)))
    axes = figure.add_subplot()
    for place, effect in enumerate(shown):
        assert effect.target is not None
        pairs = ((effect.stated.prediction.effect, -0.14, PREDICTED, "s"), (effect.target.effect, 0.14, MEASURED, "o"))
        for interval, shift, color, marker in pairs:
            if interval is not None:
                style: dict[str, Any] = {"color": color, "marker": marker, "capsize": 3, "linestyle": "none"}
                draw_interval(axes, interval, place + shift, **style)
    axes.axvline(0, color=INK, linewidth=1)
    axes.plot([], [], color=PREDICTED, marker="s", label="predicted, on the images that choose (95 %)")
    axes.plot([], [], color=MEASURED, marker="o", label="measured, on the images that judge (simultaneous)")
    axes.set_yticks(range(len(shown)), [literal_text(effect.stated.arm) for effect in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("change of the target against the control (pp); to the left is better")
    axes.set_title("Interventions: predicted and measured change of the target", size=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure

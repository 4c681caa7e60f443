"""The model card of exported weights: what the model is, how good it is, what it confuses and what it relies on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from analysis.arms.values import ArmFinding, ModelAudit
from analysis.confusions.values import DirectedConfusion
from analysis.formats.numbers import format_interval, format_signed_pp
from analysis.report.rendering import render
from analysis.shortcuts.values import ClassAudit, ClassGap
from analysis.statistics.interval import Interval, TwoIntervals

MAX_CONFUSIONS = 15


def build_model_card(description: Mapping[str, Any], arm: ArmFinding | None, note: str, reproduce: str) -> str:
    """Return the card as markdown.

    Args:
        description: of the exported weights: study, arm, architecture, class names, preprocessing, macro-F1, configuration,
            the ONNX file if there is one, and `handed_over`, whether the study hands over this model, if that is known.
        arm: findings about the arm, with the audit of the exported model; None where `note` says why there are none.
        note: why there is no audit; "" where there is one.
        reproduce: the command that trains the model again.
    """
    onnx = _describe_onnx(description) if "onnx" in description else ""
    values = {} if arm is None or arm.exported is None else _list_values(arm, arm.exported)
    return render("model_card.md.j2", model=description, note=note, onnx=onnx, reproduce=reproduce, **values)


def _list_values(arm: ArmFinding, audit: ModelAudit) -> dict[str, Any]:
    """Return what the template shows of the model and of its recipe."""
    own_waves, waves = audit.frequency_audit, arm.frequency_audit
    return {
        "num_seeds": len(arm.seeds),
        "macro_f1": _compare(audit.macro_f1, arm.test_macro_f1, format_interval),
        "classes": [
            [
                own.class_name,
                str(own.num_images),
                format_interval(own.precision.models),
                format_interval(own.recall.models),
                *_compare(own.f1, all_seeds.f1, format_interval),
            ]
            for own, all_seeds in zip(audit.class_scores, arm.class_scores, strict=True)
        ],
        "confusions": _list_confusions(arm, audit),
        "rings": [
            (own.ring_pixels, _list_gaps(own.classes, all_seeds.classes))
            for own, all_seeds in zip(audit.ring_audits, arm.ring_audits, strict=True)
        ],
        "color_losses": [
            [own.class_name, *_compare(own.loss, all_seeds.loss, format_signed_pp)]
            for own, all_seeds in zip(audit.color_losses, arm.color_losses, strict=True)
        ],
        "frequencies": [] if own_waves is None or waves is None else _list_gaps(own_waves.classes, waves.classes),
    }


def _list_gaps(own: Sequence[ClassGap], all_seeds: Sequence[ClassGap]) -> list[list[str]]:
    """Return a row per class: gap and verdict of this model, then those of the recipe."""
    rows = []
    for mine, other in zip(own, all_seeds, strict=True):
        of_model, recipe = _compare(mine.gap, other.gap, format_signed_pp)
        confirmed = {True: " (confirmed)", False: " (not confirmed)", None: ""}
        word = confirmed[mine.is_confirmed if isinstance(mine, ClassAudit) else None]
        rows.append([mine.class_name, of_model, f"{mine.verdict}{word}", recipe, str(other.recipe_verdict or "—")])
    return rows


def _describe_onnx(description: Mapping[str, Any]) -> str:
    onnx = description["onnx"]
    parity, precision = onnx["parity"], description["configuration"]["fixed"].get("precision", "fp32")
    shape = " x ".join(str(size) for size in onnx["input"]["shape"])
    scores = "" if precision == "fp32" else f" The scores below are those of predictions in {precision}."
    return (
        f"{onnx['file']} (ONNX, opset {onnx['opset']}) takes normalized images as {onnx['input']['name']} ({shape}, float32, "
        f"any number N) and returns {onnx['output']['name']}. On {parity['num_images']} random images they differ from torch's "
        f"float32 logits by at most {parity['max_difference']:.2g} (allowed: {parity['allowed']:.2g}; largest logit: "
        f"{parity['max_logit']:.3g}).{scores}"
    )


def _compare(model: TwoIntervals, arm: TwoIntervals, form: Callable[[Interval], str]) -> list[str]:
    """Return the value of this model, and that of the recipe, which is the mean over the arm's seeds."""
    return [form(model.models), "one seed: not defined" if arm.recipe is None else form(arm.recipe)]


def _list_confusions(arm: ArmFinding, audit: ModelAudit) -> list[list[str]]:
    recipe = {(c.true_class, c.predicted_class): c for c in arm.directed}
    return [
        [
            cell.true_class,
            cell.predicted_class,
            format_interval(cell.rate.models),
            cell.verdict,
            *_describe_recipe_cell(recipe.get((cell.true_class, cell.predicted_class))),
        ]
        for cell in audit.directed[:MAX_CONFUSIONS]
    ]


def _describe_recipe_cell(cell: DirectedConfusion | None) -> list[str]:
    if cell is None or cell.rate.recipe is None:
        return ["—", "—"]
    return [format_interval(cell.rate.recipe), str(cell.recipe_verdict)]

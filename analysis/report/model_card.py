"""The model card of exported weights: what the model is, how good it is, what it confuses and what it relies on."""

from collections.abc import Callable, Mapping
from typing import Any

from analysis.findings.arm_findings import ArmFinding, ModelAudit
from analysis.findings.class_findings import DirectedConfusion
from analysis.findings.interval import Interval, TwoIntervals
from analysis.findings.shortcut_findings import ClassAudit
from analysis.report.number_formats import format_interval, format_signed_pp
from analysis.report.rendering import render

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
    values: dict[str, Any] = {"num_seeds": 0, "macro_f1": [], "classes": [], "confusions": [], "rings": []}
    values |= {"color_losses": [], "frequencies": []}
    onnx = _describe_onnx(description) if "onnx" in description else ""
    if arm is not None and arm.exported is not None:
        values = {
            "num_seeds": len(arm.seeds),
            "macro_f1": _compare(arm.exported.macro_f1, arm.test_macro_f1, format_interval),
            "classes": _list_classes(arm, arm.exported),
            "confusions": _list_confusions(arm, arm.exported),
            "rings": _list_rings(arm, arm.exported),
            "color_losses": _list_color_losses(arm, arm.exported),
            "frequencies": _list_frequencies(arm, arm.exported),
        }
    return render("model_card.md.j2", model=description, note=note, onnx=onnx, reproduce=reproduce, **values)


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
    return [form(model.models), _format_recipe(arm.recipe, form)]


def _format_recipe(recipe: Interval | None, form: Callable[[Interval], str]) -> str:
    return "one seed: not defined" if recipe is None else form(recipe)


def _list_classes(arm: ArmFinding, audit: ModelAudit) -> list[list[str]]:
    return [
        [
            own.class_name,
            str(own.num_images),
            format_interval(own.precision.models),
            format_interval(own.recall.models),
            *_compare(own.f1, all_seeds.f1, format_interval),
        ]
        for own, all_seeds in zip(audit.class_scores, arm.class_scores, strict=True)
    ]


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


def _list_rings(arm: ArmFinding, audit: ModelAudit) -> list[tuple[int, list[list[str]]]]:
    """Return (width of the ring, a row per class)."""
    return [
        (
            own.ring_pixels,
            [
                [
                    mine.class_name,
                    format_signed_pp(mine.gap.models),
                    _describe_verdict(mine),
                    _format_recipe(other.gap.recipe, format_signed_pp),
                    str(other.recipe_verdict or "—"),
                ]
                for mine, other in zip(own.classes, all_seeds.classes, strict=True)
            ],
        )
        for own, all_seeds in zip(audit.ring_audits, arm.ring_audits, strict=True)
    ]


def _describe_verdict(audit: ClassAudit) -> str:
    if audit.is_confirmed is None:
        return str(audit.verdict)
    return f"{audit.verdict} ({'confirmed' if audit.is_confirmed else 'not confirmed'})"


def _list_color_losses(arm: ArmFinding, audit: ModelAudit) -> list[list[str]]:
    return [
        [own.class_name, *_compare(own.loss, all_seeds.loss, format_signed_pp)]
        for own, all_seeds in zip(audit.color_losses, arm.color_losses, strict=True)
    ]


def _list_frequencies(arm: ArmFinding, audit: ModelAudit) -> list[list[str]]:
    own, all_seeds = audit.frequency_audit, arm.frequency_audit
    if own is None or all_seeds is None:
        return []
    return [
        [
            mine.class_name,
            format_signed_pp(mine.gap.models),
            str(mine.verdict),
            _format_recipe(other.gap.recipe, format_signed_pp),
            str(other.recipe_verdict or "—"),
        ]
        for mine, other in zip(own.classes, all_seeds.classes, strict=True)
    ]

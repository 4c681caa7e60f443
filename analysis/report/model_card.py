"""The model card of exported weights: what the model is, how good it is, what it confuses and what it relies on."""

from collections.abc import Mapping
from typing import Any

from analysis.arms.values import ArmFinding
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
    onnx = _describe_onnx(description) if "onnx" in description else ""
    values = {"model": description, "note": note, "onnx": onnx, "reproduce": reproduce, "most": MAX_CONFUSIONS}
    return render("model_card.md.j2", **values, arm=arm, audit=None if arm is None else arm.exported)


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

"""Sentences on heat maps."""

from analysis.findings.heat_map_findings import CamAdmission, CamTest, CamView
from analysis.report.number_formats import format_count, format_percent, format_signed_pp, join_intervals


def describe_admission(found: CamAdmission, arm: str) -> str:
    """Return whether the heat maps of an arm are admitted as evidence, and which tests failed or do not apply."""
    height, width = found.map_size
    maps = f"{found.method} maps of {arm}"
    source = f"({height}x{width} cells from {found.layer}, {format_count(found.num_images)} images)"
    void = ", ".join(test.name for test in found.tests if not test.applies)
    remark = f" Not applicable: {void}." if void else ""
    if found.is_admitted:
        return f"The {maps} are admitted as evidence: they passed all tests that apply {source}.{remark}"
    failed = ", ".join(test.name for test in found.tests if test.applies and not test.is_passed)
    return f"The {maps} are not admitted as evidence. Failed tests: {failed} {source}.{remark}"


def describe_passed(test: CamTest) -> str:
    """Return "yes", "no", or that the test does not apply."""
    if not test.applies:
        return "does not apply"
    return "yes" if test.is_passed else "no"


def describe_cam_estimate(test: CamTest) -> str:
    """Return the estimate of a test of heat maps with its intervals."""
    return join_intervals(test.estimate, "{:.3f}".format)


def describe_focus(found: CamAdmission) -> str:
    """Return the share of the maps' energy on the object beyond chance; "" if no masks are known."""
    if found.object_focus is None:
        return ""
    return (
        "Share of the heat maps' energy on the object, minus the share within the masks of other images, which corrects for "
        f"center bias: {format_signed_pp(found.object_focus)}."
    )


def describe_view(view: CamView) -> str:
    """Return the prediction of one arm for the image of a panel, and the layer of its heat map."""
    height, width = view.map_size
    degenerate = "; degenerate map" if view.degenerate else ""
    return (
        f"{view.arm} predicts {view.predicted_class} ({format_percent(view.predicted_probability, 0)}; true class: "
        f"{format_percent(view.true_probability, 0)}), {view.method} map of {height}x{width} cells from {view.layer}{degenerate}."
    )


FILTERS = {
    "admission": describe_admission,
    "passed": describe_passed,
    "cam_estimate": describe_cam_estimate,
    "focus": describe_focus,
    "view": describe_view,
}

"""Heat maps as sentences and figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.formats.figures import new_figure
from analysis.formats.numbers import format_count, format_percent, format_signed_pp
from analysis.heat_maps.values import ArmCam, CamAdmission, CamPanel, CamView
from trainables.records.confusion_figure import literal_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def plot_cam_panel(image: NDArray[np.uint8], panel: CamPanel, cams: Sequence[ArmCam]) -> Figure:
    """Draw an image, and the heat maps and overlays of each arm for the predicted and the true class.

    Each map is scaled from 0 to its own maximum, which is written below it. Heat maps show the cells of the map; overlays
    resize it bilinearly. An arm with a correct prediction has one column. Two rows show Grad-CAM, two more the chosen maps of
    the arms where they differ.

    Args:
        image: (H, W, 3) uint8.
        panel: class names and texts of the panel.
        cams: the maps, one entry per view of the panel.
    """
    true_class = panel.true_class
    arms = [list(group) for _, group in itertools.groupby(cams, key=lambda cam: cam.view.arm)]
    columns = []
    for own in arms:
        columns.append((own, "predicted"))
        if own[0].view.predicted_class != true_class:
            columns.append((own, "true"))
    num_methods = max((len(own) for own in arms), default=1)
    figure = new_figure((2.3 * (len(columns) + 1), 5.4 * num_methods))
    grid = figure.subplots(2 * num_methods, len(columns) + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].imshow(image)
    grid[0, 0].set_title(literal_text(f"input {panel.sample_id}\ntrue class: {true_class}"), size=9)
    for place, (own, kind) in enumerate(columns, start=1):
        for number, cam in enumerate(own):
            top, bottom = grid[2 * number : 2 * number + 2, place]
            _draw_cam(top, bottom, image, cam.predicted_cam if kind == "predicted" else cam.true_cam)
            top.set_title(literal_text(_cam_title(cam, kind, true_class)), size=9)
            for axes, label in ((top, "heat map"), (bottom, "overlay")):
                axes.set_axis_on()
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_ylabel(label if place == 1 else "", size=9)
    figure.suptitle(literal_text(f"Heat maps of image {panel.sample_id}: {panel.reason}"), size=11)
    return figure


def _draw_cam(top: Axes, bottom: Axes, image: NDArray[np.uint8], energy: NDArray[np.float32]) -> None:
    height, width = image.shape[:2]
    peak = float(energy.max()) if np.isfinite(energy).all() else 0.0
    bottom.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    if peak <= 0 or peak == float(energy.min()):
        top.imshow(np.full(energy.shape, 0.85), cmap="gray", vmin=0, vmax=1)
        top.set_xlabel("degenerate map", size=8)
        return
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    top.imshow(energy / peak, cmap="inferno", vmin=0, vmax=1, extent=extent)
    top.set_xlabel(f"maximum {peak:.3g}", size=8)
    # The opacity grows with the energy.
    shown = np.clip(energy / peak, 0, 1)
    bottom.imshow(shown, cmap="inferno", vmin=0, vmax=1, alpha=0.75 * shown, interpolation="bilinear", extent=extent)


def _cam_title(cam: ArmCam, kind: str, true_class: str) -> str:
    view = cam.view
    name, probability = view.predicted_class, view.predicted_probability
    if kind == "true":
        name, probability = true_class, view.true_probability
    return f"{view.arm}, {view.method}\n{view.layer}, for {kind}: {name} ({100 * probability:.0f} %)"

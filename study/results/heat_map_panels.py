"""Grad-CAM panels of the confirmed configurations, drawn from their models and images."""

from collections.abc import Mapping

import numpy as np

from analysis.evidence.arm_evidence import ArmEvidence
from analysis.findings.forensic_findings import CamPanel
from analysis.heat_maps.grad_cam import choose_cam_layer, compute_arm_cams
from analysis.heat_maps.panels import ArmCam, choose_panel_images
from analysis.report.figures import figure_to_png, plot_cam_panel
from study.confirmation.trained_models import load_model
from study.open_study import OpenStudy, trial_files
from study.results.confirmed_models import prepare_inputs
from trainables.data.images import ImageSet


def draw_panels(
    study: OpenStudy, evidence: Mapping[str, ArmEvidence], image_set: ImageSet
) -> list[tuple[CamPanel, bytes]]:
    """Return the panels' values and PNGs, the same images for every arm.

    Args:
        study: that the arms belong to.
        evidence: by arm; the maps are of each arm's model with the plan's first seed.
        image_set: of the study.

    Raises:
        NoCamLayerError: if no layer's maps are large enough for a heat map.
    """
    predictions = {arm: e.predictions for arm, e in evidence.items()}
    chosen = choose_panel_images(predictions, study.spec.analyze.num_panels)
    ids = np.array([sample_id for sample_id, _ in chosen], dtype=np.int64)
    if not len(ids):
        return []
    by_arm = [_arm_cams(study, e, image_set, ids) for e in evidence.values()]
    panels = []
    for place, (sample_id, reason) in enumerate(chosen):
        cams = [arm[place] for arm in by_arm]
        true_class = image_set.class_names[int(image_set.labels[sample_id])]
        panel = CamPanel(
            sample_id=sample_id,
            true_class=true_class,
            reason=reason,
            views=tuple(cam.view for cam in cams),
            figure=f"panel_{place + 1:02d}.png",
        )
        figure = plot_cam_panel(image_set.images[sample_id], panel, cams)
        panels.append((panel, figure_to_png(figure)))
    return panels


def _arm_cams(study: OpenStudy, evidence: ArmEvidence, image_set: ImageSet, ids: np.ndarray) -> tuple[ArmCam, ...]:
    record = evidence.runs[0]
    config = record.config
    model = load_model(trial_files(study, record), record, image_set.num_classes)
    return compute_arm_cams(
        model,
        prepare_inputs(image_set.images[ids], config),
        image_set.labels[ids],
        arm=evidence.arm,
        class_names=image_set.class_names,
        layer=choose_cam_layer(model, config.whole("image_size")),
    )

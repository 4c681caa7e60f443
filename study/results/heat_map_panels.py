"""Panels of heat maps of the confirmed configurations, drawn from their models and images."""

from collections.abc import Mapping

import numpy as np

from analysis.evidence.arm_evidence import ArmEvidence
from analysis.findings.heat_map_findings import ArmCam, CamAdmission, CamPanel
from analysis.heat_maps.arm_cams import compute_arm_cams
from analysis.heat_maps.grad_cam import CamLayer, CamMethod, CamSource, NoCamLayerError, find_cam_layers
from analysis.heat_maps.panels import choose_panel_images
from analysis.report.figures import figure_to_png
from analysis.report.heat_map_figures import plot_cam_panel
from analysis.statistics.metrics import IntArray
from study.cluster.tasks import Workers, make_task
from study.open_study import OpenStudy
from study.results.confirmed_models import has_network, load_cam_network
from trainables.data.images import ImageSet
from trainables.storage.store import Store
from trainables.training.trial_data import TrialData


def draw_panels(
    study: OpenStudy,
    evidence: Mapping[str, ArmEvidence],
    admissions: Mapping[str, CamAdmission | None],
    image_set: ImageSet,
    workers: Workers,
) -> list[tuple[CamPanel, bytes]]:
    """Return the panels' values and PNGs, the same images for every arm.

    Args:
        study: that the arms belong to.
        evidence: by arm; the maps are of each arm's model with the plan's first seed. Arms without a network have none.
        admissions: by arm; where method or layer are not those of Grad-CAM, both maps are shown.
        image_set: of the study.
        workers: that compute the maps, a task for each arm.

    Raises:
        NoCamLayerError: if no layer's maps are large enough for a heat map, or no arm has a network.
    """
    evidence = {arm: found for arm, found in evidence.items() if has_network(found.runs[0])}
    if not evidence:
        raise NoCamLayerError("no arm has a network of torch")
    predictions = {arm: e.predictions for arm, e in evidence.items()}
    chosen = choose_panel_images(predictions, study.spec.analyze.num_panels)
    ids = np.array([sample_id for sample_id, _ in chosen], dtype=np.int64)
    if not len(ids):
        return []
    tasks = [make_task(study.spec, arm, study.store.address, e, admissions[arm], ids) for arm, e in evidence.items()]
    by_view: list[tuple[ArmCam, ...]] = []
    for views in workers.run_tasks(compute_views, tasks):
        if isinstance(views, str):
            raise NoCamLayerError(views)
        by_view += views
    panels = []
    for place, (sample_id, reason) in enumerate(chosen):
        cams = [view[place] for view in by_view]
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


def compute_views(
    study_uri: str, evidence: ArmEvidence, admission: CamAdmission | None, ids: IntArray, *, data: TrialData
) -> list[tuple[ArmCam, ...]] | str:
    """Return the maps of each image by Grad-CAM, and by the chosen method and layer where they are not the same.

    Where no layer's maps are large enough, return the reason: an error of a task would bring its traceback along.
    """
    network = load_cam_network(Store(study_uri), evidence.runs[0], len(data.class_names))
    try:
        first = find_cam_layers(network)[0]
    except NoCamLayerError as error:
        return str(error)
    sources = [CamSource(method=CamMethod.GRAD_CAM, layer=first)]
    if admission is not None:
        layer = CamLayer(name=admission.layer, size=admission.map_size)
        sources.append(CamSource(method=CamMethod(admission.method), layer=layer))
    stored = evidence.predictions[0]
    row_of_id = {int(sample_id): row for row, sample_id in enumerate(stored.sample_ids)}
    logits = stored.logits[[row_of_id[int(sample_id)] for sample_id in ids]]
    return [
        compute_arm_cams(
            network, data.images[ids], data.labels[ids], logits, source, arm=evidence.arm, class_names=data.class_names
        )
        for source in dict.fromkeys(sources)
    ]

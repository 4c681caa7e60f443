"""The pictures of the findings as files: figures as PNG and SVG, panels of heat maps, and thumbnails of the test images.

The files that test images were read from are listed beside them.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.arms.arm_evidence import ArmEvidence, find_judges
from analysis.arms.render import plot_class_f1
from analysis.arms.values import ArmFinding
from analysis.causes.render import plot_root_causes
from analysis.comparison.render import plot_interval_bars
from analysis.comparison.values import ComparisonRow
from analysis.confusions.render import plot_confusion
from analysis.confusions.values import LabelIssue
from analysis.formats.figures import figure_to_png, figure_to_svg
from analysis.formats.table_formats import to_csv, unescape_formula
from analysis.heat_maps.grad_cam import CamMethod, NoCamLayerError, find_cam_layers
from analysis.heat_maps.panels import choose_panel_images, compute_arm_cams
from analysis.heat_maps.render import plot_cam_panel
from analysis.heat_maps.values import ArmCam, CamAdmission, CamPanel, CamSource
from analysis.interventions.render import plot_interventions
from analysis.interventions.values import InterventionFindings
from analysis.report.galleries import ThumbnailSheets, choose_thumbnails
from analysis.search.render import plot_arm_shares, plot_learning_curves, plot_rungs, plot_tuning_curves
from analysis.shortcuts.render import plot_ring_audits
from analysis.statistics.metrics import IntArray
from study.cluster.tasks import Workers, make_task
from study.open_study import OpenStudy
from study.results.confirmed_models import has_network, load_cam_network
from study.results.search_results import SearchResults
from study.state import paths
from trainables.damaged_files import decoding
from trainables.data.images import ImageSet
from trainables.records.record import TrialRecord
from trainables.seeds import numpy_generator
from trainables.storage.store import Store
from trainables.training.trial_data import TrialData

MOST_THUMBNAILS = 10_000


def draw_figures(
    arms: Sequence[ArmFinding],
    rows: Sequence[ComparisonRow],
    search: SearchResults,
    records: Sequence[TrialRecord],
    interventions: InterventionFindings | None,
) -> dict[str, bytes]:
    """Return every figure that there is something to draw in by file name: a PNG, and an SVG beside it where that is smaller.

    The colors of confusion matrices have no counterpart on a dark page, so that these are PNGs alone.

    Args:
        arms: findings about the arms.
        rows: of the A/B table.
        search: results of the search.
        records: of the search.
        interventions: of a study of interventions.
    """
    figures = {
        "class_f1.png": plot_class_f1(arms),
        "learning_curves.png": plot_learning_curves(_collect_curves(records), search.rung_epochs),
        "arm_shares.png": plot_arm_shares(search.arms),
    }
    if search.tuning_curves:
        figures["tuning_curves.png"] = plot_tuning_curves(search.tuning_curves)
    if any(rung.completed or rung.stopped for rung in search.rung_scores):
        figures["rungs.png"] = plot_rungs(search.rung_scores)
    if any(arm.ring_audits for arm in arms):
        figures["clever_hans.png"] = plot_ring_audits({arm.arm: arm.ring_audits for arm in arms})
    if any(cause.effects for arm in arms for cause in arm.root_causes):
        figures["root_causes.png"] = plot_root_causes({arm.arm: arm.root_causes for arm in arms})
    if interventions is not None and any(effect.target for effect in interventions.effects):
        figures["interventions.png"] = plot_interventions(interventions.effects)
    if rows:
        figures["comparison.png"] = plot_interval_bars(rows)
    for arm in arms:
        title = f"{arm.arm}: confusion on the test split, {len(arm.seeds)} seeds"
        class_names = [score.class_name for score in arm.class_scores]
        figures[f"confusion_{arm.arm}.png"] = plot_confusion(arm.confusion.rates, class_names, title, arm.clusters)
    pngs = {name: figure_to_png(figure) for name, figure in figures.items()}
    drawings = {n: figure_to_svg(figure) for n, figure in figures.items() if not n.startswith("confusion_")}
    smaller = {svg_name(name): svg for name, svg in drawings.items() if len(svg) < len(pngs[name])}
    return pngs | smaller


def svg_name(name: str) -> str:
    """Return the name of the SVG beside a PNG."""
    return f"{name.removesuffix('.png')}.svg"


def _collect_curves(records: Sequence[TrialRecord]) -> dict[str, list[tuple[list[int], list[float | None], str]]]:
    """Return (epochs, macro-F1, state) of every trial, by arm."""
    curves: dict[str, list[tuple[list[int], list[float | None], str]]] = {}
    for record in records:
        epochs = [e.epoch for e in record.epochs]
        scores = [e.macro_f1 for e in record.epochs]
        curves.setdefault(record.config.arm, []).append((epochs, scores, record.state.value))
    return dict(sorted(curves.items()))


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
        evidence: by arm; the maps are of each arm's model with the plan's first seed, with folds of the one that has not seen the
            image. Arms without a network have none.
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
    judges = find_judges(evidence, ids)
    numbers = np.zeros(len(ids), dtype=np.int64) if judges is None else judges
    store, num_classes = Store(study_uri), len(data.class_names)
    networks = {n: load_cam_network(store, evidence.runs[n], num_classes) for n in np.unique(numbers).tolist()}
    try:
        layer, size = find_cam_layers(networks[int(numbers[0])])[0]
    except NoCamLayerError as error:
        return str(error)
    sources = [CamSource(layer=layer, map_size=size, method=CamMethod.GRAD_CAM)]
    if admission is not None:
        method = CamMethod(admission.method)
        sources.append(CamSource(layer=admission.layer, map_size=admission.map_size, method=method))
    stored = evidence.predictions[0]
    row_of_id = {int(sample_id): row for row, sample_id in enumerate(stored.sample_ids)}
    logits = stored.logits[[row_of_id[int(sample_id)] for sample_id in ids]]

    def compute(source: CamSource) -> tuple[ArmCam, ...]:
        cams: dict[int, ArmCam] = {}
        for number, network in networks.items():
            own = np.flatnonzero(numbers == number)
            found = compute_arm_cams(
                network,
                data.images[ids[own]],
                data.labels[ids[own]],
                logits[own],
                source,
                arm=evidence.arm,
                class_names=data.class_names,
            )
            cams |= dict(zip(own.tolist(), found, strict=True))
        return tuple(cams[place] for place in range(len(ids)))

    return [compute(source) for source in dict.fromkeys(sources)]


def name_shown_images(
    image_set: ImageSet, arms: Iterable[ArmFinding], issues: Iterable[LabelIssue], panels: Iterable[CamPanel]
) -> dict[int, str]:
    """Return the file of each image in galleries, label issues and heat maps, by sample id; none where images were not files."""
    if image_set.origin is None:
        return {}
    shown = {sample_id for arm in arms for cell in arm.examples for sample_id in cell.sample_ids}
    shown |= {int(issue.sample_id) for issue in issues} | {panel.sample_id for panel in panels}
    return {sample_id: image_set.origin.names[sample_id] for sample_id in sorted(shown)}


def write_image_files(store: Store, image_set: ImageSet, test_ids: IntArray) -> None:
    """Write a row per test image: sample id, file and label; nothing where images were not files."""
    if image_set.origin is None:
        return
    rows = {
        "sample_id": test_ids,
        "file": [image_set.origin.names[sample_id] for sample_id in test_ids],
        "label": [image_set.class_names[label] for label in image_set.labels[test_ids]],
    }
    store.write_text(paths.TEST_IMAGES_CSV, to_csv(rows))


def load_image_files(store: Store) -> dict[int, str]:
    """Return the file of each test image of an analyzed study, by sample id.

    None are known where images were not files.

    Raises:
        DamagedFileError: if the file cannot be read.
    """
    if not store.exists(paths.TEST_IMAGES_CSV):
        return {}
    with decoding(store.locate(paths.TEST_IMAGES_CSV)):
        text = io.StringIO(store.read_text(paths.TEST_IMAGES_CSV))
        rows = pd.read_csv(text, dtype={"sample_id": int, "file": str}, keep_default_na=False)
        return dict(zip(rows["sample_id"].tolist(), map(unescape_formula, rows["file"]), strict=True))


def write_thumbnails(
    study: OpenStudy, evidence: Mapping[str, ArmEvidence], arms: Sequence[ArmFinding], image_set: ImageSet
) -> None:
    """Write thumbnails of the test images; of more than MOST_THUMBNAILS, those in galleries and others drawn at random.

    Args:
        study: being analyzed.
        evidence: by arm; all arms have the same test images.
        arms: findings about the arms, whose examples are needed.
        image_set: of the study.
    """
    test_ids = next(iter(evidence.values())).predictions[0].sample_ids
    needed = [sample_id for arm in arms for cell in arm.examples for sample_id in cell.sample_ids]
    generator = numpy_generator(study.spec.seed, "thumbnails")
    chosen = choose_thumbnails(test_ids, needed, MOST_THUMBNAILS, generator)
    thumbnails = ThumbnailSheets.draw(image_set.images, chosen, len(test_ids))
    study.store.delete(paths.THUMBNAIL_SHEETS)
    for number, sheet in enumerate(thumbnails.sheets):
        study.store.write_bytes(_place(number), sheet)
    study.store.write_text(paths.THUMBNAILS, thumbnails.describe())


def load_thumbnails(study: OpenStudy) -> ThumbnailSheets:
    """Return the thumbnails of an analyzed study.

    Raises:
        DamagedFileError: if a file cannot be read.
    """
    with decoding(study.store.locate(paths.THUMBNAILS)):
        values = json.loads(study.store.read_text(paths.THUMBNAILS))
        sheets = tuple(study.store.read_bytes(_place(number)) for number in range(values["num_sheets"]))
        return ThumbnailSheets(
            sample_ids=np.array(values["sample_ids"], dtype=np.int64),
            width=values["width"],
            height=values["height"],
            sheets=sheets,
            num_test_images=values["num_test_images"],
        )


def _place(number: int) -> str:
    return f"{paths.THUMBNAIL_SHEETS}/sheet_{number:03d}.webp"

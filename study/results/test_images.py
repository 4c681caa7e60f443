"""Test images of an analyzed study on its store: the files that they were read from, and their thumbnails."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.arms.arm_evidence import ArmEvidence
from analysis.arms.values import ArmFinding
from analysis.confusions.values import LabelIssue
from analysis.formats.table_formats import to_csv, unescape_formula
from analysis.heat_maps.values import CamPanel
from analysis.report.galleries import ThumbnailSheets, choose_thumbnails
from analysis.statistics.metrics import IntArray
from study.open_study import OpenStudy
from study.state import paths
from trainables.damaged_files import decoding
from trainables.data.images import ImageSet
from trainables.seeds import numpy_generator
from trainables.storage.store import Store


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


MOST_THUMBNAILS = 10_000


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

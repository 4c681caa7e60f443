"""The files that a study's test images were read from, on its store."""

import io
from collections.abc import Iterable

import pandas as pd

from analysis.findings.arm_findings import ArmFinding
from analysis.findings.class_findings import LabelIssue
from analysis.findings.heat_map_findings import CamPanel
from analysis.statistics.metrics import IntArray
from study.state import paths
from trainables.damaged_files import decoding
from trainables.data.images import ImageSet
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
    store.write_text(paths.TEST_IMAGES_CSV, pd.DataFrame(rows).to_csv(index=False))


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
        return dict(zip(rows["sample_id"].tolist(), rows["file"].tolist(), strict=True))

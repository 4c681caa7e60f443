"""Thumbnails of the test images of an analyzed study, on its store."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.evidence.arm_evidence import ArmEvidence
from analysis.findings.arm_findings import ArmFinding
from analysis.report.image_pages.thumbnail_sheets import ThumbnailSheets, choose_thumbnails
from study.open_study import OpenStudy
from study.state import paths
from trainables.damaged_files import decoding
from trainables.data.images import ImageSet
from trainables.seeds import numpy_generator

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

"""The results of a study as TensorBoard events: the first answers, the A/B table, and the figures of the winners."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from trainables.storage.store import Store

FOLDER = "findings/events"


def write_study_events(
    store: Store, answers: Sequence[tuple[str, str]], table: str, figures: Mapping[str, bytes]
) -> None:
    """Write the events of a study in place of earlier ones.

    Args:
        store: of the study.
        answers: question and answer, see `analysis.report.summary.summarize`.
        table: the A/B table in markdown.
        figures: PNG by the name of its tag.
    """
    with tempfile.TemporaryDirectory(prefix="abstudy-events-") as folder:
        with SummaryWriter(folder) as writer:
            writer.add_text("verdict/answers", "\n\n".join(f"**{question}:** {answer}" for question, answer in answers))
            writer.add_text("verdict/table", table)
            for name, png in figures.items():
                with Image.open(io.BytesIO(png)) as picture:
                    writer.add_image(
                        f"winners/{name}", np.asarray(picture.convert("RGBA").convert("RGB")), dataformats="HWC"
                    )
        store.delete(FOLDER)
        for path in Path(folder).iterdir():
            store.write_bytes(f"{FOLDER}/{path.name}", path.read_bytes())

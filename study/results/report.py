"""Writes the report of an analyzed study: pages, explorer, and TensorBoard events."""

import io
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.offline
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from analysis.arms.arm_evidence import tabulate_images, tabulate_models
from analysis.comparison.tables import build_markdown, build_table_rows
from analysis.interventions.values import InterventionFindings
from analysis.report.explorer import ExplorerInput, build_explorer
from analysis.report.galleries import ThumbnailSheets
from analysis.report.pages import NO_ROUNDS, build_html, build_report_markdown
from analysis.report.study_findings import Findings
from analysis.report.summary import summarize
from study.confirmation.evidence import load_evidence, require_plan
from study.open_study import OpenStudy
from study.results.figure_files import load_image_files, load_thumbnails, svg_name
from study.results.stored_findings import load_findings
from study.state import paths
from study.state.paths import ReportFormat
from trainables.storage.store import Store


def write_report(
    study: OpenStudy,
    rounds: Mapping[str, InterventionFindings] = NO_ROUNDS,
    formats: Collection[ReportFormat] = tuple(ReportFormat),
) -> tuple[str, ...]:
    """Write the report and the study's TensorBoard events from the findings; return the names of the files of the report.

    Args:
        study: analyzed.
        rounds: what the interventions that its findings asked for did, by the name of their study.
        formats: of the report; the events are always written.

    Raises:
        UserInputError: if the study has not been analyzed.
    """
    findings = replace(load_findings(study), argument=study.store.argument)
    rows = build_table_rows(findings.rows)
    thumbnails = load_thumbnails(study)
    pictures = {key: study.store.read_bytes(f"{paths.FIGURES}/{name}") for key, name in findings.figures.items()}
    drawings = {
        key: study.store.read_bytes(f"{paths.FIGURES}/{svg_name(name)}")
        for key, name in findings.figures.items()
        if study.store.exists(f"{paths.FIGURES}/{svg_name(name)}")
    }
    has_explorer = ReportFormat.EXPLORE in formats or study.store.exists(paths.EXPLORE_HTML)
    if ReportFormat.HTML in formats:
        html = build_html(findings, rows, pictures | drawings, rounds, thumbnails, has_explorer=has_explorer)
        study.store.write_text(paths.REPORT_HTML, html)
    if ReportFormat.MARKDOWN in formats:
        study.store.write_text(paths.REPORT_MARKDOWN, build_report_markdown(findings, rows, rounds))
    if ReportFormat.EXPLORE in formats:
        write_explorer(study, findings, thumbnails)
    shown = {key: png for key, png in pictures.items() if key.startswith(("comparison", "confusion_", "panel"))}
    write_study_events(study.store, summarize(findings, rows, rounds), build_markdown(findings.rows), shown)
    return tuple(kind.file for kind in ReportFormat if kind in formats)


def write_explorer(study: OpenStudy, findings: Findings, thumbnails: ThumbnailSheets) -> None:
    """Write explore.html from the findings, the predictions of the confirmed models and the records of the search.

    Args:
        study: analyzed.
        findings: of the study.
        thumbnails: of its test images.
    """
    evidence = [found.finished() for found in load_evidence(study, require_plan(study)).values()]
    measured = [found for found in evidence if found.runs]
    panels = {panel.sample_id: study.store.read_bytes(f"{paths.FIGURES}/{panel.figure}") for panel in findings.panels}
    shown = ExplorerInput(
        study=findings.study,
        class_names=findings.class_names,
        images=[tabulate_images(found, findings.class_names) for found in measured],
        models=[table for found in measured for table in tabulate_models(found, findings.class_names)],
        records=study.book.of_stage("search"),
        thumbnails=thumbnails,
        panels=panels,
        files=load_image_files(study.store),
    )
    study.store.write_text(paths.EXPLORE_HTML, build_explorer(shown, plotly.offline.get_plotlyjs()))


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

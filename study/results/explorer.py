"""Writes explore.html, which lists all test images and trials."""

import plotly.offline

from analysis.findings.study_findings import Findings
from analysis.report.image_pages.explorer import ExplorerInput, build_explorer
from analysis.report.image_pages.thumbnail_sheets import ThumbnailSheets
from study.confirmation.evidence import load_evidence, require_plan
from study.open_study import OpenStudy
from study.results.image_files import load_image_files
from study.state import paths


def write_explorer(study: OpenStudy, findings: Findings, thumbnails: ThumbnailSheets) -> None:
    """Write explore.html from the findings, the predictions of the confirmed models and the records of the search.

    Args:
        study: analyzed.
        findings: of the study.
        thumbnails: of its test images.
    """
    evidence = {arm: found.finished() for arm, found in load_evidence(study, require_plan(study)).items()}
    panels = {panel.sample_id: study.store.read_bytes(f"{paths.FIGURES}/{panel.figure}") for panel in findings.panels}
    shown = ExplorerInput(
        study=findings.study,
        class_names=findings.class_names,
        evidence=evidence,
        records=study.book.of_stage("search"),
        thumbnails=thumbnails,
        panels=panels,
        files=load_image_files(study.store),
    )
    study.store.write_text(paths.EXPLORE_HTML, build_explorer(shown, plotly.offline.get_plotlyjs()))

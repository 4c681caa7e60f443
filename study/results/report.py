"""Writes the report of an analyzed study."""

from collections.abc import Mapping

from analysis.findings.intervention_findings import InterventionFindings
from analysis.report.pages import NO_ROUNDS, build_html, build_markdown
from analysis.report.summary import summarize
from analysis.report.tables import build_markdown as build_markdown_table
from analysis.report.tables import build_table_rows
from study.open_study import OpenStudy
from study.results.findings import load_findings
from study.results.study_events import write_study_events
from study.state import paths


def write_report(study: OpenStudy, rounds: Mapping[str, InterventionFindings] = NO_ROUNDS) -> tuple[str, str]:
    """Write report.html, report.md and the study's TensorBoard events from the findings; return the names of the reports.

    Args:
        study: analyzed.
        rounds: what the interventions that its findings asked for did, by the name of their study.

    Raises:
        UserInputError: if the study has not been analyzed.
    """
    findings = load_findings(study)
    rows = build_table_rows(findings.rows)
    pictures = {key: study.store.read_bytes(f"{paths.FIGURES}/{name}") for key, name in findings.figures.items()}
    study.store.write_text(paths.REPORT_HTML, build_html(findings, rows, pictures, rounds))
    study.store.write_text(paths.REPORT_MARKDOWN, build_markdown(findings, rows, rounds))
    shown = {key: png for key, png in pictures.items() if key.startswith(("comparison", "confusion_", "panel"))}
    write_study_events(study.store, summarize(findings, rows, rounds), build_markdown_table(findings.rows), shown)
    return paths.REPORT_HTML, paths.REPORT_MARKDOWN

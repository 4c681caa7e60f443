"""Writes the report of an analyzed study."""

from analysis.report.pages import build_html, build_markdown
from analysis.report.tables import build_table_rows
from study.open_study import OpenStudy
from study.results.findings import load_findings
from study.state import paths


def write_report(study: OpenStudy) -> tuple[str, str]:
    """Write report.html and report.md from the findings; return their names.

    Raises:
        UserInputError: if the study has not been analyzed.
    """
    findings = load_findings(study)
    rows = build_table_rows(findings.rows)
    pictures = {key: study.store.read_bytes(f"{paths.FIGURES}/{name}") for key, name in findings.figures.items()}
    study.store.write_text(paths.REPORT_HTML, build_html(findings, rows, pictures))
    study.store.write_text(paths.REPORT_MARKDOWN, build_markdown(findings, rows))
    return paths.REPORT_HTML, paths.REPORT_MARKDOWN

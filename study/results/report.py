"""Writes the report of an analyzed study."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from analysis.findings.intervention_findings import InterventionFindings
from analysis.report.pages import NO_ROUNDS, build_html, build_report_markdown
from analysis.report.summary import summarize
from analysis.report.tables import build_markdown, build_table_rows
from study.open_study import OpenStudy
from study.results.explorer import write_explorer
from study.results.figures import svg_name
from study.results.findings import load_findings
from study.results.study_events import write_study_events
from study.results.thumbnails import load_thumbnails
from study.state import paths
from study.state.paths import ReportFormat


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
    writers: dict[ReportFormat, Callable[[], None]] = {
        ReportFormat.HTML: lambda: study.store.write_text(
            paths.REPORT_HTML,
            build_html(findings, rows, pictures | drawings, rounds, thumbnails, has_explorer=has_explorer),
        ),
        ReportFormat.MARKDOWN: lambda: study.store.write_text(
            paths.REPORT_MARKDOWN, build_report_markdown(findings, rows, rounds)
        ),
        ReportFormat.EXPLORE: lambda: write_explorer(study, findings, thumbnails),
    }
    written = [kind for kind in ReportFormat if kind in formats]
    for kind in written:
        writers[kind]()
    shown = {key: png for key, png in pictures.items() if key.startswith(("comparison", "confusion_", "panel"))}
    write_study_events(study.store, summarize(findings, rows, rounds), build_markdown(findings.rows), shown)
    return tuple(kind.file for kind in written)

"""`study mcp`: what studies have found, for agents, over the Model Context Protocol. It only reads.

An answer is short Markdown with intervals. Names that others gave, such as those of classes, are escaped in it, and it ends
with what it does not show.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.comparison.render import format_row_lines
from analysis.comparison.tables import build_table_rows, describe_questions
from analysis.comparison.values import ComparisonRow
from analysis.formats.numbers import escape_markdown, format_interval
from analysis.formats.text_sections import InspectionSection, Row, make_section
from analysis.report.rendering import render
from analysis.report.summary import summarize
from search_spaces.errors import UserInputError, count_noun, list_some
from search_spaces.extensions import import_extra
from study.open_study import load_study
from study.results.stored_findings import load_findings, load_rounds
from study.spec.reading import load_spec
from study.state.lease import read_holder
from study.state.paths import STAGE_FOLDERS, default_storage, open_study
from study.views.live_view import compute_progress, describe_progress, tabulate_progress
from study.views.status import find_studies, list_events, study_state
from trainables.storage.store import StorageError

MOST_ROWS = 10
# The methods of `Answers` that are tools; templates/answer.md.j2 has what the answers of each do not show.
TOOLS = ("list", "status", "findings", "compare", "judge", "gate", "plan", "inspect")
Sections = Sequence[InspectionSection]


def serve_answers(storage: str | None) -> None:
    """Answer one client on standard input and output until it closes them.

    Args:
        storage: root of the studies that are given by name; None for the default.

    Raises:
        UserInputError: if the package mcp is missing.
    """
    mcp, answers = import_extra("mcp", "2."), Answers(storage=storage or default_storage())
    server = mcp.server.MCPServer("abstudy", instructions=__doc__, log_level="WARNING")
    hints = mcp.types.ToolAnnotations(read_only_hint=True)
    for name in TOOLS:
        tool = _make_tool(answers, name, mcp.server.mcpserver.exceptions.ToolError)
        server.add_tool(tool, name, annotations=hints, structured_output=False)
    server.run("stdio")


def _make_tool(answers: "Answers", name: str, tool_error: type[Exception]) -> Callable[..., str]:
    """Return a function with the arguments of a method that returns Markdown, and raises `tool_error` where they are wrong."""
    answer = getattr(answers, name)

    @functools.wraps(answer)
    def call(**given: object) -> str:
        try:
            return render("answer.md.j2", tool=name, sections=answer(**given), most=MOST_ROWS)
        except (UserInputError, StorageError) as error:
            raise tool_error(escape_markdown(error)) from None

    return call


def _section(title: str, *lines: str, columns: Row = (), rows: Sequence[Row] = ()) -> InspectionSection:
    return make_section("", title, filter(None, lines), columns, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One method per tool; its docstring is what agents read of it.

    Attributes:
        storage: root of the studies that are given by name.
    """

    storage: str

    def list(self) -> Sections:
        """List the studies under the storage root: name, state, number of search trials, start."""
        rows = [tuple(map(str, study.values())) for study in find_studies(self.storage)]
        columns = ("name", "state", "trials", "started")
        return [_section(f"{count_noun(len(rows), 'study')} under {self.storage}", columns=columns, rows=rows)]

    def status(self, study: str) -> Sections:
        """Say how far a study is: its state, its driver, trials by arm and state, notes and failures.

        `study` is a path, a URI, or the name of a study under the storage root.
        """
        opened = load_study(open_study(study, self.storage))
        holder = read_holder(opened.store)
        driver = "no process drives it" if holder is None else f"driven by process {holder.pid} on {holder.host}"
        events = list_some(list_events(opened), MOST_ROWS, "; ")
        sections = [_section(f"{opened.name}: {study_state(opened)}", driver, events)]
        for stage in filter(opened.book.of_stage, STAGE_FOLDERS):
            progress = compute_progress(opened, stage)
            table = tabulate_progress(progress)
            sections.append(_section(stage, describe_progress(progress), columns=table.columns, rows=table.rows))
        return sections

    def findings(self, study: str) -> Sections:
        """Say what an analyzed study found: which arm, how sure, where it fails and what helps; scores; warnings.

        `study` is a path, a URI, or the name of a study under the storage root.
        """
        opened = load_study(open_study(study, self.storage))
        found = load_findings(opened)
        columns = ("arm", "macro-F1 on the test split, these models; recipe")
        scores = [(arm.arm, format_interval(arm.test_macro_f1)) for arm in found.arms]
        return [
            *(_section(*answer) for answer in summarize(found, build_table_rows(found.rows), load_rounds(opened))),
            _section("Arms", found.audit_note, columns=columns, rows=scores),
            _section("Warnings", *(found.warnings or ("none",))),
        ]

    def compare(self, study: str) -> Sections:
        """Give the A/B table of an analyzed study: differences with intervals, verdicts, and what would decide open rows.

        `study` is a path, a URI, or the name of a study under the storage root.
        """
        found = load_findings(load_study(open_study(study, self.storage)))
        reads = f"Reads of the test split: {found.num_test_reads}."
        return [_section("A/B comparison", *_describe_rows(found.rows), reads)]

    def judge(self, files: Sequence[str], control: str | None = None, margin: float | None = None) -> Sections:
        """Judge models trained elsewhere by their predictions: scores, confusions, and the A/B table of several arms.

        `files` are npz, Parquet or csv files with labels and probabilities (`study judge --help` has their columns), `control`
        is the arm that the others are compared with, and `margin` the equivalence margin in macro-F1, such as 0.005.
        """
        from analysis.confusions.render import describe_clusters, describe_directed
        from study.judging import JudgeOptions, judge_files

        rows, found = judge_files([Path(file) for file in files], JudgeOptions(control=control, margin=margin))
        sections = [_section("A/B comparison", *_describe_rows(rows)), _section("Notes", *found.notes)]
        for arm in found.arms:
            title = f"{arm.arm}: macro-F1 {format_interval(arm.test_macro_f1, 2)}, seeds: {len(arm.seeds)}"
            sections.append(_section(title, describe_directed(arm), describe_clusters(arm, arm.arm)))
        return sections

    def gate(self, old: str, new: str, not_worse: bool = False, margin: float | None = None) -> Sections:
        """Say whether a change is real: yes, no or undecided with what would decide, at any number of seeds.

        `old` and `new` are studies, STUDY:ARM, files of predictions, FILE:ARM, or folders of such files; `not_worse` asks whether
        `new` is not worse, instead of whether it is better, by the `margin` in macro-F1, such as 0.005.
        """
        from study.views.gating import GateOptions, describe_look, judge_sides

        look, notes = judge_sides(GateOptions(old=old, new=new, not_worse=not_worse, margin=margin))
        return [_section(f"study gate: {look.answer}", *describe_look(look), *notes)]

    def plan(
        self,
        spec: str,
        changes: Sequence[str] = (),
        like: str | None = None,
        seed_sd: float | None = None,
        image_sd: float | None = None,
    ) -> Sections:
        """Forecast what the looks of a spec can decide, before anything is trained, and the seeds or images that would.

        `spec` is a TOML file or the name of a preset; `changes` override values of it, section.key=value each. The variances
        come from [plan] in the spec, from `like`, an earlier study, or from `seed_sd` and `image_sd` in percentage points.
        """
        from rich.console import Console

        from study.views.planning import PlanOptions, forecast_spec

        loaded, text = load_spec(spec, changes)
        options = PlanOptions(like=like, seed_sd=seed_sd, image_sd=image_sd)
        return forecast_spec(loaded, text, options, self.storage, Console(quiet=True))

    def inspect(self, spec: str, changes: Sequence[str] = ()) -> Sections:
        """Say what the images of a spec are like, and what keeps it from being launched: duplicates, leaks, odd images, sizes.

        `spec` is a TOML file or the name of a preset; `changes` override values of it, section.key=value each.
        """
        from analysis.report.inspection_page import describe_inspection
        from study.views.data_inspection import compute_inspection, gather

        gathered = gather(*load_spec(spec, changes))
        sections = describe_inspection(compute_inspection(gathered, quick=True), most=MOST_ROWS, num_named=1)
        return [_section("Problems", *(gathered.problems or ("none",))), *sections]


def _describe_rows(rows: Sequence[ComparisonRow]) -> tuple[str, ...]:
    """Return a line per row, the metrics beside macro-F1 that differ, and what the verdicts are about."""
    return tuple([*format_row_lines(rows), *describe_questions(rows)] or ["One arm, so no arms were compared."])

"""The stages that follow the training: the A/B table, the findings, the report, and what comes next."""

from collections.abc import Collection
from dataclasses import dataclass

from rich.console import Console

from analysis.interventions.render import build_intervention_rich_table, format_effect
from analysis.interventions.values import InterventionFindings
from search_spaces.errors import UserInputError
from study.confirmation.evidence import require_plan
from study.interventions.derived_spec import write_recommendation
from study.interventions.forecast import describe_next_round
from study.open_study import find_parent
from study.results.comparison import compute_comparison
from study.results.findings import compute_findings, is_concluded
from study.results.report import write_report
from study.results.stored_findings import load_findings, load_rounds
from study.stages.stage import Session, StudyStage, run_stages
from study.state.paths import ReportFormat
from study.views.printing import print_line, print_lines
from study.views.verdicts import print_comparison


class Compare(StudyStage):
    """Write and print the A/B table of a confirmed study."""

    def run(self, session: Session) -> None:
        """Compute, write and print it."""
        found = compute_comparison(session.study)
        arms = tuple(found.arms.values())
        session.missed_minimums = print_comparison(session.study, found, arms, session.console)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyze(StudyStage):
    """Compute the findings of a confirmed study, which takes minutes.

    Attributes:
        is_alone: whether no stage follows in this session: findings that are current are computed anew, and counted.
    """

    is_alone: bool = False

    def is_done(self, session: Session) -> bool:
        """Return whether no trial is left, and the findings and figures are current and complete."""
        return not self.is_alone and is_concluded(session.study)

    def run(self, session: Session) -> None:
        """Compute and write the findings, and print each step as it begins."""
        study, console = session.study, session.console
        require_plan(study)
        image_set, workers = session.prepare().image_set, session.workers
        with console.status("analysis") as status:

            def say(step: str) -> None:
                status.update(f"analysis: {step}")
                if not console.is_terminal:
                    print_line(f"analysis: {step}", console)

            compute_findings(study, image_set, workers, say)

    def show(self, session: Session) -> None:
        """Print how many heat maps and figures there are."""
        if self.is_alone:
            found = load_findings(session.study)
            counts = f"{len(found.panels)} Grad-CAM panels, {len(found.figures)} figures"
            print_line(f"{counts} in {session.study.store.root}/findings", session.console)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(StudyStage):
    """Write the report of an analyzed study. It is written anew each time, because rounds of interventions change it.

    Attributes:
        formats: of the report.
    """

    formats: Collection[ReportFormat] = tuple(ReportFormat)

    def run(self, session: Session) -> None:
        """Write the report, of the rounds of interventions too, and print its files."""
        names = write_report(session.study, load_rounds(session.study), self.formats)
        print_lines(map(session.study.store.locate, names), session.console)


class Conclude(StudyStage):
    """Print the tables of a study that has its report, and what comes next: for a round, the recommendation is written."""

    def run(self, session: Session) -> None:
        """Print and write them."""
        study, console, found = session.study, session.console, load_findings(session.study)
        session.missed_minimums = print_comparison(study, found, found.arms, console)
        if found.interventions is None:
            native_size = session.prepare().image_set.images.shape[1]
            print_line(describe_next_round(study, found, native_size), console)
            return
        print_interventions(found.interventions, console)
        print_lines(write_recommendation(study, found.interventions), console)
        # The report of the study that asked for the round, if it is beside it, states what the round did.
        parent = find_parent(study)
        if parent is not None:
            try:
                run_stages([REPORT], console, store=parent)
            except UserInputError as error:
                advice = f"`study report {parent.argument}`: {error}"
                print_line(f"the report of {parent.root} lacks this round; {advice}", console)


COMPARE, ANALYZE, REPORT, CONCLUDE = Compare(), Analyze(), Report(), Conclude()


def print_interventions(found: InterventionFindings, console: Console) -> None:
    """Print the table of interventions, a line for each, and the conclusion."""
    console.print(build_intervention_rich_table(found))
    effects = (format_effect(effect, is_changed=found.is_changed) for effect in found.effects)
    print_lines((*effects, found.conclusion), console)

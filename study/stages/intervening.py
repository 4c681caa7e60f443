"""The stage that tries interventions: a round of them is stated, launched and compared, or an unfinished one continued."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from analysis.interventions.render import build_stated_rich_table
from analysis.interventions.values import Cell
from analysis.report.study_findings import to_plain
from search_spaces.errors import UserInputError, attempt, refuse_any
from study.cluster.connection import THIS_PROCESS
from study.confirmation.candidates import candidates, complete_seeds, is_crashed, keep_trained
from study.confirmation.evidence import is_confirmed
from study.confirmation.plan import confirmation_seeds, read_plan
from study.confirmation.stated_interventions import dump_stated
from study.inputs.preparation import prepare
from study.interventions.derived_spec import derive_spec, keep_fitting
from study.interventions.diagnosing import diagnose_winner
from study.interventions.forecast import check_round_cost, describe_reach, forecast_arms
from study.interventions.stating import CANNOT_BE_TRIED, Round, list_unknown, propose_interventions, state_interventions
from study.open_study import OpenStudy, has_finished_search, list_rounds, load_study, next_round
from study.results.stored_findings import load_findings
from study.stages.concluding import print_interventions
from study.stages.launching import create_study, list_stages, resume_study
from study.stages.stage import Session, StudyStage
from study.state.paths import FINDINGS, RECOMMENDED, REPORT_HTML
from study.views.printing import print_line
from trainables.storage.store import Store, split_uri

NOTHING_FOUND = (
    "nothing found on the test images that choose: no classes are confused more often than by chance or the tolerance, and no "
    "audit fails, so there is nothing to try"
)

MIN_SEEDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervene(StudyStage):
    """Try the interventions that the findings of a study ask for; continue a round that was stopped.

    A round is a study of its own.

    Attributes:
        store: the study, which is analyzed, and only read.
        target: TRUE:PREDICTED, a cell of the confusion matrix; None for what is found.
        only: names of the interventions to try; empty for all that a finding asks for.
        strength: of the class weights; None for the default.
        num_seeds: of the control and of each intervention, at a single look; None for the looks of the study.
        device_seconds: most device-seconds that the round may take; None for no limit.
        is_factorial: whether the interventions are the factors of a factorial design, or are tried one at a time.
        again: whether to begin another round after a finished one.
        dry_run: whether to stop before anything is written.
        as_json: whether to print what was stated or found as one JSON object; the progress then goes to the standard error.
    """

    store: Store
    target: str | None = None
    only: tuple[str, ...] = ()
    strength: float | None = None
    num_seeds: int | None = None
    device_seconds: float | None = None
    is_factorial: bool = False
    again: bool = False
    dry_run: bool = False
    as_json: bool = False

    def run(self, session: Session) -> None:
        """Begin a round, or continue or show the last one.

        Raises:
            UserInputError: if the study has no findings yet, or for options that do not fit.
        """
        target = self._check_options()
        session.study = load_study(self.store)
        load_findings(session.study)
        rounds = list_rounds(session.study)
        if self.as_json:
            session.console = Console(stderr=True)
        if not rounds or self.dry_run:
            self._begin(session, target)
            return
        last = load_study(rounds[-1])
        problem = _find_obstacle(last)
        # Confirmation trials that failed with an error are started again by `study resume`.
        is_over = bool(problem) and (self.again or not any(map(is_crashed, last.book.of_stage("confirmation"))))
        if is_over and not self.again:
            raise UserInputError(f"the round {last.store.root} cannot go on: {problem}")
        if not (is_over or _has_ended(last)):
            self._continue(last, session)
        elif not (is_over or self.again):
            self._show(last, session.console)
        else:
            self._begin(session, target)

    def _continue(self, last: OpenStudy, session: Session) -> None:
        root = last.store.root
        if self._begins_round:
            raise UserInputError(
                f"the round {root} has not ended; continue it with `study resume {last.store.argument}` before another begins"
            )
        print_line(f"continues {root}", session.console)
        resume_study(Store(root), session.console, session.address)
        self._print_found(root)

    def _show(self, last: OpenStudy, console: Console) -> None:
        place = f"the round {last.store.root} is finished"
        if self._begins_round:
            raise UserInputError(f"{place}; add --again to begin another one, at half its alpha")
        self._print_found(last.store.root)
        found = load_findings(last).interventions
        if not self.as_json and found is not None:
            print_interventions(found, console)
            print_line(f"{place}; --again begins another one, at half its alpha", console)

    def _check_options(self) -> Cell | None:
        """Return the target; refuse everything that is wrong with the options together, before anything is diagnosed."""
        problems = list_unknown(self.only)
        target = None if self.target is None else attempt(problems, parse_target, self.target)
        if self.num_seeds is not None and self.num_seeds < MIN_SEEDS:
            problems.append(f"--seeds is {self.num_seeds}, but a comparison needs {MIN_SEEDS} seeds or more")
        if self.strength is not None and not 0 < self.strength <= 1:
            problems.append(f"--strength is {self.strength:g}, but 0 < strength <= 1 must hold")
        if self.device_seconds is not None and not self.device_seconds > 0:
            problems.append(f"--device-seconds is {self.device_seconds:g}, but must be above 0")
        refuse_any(problems, CANNOT_BE_TRIED)
        return target

    def _begin(self, session: Session, target: Cell | None) -> None:
        parent, console = session.study, session.console
        prepared = session.prepare()
        if self.dry_run and session.address is None:
            # Without a cluster a dry run diagnoses here, whatever devices the trials will need.
            session.address = THIS_PROCESS
        else:
            session.check_cluster(parent.spec)
        number, store = next_round(parent)

        def say(step: str) -> None:
            if not self.as_json:
                print_line(f"diagnosis: {step}", console)

        choosing = diagnose_winner(parent, prepared, target, session.workers, say)
        proposals, left_out = propose_interventions(
            choosing.diagnosis, self.only, self.strength, is_factorial=self.is_factorial
        )
        if not proposals:
            if self.as_json:
                _print_json({"interventions": [], "note": NOTHING_FOUND})
            else:
                print_line(NOTHING_FOUND, console)
            return
        looks = tuple(parent.spec.confirm.looks) if self.num_seeds is None else (self.num_seeds,)
        planned = Round(parent=parent, choosing=choosing, number=number, looks=looks, is_factorial=self.is_factorial)
        proposals, misfits = keep_fitting(planned, proposals, prepared)
        if misfits and (self.only or self.is_factorial or not proposals):
            refuse_any([f"{name}: {reason}" for name, reason in misfits.items()], CANNOT_BE_TRIED)
        seconds = forecast_arms(parent, choosing.source, proposals)
        stated = state_interventions(planned, proposals, {} if self.only else left_out | misfits, seconds, say)
        order = [one.arm for one in stated.interventions]
        proposals = tuple(sorted(proposals, key=lambda proposal: order.index(proposal.intervention.name)))
        cost = check_round_cost(planned, proposals, self.device_seconds)
        _, name = split_uri(store.root)
        spec = derive_spec(planned, stated, name)
        if self.as_json and self.dry_run:
            _print_json(dump_stated(stated))
            return
        console.print(build_stated_rich_table(stated))
        print_line(f"{name}: {cost.describe()}", console)
        print_line(describe_reach(parent, spec, stated), console)
        if self.dry_run:
            console.print("dry run, nothing written")
            return
        with Session(console) as started:
            # On the cluster that is connected, with the images of the parent.
            started.cluster = session.cluster
            started.prepared = prepare(spec, (prepared.image_set, prepared.splits))
            create_study(started, store, spec, interventions=dump_stated(stated))
            started.run(list_stages())
        self._print_found(store.root)

    @property
    def _begins_round(self) -> bool:
        """Whether an option is given that applies to a new round alone."""
        given = bool(self.target or self.only or self.again or self.is_factorial)
        return given or (self.strength, self.num_seeds, self.device_seconds) != (None, None, None)

    def _print_found(self, root: str) -> None:
        """Print what a round found where JSON is wanted."""
        if self.as_json:
            found = load_findings(load_study(Store(root))).interventions
            assert found is not None
            _print_json(to_plain(asdict(found)))


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, allow_nan=False))


def _has_ended(study: OpenStudy) -> bool:
    """Whether a round has ended: no trial is left, and its findings, report and recommendation are written."""
    if not (has_finished_search(study) and is_confirmed(study) and study.store.exists(FINDINGS)):
        return False
    found = load_findings(study).interventions
    made = [REPORT_HTML, RECOMMENDED] if found is not None and found.recommended else [REPORT_HTML]
    return all(map(study.store.exists, made))


def _find_obstacle(study: OpenStudy) -> str:
    """Return why the training of a round has ended and it cannot be compared; "" if nothing is in the way."""
    if not has_finished_search(study) or read_plan(study.store) is not None:
        return ""
    book, spec = study.book, study.spec
    first = confirmation_seeds(spec)[: spec.confirm.looks[0]]
    try:
        winners = {arm: found[0] for arm, found in candidates(book, spec).items()}
        ended = {
            arm: {r.config.seed for r in book.with_configuration_of(winner, "confirmation") if r.state.is_finished}
            for arm, winner in winners.items()
        }
        if all(set(first) <= seeds for seeds in ended.values()):
            complete_seeds(book, keep_trained(book, winners, first, spec), first, spec.confirm.folds)
    except UserInputError as error:
        return str(error)
    return ""


def parse_target(text: str) -> Cell:
    """Return the cell of "TRUE:PREDICTED"; raise UserInputError if `text` has another form."""
    true, found, called = text.partition(":")
    if not found or not true.strip() or not called.strip():
        raise UserInputError(f"--target takes TRUE:PREDICTED, two classes such as cat:dog, but got {text!r}")
    return true.strip(), called.strip()

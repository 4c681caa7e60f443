"""What `study intervene` does: a round of interventions is stated, launched and compared, or an unfinished one continued."""

import json
from dataclasses import asdict, dataclass

from rich.console import Console

from analysis.findings.intervention_findings import Cell, InterventionFindings, StatedInterventions
from analysis.findings.study_findings import to_plain
from analysis.report.intervention_tables import build_stated_rich_table
from search_spaces.errors import UserInputError
from study import commands, concluding
from study.cluster.connection import THIS_PROCESS, Cluster, check_cluster, connect_cluster, count_devices
from study.cluster.workers import make_workers
from study.confirmation.candidates import candidates, keep_trained
from study.confirmation.evidence import is_confirmed
from study.confirmation.plan import confirmation_seeds, read_plan
from study.confirmation.runs import complete_seeds, is_crashed
from study.confirmation.stated_interventions import dump_stated
from study.driver import prepare_again
from study.inputs.preparation import Prepared, prepare_images
from study.inputs.provenance import make_passport
from study.interventions.derived_spec import derive_spec, keep_fitting
from study.interventions.diagnosing import choose_on_half
from study.interventions.forecast import check_budget, forecast_cost
from study.interventions.stating import list_not_tried, propose, refuse_misfits, state_interventions
from study.open_study import OpenStudy, create_to_drive, has_finished_search, load_study
from study.results.findings import load_findings
from study.results.rounds import list_rounds, next_round
from study.spec.study_spec import StudySpec
from study.state.paths import FINDINGS, RECOMMENDED, REPORT_HTML
from study.views.printing import print_line
from trainables.storage.store import Store, split_uri

NOTHING_FOUND = (
    "nothing found on the test images that choose: no classes are confused more often than by chance or the tolerance, and no "
    "audit fails, so there is nothing to try"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterveneOptions:
    """The options of a new round.

    Attributes:
        target: TRUE:PREDICTED, a cell of the confusion matrix; None for what is found.
        only: names of the interventions to try; empty for all that a finding asks for.
        strength: of the class weights; None for the default.
        num_seeds: of the control and of each intervention, at a single look; None for the looks of the study.
        device_seconds: most device-seconds that the round may take; None for no limit.
        is_factorial: whether the interventions are the factors of a factorial design, or are tried one at a time.
        again: whether to begin another round after a finished one.
        dry_run: whether to stop before anything is written.
        as_json: whether to print what was stated or found as JSON.
    """

    target: str | None = None
    only: tuple[str, ...] = ()
    strength: float | None = None
    num_seeds: int | None = None
    device_seconds: float | None = None
    is_factorial: bool = False
    again: bool = False
    dry_run: bool = False
    as_json: bool = False

    @property
    def begins_round(self) -> bool:
        """Whether an option is given that applies to a new round alone."""
        given = bool(self.target or self.only or self.again or self.is_factorial)
        return given or (self.strength, self.num_seeds, self.device_seconds) != (None, None, None)


def intervene(store: Store, options: InterveneOptions, *, address: str | None, console: Console) -> list[str]:
    """Try the interventions that the findings of a study ask for; continue a round that was stopped.

    Args:
        store: the study, analyzed.
        options: of the round.
        address: of the cluster, see `connect_cluster`.
        console: receives the progress and the tables; with `as_json`, the standard error does, and the output is one object.

    Returns:
        One message per arm that misses the minimum, of which a round has none.

    Raises:
        UserInputError: if the study has no findings yet, or for options that do not fit.
    """
    parent = load_study(store)
    load_findings(parent)
    rounds = list_rounds(parent)
    if options.as_json:
        console = Console(stderr=True)
    if rounds and not options.dry_run:
        last = load_study(rounds[-1])
        problem = _find_obstacle(last)
        # Confirmation trials that failed with an error are started again by `study resume`.
        is_over = bool(problem) and (options.again or not any(map(is_crashed, last.book.of_stage("confirmation"))))
        if is_over and not options.again:
            raise UserInputError(f"the round {last.store.root} cannot go on: {problem}")
        if not is_over and not _has_ended(last):
            missed_minimums = _continue(last, options, address=address, console=console)
            return _print_result(last.store, missed_minimums, options)
        if not is_over and not options.again:
            return _show(last, options, console)
    return _begin(parent, options, address=address, console=console)


def _print_result(done: Store, missed_minimums: list[str], options: InterveneOptions) -> list[str]:
    """Print what a round found where JSON is wanted; return `missed_minimums`."""
    if options.as_json:
        _print_json(load_findings(load_study(done)).interventions)
    return missed_minimums


def _print_json(found: InterventionFindings | None) -> None:
    assert found is not None
    print(json.dumps(to_plain(asdict(found)), indent=1, allow_nan=False))


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
            kept = keep_trained(book, winners, first, spec)
            complete_seeds(book, kept, first)
    except UserInputError as error:
        return str(error)
    return ""


def parse_target(text: str) -> Cell:
    """Return the cell of "TRUE:PREDICTED"; raise UserInputError if `text` has another form."""
    true, found, called = text.partition(":")
    if not found or not true.strip() or not called.strip():
        raise UserInputError(f"--target takes TRUE:PREDICTED, two classes such as cat:dog, but got {text!r}")
    return true.strip(), called.strip()


def _continue(last: OpenStudy, options: InterveneOptions, *, address: str | None, console: Console) -> list[str]:
    if options.begins_round:
        raise UserInputError(
            f"the round {last.store.root} has not ended; continue it with `study resume {last.store.argument}` before another "
            "begins"
        )
    print_line(f"continues {last.store.root}", console)
    return commands.resume(
        Store(last.store.root),
        address=address,
        num_trials=None,
        device_seconds=None,
        allow_changed=False,
        whole=True,
        console=console,
    )


def _show(last: OpenStudy, options: InterveneOptions, console: Console) -> list[str]:
    if options.begins_round:
        raise UserInputError(
            f"the round {last.store.root} is finished; add --again to begin another one, at half its alpha"
        )
    found = load_findings(last).interventions
    if options.as_json:
        _print_json(found)
        return []
    assert found is not None
    concluding.print_interventions(found, console)
    print_line(f"the round {last.store.root} is finished; --again begins another one, at half its alpha", console)
    return []


def _begin(parent: OpenStudy, options: InterveneOptions, *, address: str | None, console: Console) -> list[str]:
    target = None if options.target is None else parse_target(options.target)
    prepared = prepare_again(parent)
    # Without a cluster a dry run diagnoses here, whatever devices the trials will need.
    stays_here = options.dry_run and address is None
    with connect_cluster(THIS_PROCESS if stays_here else address) as cluster:
        if not stays_here:
            check_cluster(parent.spec, cluster)
        return _begin_on(cluster, parent, prepared, target, options, console)


def _begin_on(
    cluster: Cluster,
    parent: OpenStudy,
    prepared: Prepared,
    target: Cell | None,
    options: InterveneOptions,
    console: Console,
) -> list[str]:
    number, store = next_round(parent)

    def say(step: str) -> None:
        if not options.as_json:
            print_line(f"diagnosis: {step}", console)

    workers = make_workers(cluster, parent.spec, prepared.data)
    choosing = choose_on_half(parent, prepared, target, workers, say)
    is_factorial = options.is_factorial
    proposals = propose(choosing.diagnosis, options.only, options.strength, is_factorial=is_factorial)
    if not proposals:
        if options.as_json:
            print(json.dumps({"interventions": [], "note": NOTHING_FOUND}, indent=1))
        else:
            print_line(NOTHING_FOUND, console)
        return []
    looks = tuple(parent.spec.confirm.looks) if options.num_seeds is None else (options.num_seeds,)
    proposals, misfits = keep_fitting(parent, choosing, proposals, prepared, looks)
    if misfits and (options.only or is_factorial or not proposals):
        raise refuse_misfits(misfits)
    check_budget(parent, choosing.source, proposals, looks, options.device_seconds, is_factorial=is_factorial)
    not_tried = () if options.only else list_not_tried(choosing.diagnosis, proposals, misfits)
    stated = state_interventions(parent, choosing, proposals, number=number, not_tried=not_tried, on_step=say)
    _, name = split_uri(store.root)
    spec = derive_spec(parent, choosing, stated, name, looks, is_factorial=is_factorial)
    if options.as_json and options.dry_run:
        print(json.dumps(dump_stated(stated), indent=1, allow_nan=False))
        return []
    console.print(build_stated_rich_table(stated))
    cost = forecast_cost(parent, choosing.source, proposals, looks, is_factorial=is_factorial)
    print_line(f"{name}: {cost.describe()}", console)
    if options.dry_run:
        console.print("dry run, nothing written")
        return []
    missed_minimums = _launch(store, spec, stated, _prepare(spec, prepared), cluster, console)
    return _print_result(store, missed_minimums, options)


def _prepare(spec: StudySpec, parent: Prepared) -> Prepared:
    """Return the data of a round: the parent's images and splits, with the settings of the round."""
    return prepare_images(spec, parent.image_set, parent.splits, parent.weights)


def _launch(
    store: Store, spec: StudySpec, stated: StatedInterventions, prepared: Prepared, cluster: Cluster, console: Console
) -> list[str]:
    max_concurrent = check_cluster(spec, cluster)
    passport = make_passport(prepared, cluster.describe(), count_devices(spec, cluster, max_concurrent))
    with create_to_drive(store, spec, passport, interventions=dump_stated(stated)) as opened:
        return commands.drive(opened, prepared, cluster, max_concurrent, whole=True, console=console)

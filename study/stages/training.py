"""The stages that train: baselines, search and confirmation."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from analysis.baselines.values import LINEAR_PROBE, describe_baselines
from search_spaces.config import list_folds, name_whole
from study.baselines.measuring import find_unread_probe, measure_baselines, predict_test, write_baselines
from study.cluster.tasks import Stage
from study.confirmation.candidates import (
    candidates,
    choose_by_ranking,
    complete_seeds,
    describe_unlike_nodes,
    is_crashed,
    keep_trained,
    planned_runs,
)
from study.confirmation.evidence import find_undecided, is_confirmed, list_unfinished_wholes
from study.confirmation.plan import Plan, confirmation_seeds, followed_plan, make_plan, ranking_seeds, write_plan
from study.confirmation.trained_models import read_test_split
from study.open_study import full_trial_seconds, has_finished_search, read_baselines, require_finished_search
from study.scheduling.director import ConfirmationDirector, Director, WantedTrial, want
from study.scheduling.search_director import SearchDirector
from study.scheduling.warm_start import earlier_trials
from study.spec.study_spec import StudySpec
from study.stages.stage import Session, StudyStage
from study.state.record_book import StudyInterrupted
from study.views.forecast_basis import find_ranked_basis
from study.views.planning import describe_chance
from study.views.printing import print_line, print_lines
from study.views.status import print_stage
from trainables.damaged_files import DamagedFileError
from trainables.records.record import TrialRecord
from trainables.trial_settings import TrialSettings


class Baselines(StudyStage):
    """Measure the majority class and the linear probes."""

    def is_done(self, session: Session) -> bool:
        """Return whether they were measured; a round of interventions has none, since its control is an arm."""
        return session.study.spec.intervene is not None or read_baselines(session.study) is not None

    def run(self, session: Session) -> None:
        """Measure and write them."""
        study, prepared = session.study, session.prepare()
        session.view.update(study, "baselines")
        write_baselines(study, *measure_baselines(study.spec, prepared, session.workers), prepared)

    def show(self, session: Session) -> None:
        """Print them."""
        stored = read_baselines(session.study)
        print_lines(() if stored is None else describe_baselines(stored.findings), session.console)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(StudyStage):
    """Search every arm's best configurations.

    Attributes:
        is_last: whether no stage follows in this session, so that the command that goes on is printed.
    """

    is_last: bool = False

    def is_done(self, session: Session) -> bool:
        """Return whether every trial has ended and the budget is used up."""
        return has_finished_search(session.study)

    def run(self, session: Session) -> None:
        """Run the trials that are left."""
        study = session.study
        costs, earlier = full_trial_seconds(study.store), earlier_trials(study.store)
        fixed = session.prepare().fixed
        director = SearchDirector(study.book, study.spec, fixed, full_trial_seconds=costs, earlier=earlier)
        with session.view:
            run_to_the_end(session, director, ("search",))

    def show(self, session: Session) -> None:
        """Print the table of the arms."""
        print_stage(session.study, "search", session.console)
        if self.is_last:
            print_line(f"next: study compare {session.study.store.argument}", session.console)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(StudyStage):
    """Train the winners with new seeds, and read the test split look by look, as planned.

    Attributes:
        is_shown: whether the table of the arms is printed.
    """

    is_shown: bool = True

    def is_done(self, session: Session) -> bool:
        """Return whether every trial that the plan still needs, and the probe, have their test predictions.

        With folds, each arm has a model of all images too.
        """
        study, is_left = session.study, find_unread_probe(session.study) is not None
        return is_confirmed(study) and not is_left and not list_unfinished_wholes(study)

    def run(self, session: Session) -> None:
        """Run the trials that are left; only arms of rows that the looks so far have not decided get more seeds.

        Raises:
            UserInputError: if the search has not finished, or an arm has no trial that ran every epoch.
            StudyInterrupted: if the confirmation stops before its end.
        """
        study, spec = session.study, session.study.spec
        require_finished_search(study)
        session.prepare()
        session.check_cluster(spec)
        with session.view:
            plan = followed_plan(study.book, spec) or _plan(session)
            winners = {arm: study.book.get("search", trial_id) for arm, trial_id in plan.chosen.items()}
            undecided = tuple(winners)
            for number, look in enumerate(plan.looks):
                if number:
                    undecided = find_undecided(study, plan)
                seeds = plan.seeds[:look]
                folds = spec.confirm.folds
                _train(session, _want(spec, [(winners[arm], seeds) for arm in undecided], list_folds(folds)))
                runs = [run for arm in undecided for run in planned_runs(study.book, winners[arm], seeds, folds)]
                session.view.update(study, "test")
                also = (LINEAR_PROBE,) if number == 0 and find_unread_probe(study) is not None else ()
                read_test_split(study.book, plan, runs, session.workers, spec, also)
                if number == 0:
                    predict_test(study, plan, session.workers)
            if spec.confirm.folds:
                # The models to use; what they score is known of the folds alone.
                jobs = [(winner, plan.seeds[:1]) for winner in winners.values()]
                _train(session, _want(spec, jobs, (name_whole(spec.confirm.folds),)))

    def show(self, session: Session) -> None:
        """Print the table of the arms, and whether the trials ran on unlike nodes."""
        if sentence := describe_unlike_nodes(session.study.book.of_stage("confirmation")):
            print_line(f"warning: {sentence}", session.console)
        if self.is_shown:
            print_stage(session.study, "confirmation", session.console, is_over=True)


BASELINES, CONFIRM = Baselines(), Confirm()


def _plan(session: Session) -> Plan:
    """Rank each arm's candidates, train the winners for the first look, and write the plan with the seeds that they completed."""
    study, spec = session.study, session.study.spec
    chosen, ranking = candidates(study.book, spec), ranking_seeds(spec)
    # Trials of folds have no score on the confirm split, which chooses between winner and probe too.
    is_ranked = spec.confirm.folds > 0
    contested = [source for sources in chosen.values() if len(sources) > 1 or is_ranked for source in sources]
    # What failed with an error before a resume; no result of the comparison is known yet.
    crashed = {record.fingerprint for record in study.book.of_stage("confirmation") if is_crashed(record)}
    first, folds = confirmation_seeds(spec)[: spec.confirm.looks[0]], spec.confirm.folds

    def want_first_look() -> Sequence[WantedTrial]:
        """Return the trials of the winners, by what ranked them."""
        _say_chance(session, chosen, ranking)
        winners = choose_by_ranking(study.book, chosen, ranking)
        return _want(spec, [(winner, first) for winner in winners.values()], list_folds(folds))

    ranked = _want(spec, [(source, ranking) for source in contested])
    _train(session, ranked, then=want_first_look, crashed=crashed)
    winners = choose_by_ranking(study.book, chosen, ranking)
    winners = keep_trained(study.book, winners, first, spec)
    plan = make_plan(spec, winners, complete_seeds(study.book, winners, first, folds))
    write_plan(study.store, plan)
    return plan


def _say_chance(session: Session, chosen: Mapping[str, Sequence[TrialRecord]], ranking: Sequence[int]) -> None:
    """Print what the looks can decide by the trials that ranked the candidates, where these allow an estimate."""
    study = session.study
    try:
        basis = find_ranked_basis(study, chosen, ranking)
    except DamagedFileError as error:
        print_line(f"what the looks can decide is not known from the ranking: {error}", session.console)
        return
    if basis is not None:
        print_line(describe_chance(study.spec, session.prepare().splits, basis), session.console)


def _want(
    spec: StudySpec, jobs: Sequence[tuple[TrialRecord, tuple[int, ...]]], folds: Sequence[str] = ("",)
) -> list[WantedTrial]:
    """Return the trials of search trials and their seeds, seed by seed, so that the arms' alternate and finish together."""
    order = (*ranking_seeds(spec), *confirmation_seeds(spec))
    wanted = [trial for source, seeds in jobs for trial in want(source, seeds, folds)]
    return sorted(wanted, key=lambda trial: order.index(trial.config.seed))


def _train(
    session: Session,
    wanted: Sequence[WantedTrial],
    then: Callable[[], Sequence[WantedTrial]] | None = None,
    crashed: Collection[str] = (),
) -> None:
    book, allowed = session.study.book, session.study.spec.resources.max_failed_fraction
    director = ConfirmationDirector(book, wanted, then=then, again=crashed, max_failed_fraction=allowed)
    run_to_the_end(session, director, ("search", "confirm"))


def run_to_the_end(session: Session, director: Director, splits: tuple[str, ...]) -> None:
    """Run the director's trials, each of which predicts some splits at its end; raise StudyInterrupted if some are left."""
    study, resources, prepared = session.study, session.study.spec.resources, session.prepare()
    settings = TrialSettings(
        study_uri=study.store.address,
        weights=prepared.weights,
        device=resources.device,
        space=study.spec.search_space().parameters,
        profile=resources.profile,
        checkpoint_seconds=resources.checkpoint_seconds,
    )
    run = Stage(
        settings=settings,
        max_concurrent=session.check_cluster(study.spec),
        splits_to_predict=splits,
        on_change=lambda: session.view.update(study, director.stage),
    )
    if not director.is_exhausted:
        session.workers.run_trials(director, run)
    if director.problem:
        raise StudyInterrupted(
            f"the study stopped: {director.problem}; `study status {study.store.argument}` shows the causes; "
            f"fix them and continue with `study resume {study.store.argument}`"
        )
    if not director.is_exhausted or director.unfinished():
        raise StudyInterrupted(
            f"the study stopped during its {director.stage}; continue with `study resume {study.store.argument}`"
        )

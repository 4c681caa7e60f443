"""The stages that train: search and confirmation. Each continues where it stopped."""

from collections.abc import Callable, Collection

from analysis.findings.baseline_findings import LINEAR_PROBE
from search_spaces.errors import UserInputError
from study.baselines.files import StoredBaselines, find_probe, read_baselines
from study.baselines.measuring import measure_baselines
from study.baselines.stored import predict_test, write_baselines
from study.cluster.connection import Cluster
from study.cluster.workers import Stage, make_workers
from study.confirmation.candidates import candidates, choose_by_ranking, keep_trained
from study.confirmation.director import ConfirmationDirector, want
from study.confirmation.plan import Plan, confirmation_seeds, followed_plan, make_plan, ranking_seeds, write_plan
from study.confirmation.predictions_on_test import read_test_split
from study.confirmation.runs import complete_seeds, is_crashed, planned_runs
from study.inputs.environment_changes import check_unchanged
from study.inputs.preparation import Prepared, prepare
from study.open_study import OpenStudy, full_trial_seconds, read_passport, require_finished_search
from study.scheduling.director import Director
from study.scheduling.search_director import SearchDirector
from study.scheduling.warm_start import earlier_trials
from study.state.interruption import StudyInterrupted
from trainables.records.record import TrialRecord
from trainables.trial_settings import TrialSettings

OnChange = Callable[[OpenStudy, str], None]
FindUndecided = Callable[[OpenStudy, Plan], tuple[str, ...]]


class Driver:
    """Runs the stages of one study on one cluster."""

    def __init__(
        self, study: OpenStudy, prepared: Prepared, cluster: Cluster, max_concurrent: int, on_change: OnChange
    ) -> None:
        """Give the study's data to the workers of the cluster.

        Args:
            study: the study, opened to be driven.
            prepared: its data.
            cluster: the connected cluster.
            max_concurrent: trials that may run at once, see `check_cluster`.
            on_change: called with the study and the stage ("baselines", "search", "confirmation" or "test"), about once a second.
        """
        self.study = study
        self.prepared = prepared
        self.cluster = cluster
        self._max_concurrent = max_concurrent
        self._on_change = on_change
        self._settings = TrialSettings(
            study_uri=study.store.address,
            weights=prepared.weights,
            device=study.spec.resources.device,
            space=study.spec.search_space().parameters,
            profile=study.spec.resources.profile,
            checkpoint_seconds=study.spec.resources.checkpoint_seconds,
        )
        self.workers = make_workers(cluster, study.spec, prepared.data)

    def measure_baselines(self) -> StoredBaselines | None:
        """Measure the baselines, unless that was done; return them, None in a round of interventions, whose control is an arm."""
        study, prepared = self.study, self.prepared
        if study.spec.intervene is None and read_baselines(study) is None:
            self._on_change(study, "baselines")
            measured = measure_baselines(study.spec, prepared, self.workers)
            write_baselines(study, measured, prepared.weights, len(prepared.data.class_names))
        return read_baselines(study)

    def search(self) -> None:
        """Run the search to its end; raise StudyInterrupted if it stops before."""
        study = self.study
        costs, earlier = full_trial_seconds(study.store), earlier_trials(study.store)
        director = SearchDirector(
            study.book, study.spec, self.prepared.fixed, full_trial_seconds=costs, earlier=earlier
        )
        self._run(director, "search", ("search",))

    def confirm(self, find_undecided: FindUndecided) -> Plan:
        """Run the confirmation to its end, and read the test split look by look, as planned.

        Args:
            find_undecided: returns the arms of the rows that the looks so far have not decided; only they get more seeds.

        Returns:
            The plan.

        Raises:
            UserInputError: if the search has not finished, or an arm has no trial that ran every epoch.
            StudyInterrupted: if the confirmation stops before its end.
        """
        study, spec = self.study, self.study.spec
        require_finished_search(study)
        chosen = candidates(study.book, spec)
        seeds = confirmation_seeds(spec)
        plan = followed_plan(study.book, spec)
        if plan is not None:
            winners = {arm: study.book.get("search", trial_id) for arm, trial_id in plan.chosen.items()}
        else:
            ranking = ranking_seeds(spec)
            contested = [s for sources in chosen.values() if len(sources) > 1 for s in sources]
            # What failed with an error before a resume; no result of the comparison is known yet.
            crashed = {r.fingerprint for r in study.book.of_stage("confirmation") if is_crashed(r)}
            self._confirm([(s, ranking) for s in contested], crashed)
            winners = choose_by_ranking(study.book, chosen, ranking)
            first = seeds[: spec.confirm.looks[0]]
            self._confirm([(winner, first) for winner in winners.values()], crashed)
            winners = keep_trained(study.book, winners, first, spec)
            complete = complete_seeds(study.book, winners, first)
            plan = make_plan(spec, winners, complete)
            write_plan(study.store, plan)
        undecided = tuple(winners)
        for number, look in enumerate(plan.looks):
            if number:
                undecided = find_undecided(study, plan)
            self._confirm([(winners[arm], plan.seeds[:look]) for arm in undecided])
            runs = [run for arm in undecided for run in planned_runs(study.book, winners[arm], plan.seeds[:look])]
            self._on_change(study, "test")
            also = (LINEAR_PROBE,) if number == 0 and find_probe(study) is not None else ()
            read_test_split(study.book, plan, runs, self.workers, spec, also)
            if number == 0:
                predict_test(study, plan, self.workers)
        return plan

    def _confirm(self, jobs: list[tuple[TrialRecord, tuple[int, ...]]], crashed: Collection[str] = ()) -> None:
        # Seed by seed, so that the arms' trials alternate and finish together.
        wanted = [trial for source, seeds in jobs for trial in want(source, seeds)]
        order = (*ranking_seeds(self.study.spec), *confirmation_seeds(self.study.spec))
        wanted.sort(key=lambda trial: order.index(trial.config.seed))
        allowed = self.study.spec.resources.max_failed_fraction
        director = ConfirmationDirector(self.study.book, wanted, again=crashed, max_failed_fraction=allowed)
        self._run(director, "confirmation", ("search", "confirm"))

    def _run(self, director: Director, stage: str, splits: tuple[str, ...]) -> None:
        run = Stage(
            settings=self._settings,
            max_concurrent=self._max_concurrent,
            splits_to_predict=splits,
            on_change=lambda: self._on_change(self.study, stage),
        )
        if not director.is_exhausted:
            self.workers.run_trials(director, run)
        if director.problem:
            raise StudyInterrupted(
                f"the study stopped: {director.problem}; `study status {self.study.store.argument}` shows the causes; "
                f"fix them and continue with `study resume {self.study.store.argument}`"
            )
        if not director.is_exhausted or director.unfinished():
            raise StudyInterrupted(
                f"the study stopped during its {stage}; continue with `study resume {self.study.store.argument}`"
            )


def prepare_resumed(study: OpenStudy, *, allow_changed: bool = False) -> Prepared:
    """Prepare a study's data again, to run more of its trials.

    Args:
        study: the study, opened to be driven.
        allow_changed: whether to continue with other code or package versions, which is recorded in the study.

    Raises:
        UserInputError: if data or weights, or without `allow_changed` code or versions, differ from those at the launch.
    """
    num_trials = len(study.book.of_stage("search"))
    check_unchanged(study.store, read_passport(study.store), allow_changed=allow_changed, num_trials=num_trials)
    return prepare_again(study)


def prepare_again(study: OpenStudy) -> Prepared:
    """Prepare a study's data again; raise UserInputError if data or weights differ from those at the launch."""
    prepared = prepare(study.spec)
    passport = read_passport(study.store)
    now = {"data": prepared.splits.fingerprint, "weights": prepared.fixed["weights"]}
    then = {"data": passport["data"]["splits"], "weights": passport["weights"]}
    for kind, value in now.items():
        if value != then[kind]:
            raise UserInputError(
                f"the study was launched with other {kind} ({then[kind]}) than are found now ({value}); "
                "restore them, or launch a new study"
            )
    return prepared

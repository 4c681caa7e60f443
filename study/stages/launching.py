"""How a study begins or goes on: everything is checked before anything is written, then the stages that are left follow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console

from search_spaces.errors import count_noun
from study.cluster.connection import count_devices, describe_idle_gpus
from study.confirmation.plan import read_plan
from study.inputs.fitted_defaults import fit_and_prepare
from study.inputs.preparation import check_class_groups
from study.inputs.provenance import make_passport
from study.open_study import check_is_new, create_to_drive, has_finished_search
from study.scheduling.sampler import check_custom_sampler
from study.scheduling.unseen_test import check_test_is_unseen
from study.scheduling.warm_start import collect_warm_start
from study.spec.reading import GivenConfiguration, describe_changed_settings
from study.spec.setting_places import describe_untrained
from study.spec.starts import describe_starts
from study.spec.study_spec import StudySpec
from study.stages.stage import Session, StudyStage
from study.stages.training import BASELINES, CONFIRM, Search
from study.state import budget_extensions as extensions
from study.state.paths import study_uri
from study.views.planning import describe_launch
from study.views.printing import print_line, print_lines
from study.views.study_cost import measure_full_trials
from trainables.data.images import describe_skipped
from trainables.data.splits import describe_near_duplicates, list_rare_classes
from trainables.storage.store import Store

SEARCH_ALONE: tuple[StudyStage, ...] = (BASELINES, Search(is_last=True))


def list_stages() -> Iterator[StudyStage]:
    """Return the stages from the first training to the report, each when it is its turn."""
    yield from (BASELINES, Search(), CONFIRM)
    # Imported after the training, because the analysis takes a second to import.
    from study.stages.concluding import ANALYZE, CONCLUDE, REPORT

    yield from (ANALYZE, REPORT, CONCLUDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch(StudyStage):
    """Create a study from a spec, once everything is checked.

    Attributes:
        argument: the name of the spec's file, or of a preset.
        spec: the spec, see `study.spec.reading.load_spec`.
        text: its TOML text, likewise.
        storage: the storage root; None for the default.
        configurations: that the spec compares instead of its arms, the control first.
        dry_run: whether to stop after the checks, before anything is written.
    """

    argument: str
    spec: StudySpec
    text: str
    storage: str | None
    configurations: Sequence[GivenConfiguration] = ()
    dry_run: bool = False

    def run(self, session: Session) -> None:
        """Check everything and say what is notable; then create the study, unless this is a dry run."""
        say = partial(print_lines, console=session.console)
        store = Store(study_uri(self.spec.name, self.storage))
        check_is_new(store, self.spec.name)
        check_custom_sampler(self.spec)
        fitted, prepared = fit_and_prepare(self.spec, self.text, self.storage)
        spec, session.prepared = fitted.spec, prepared
        say(f"fitted to the data: {note}" for note in fitted.notes)
        say(f"the search starts with {recipe}" for recipe in describe_starts(spec))
        warm_start = collect_warm_start(spec, self.storage)
        check_class_groups(spec, prepared.image_set)
        if warm_start is not None:
            warm_start = check_test_is_unseen(warm_start, spec, prepared)
            if warm_start.note:
                say([warm_start.note])
        settings = {arm.name: prepared.fixed | dict(arm.space.fixed) for arm in spec.arms()}
        say(describe_changed_settings(self.configurations, settings))
        origin = prepared.image_set.origin
        if origin is not None and origin.skipped:
            say([f"{describe_skipped(origin.skipped)}; `study inspect {self.argument}` names them"])
        say(origin.notes if origin is not None else ())
        say(describe_near_duplicates(prepared.image_set, prepared.splits).values())
        rare = [found.problem for found in list_rare_classes(prepared.image_set, prepared.splits)]
        say(f"warning: {warning}" for warning in (*rare, *describe_untrained(spec)))
        max_concurrent = session.check_cluster(spec)
        if sentence := describe_idle_gpus(spec, session.cluster):
            say([f"warning: {sentence}"])
        has_budget = spec.search.device_seconds is not None
        costs = measure_full_trials(spec, prepared, session.cluster) if has_budget else None
        if sentence := describe_launch(spec, prepared.splits, self.storage, costs):
            say([sentence])
        if self.dry_run:
            arms = ", ".join(arm.name for arm in spec.arms())
            trials = f"{count_noun(max_concurrent, 'trial')} at once on {session.cluster.describe()}"
            say([f"{spec.name}: {describe_budget(spec)} for {arms}, {trials}; dry run, nothing written"])
        else:
            create_study(session, store, spec, costs=costs, warm_start=warm_start)


def create_study(session: Session, store: Store, spec: StudySpec, **files: Any) -> None:
    """Create the study of a session, whose data are prepared, and hold its lease; `files` are those of `create_to_drive`."""
    devices = count_devices(spec, session.cluster, session.check_cluster(spec))
    passport = make_passport(session.prepare(), session.cluster.describe(), devices)
    session.study = session.enter_context(create_to_drive(store, spec, passport, **files))
    print_place(session)


def print_place(session: Session) -> None:
    """Print the name, the folder and the cluster of a study."""
    study = session.study
    print_line(f"study {study.name} at {study.store.root}, on {session.cluster.describe()}", session.console)


def describe_budget(spec: StudySpec) -> str:
    """Return the search's budget in words."""
    if spec.num_trials is not None:
        return count_noun(spec.num_trials, "trial")
    return f"{spec.search.device_seconds:g} device-seconds"


def resume_study(
    store: Store,
    console: Console,
    address: str | None,
    *,
    num_trials: str | None = None,
    device_seconds: str | None = None,
    allow_changed: bool = False,
    search_only: bool = False,
) -> list[str]:
    """Continue a study to the end of its search, or to its report.

    Args:
        store: the study.
        console: receives the progress and the tables.
        address: see `connect_cluster`.
        num_trials: a larger budget for the search, see `parse_extension`; None to keep the budget.
        device_seconds: the same for a budget of device-seconds.
        allow_changed: whether to continue with other code or package versions.
        search_only: whether to stop after the search.

    Returns:
        One message per arm that misses the minimum; none if only the search ran.
    """
    with Session(console, address, allow_changed=allow_changed) as session:
        study = session.open(store)
        extension = extensions.parse_extension(num_trials, device_seconds, study.spec)
        session.prepare()
        if extension is None and not search_only and has_finished_search(study):
            # Imported here for the reason that `list_stages` has.
            from study.stages.concluding import ANALYZE, CONCLUDE, REPORT

            if ANALYZE.is_done(session):
                place = f"study {study.name} at {study.store.root}"
                print_line(f"{place} is finished, and its findings match its records", console)
                return session.run([REPORT, CONCLUDE])
        session.check_cluster(study.spec)
        if extension is not None:
            _extend(session, extension)
        print_place(session)
        return session.run(SEARCH_ALONE if search_only else list_stages())


def _extend(session: Session, extension: extensions.Extension) -> None:
    """Write a larger budget of the search, which the study of the session has from now on."""
    study = session.study
    extensions.write_extension(study.store, extension, len(study.book.of_stage("search")))
    if read_plan(study.store) is not None:
        print_line(
            "the plan was written before this extension and does not change: only the search is extended",
            session.console,
        )
    spec = extensions.extended_spec(study.store, extensions.launched_spec(study.store))
    session.study = replace(study, spec=spec)

"""What the commands of the command line do with a study. Imports torch and Ray, so `study.cli` imports it late."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console

from analysis.report.baseline_lines import describe_baselines
from study.cluster.connection import THIS_PROCESS, Cluster, check_cluster, connect_cluster, count_devices
from study.cluster.device_time import measure_full_trials
from study.cluster.workers import make_workers
from study.confirmation.evidence import find_undecided, is_confirmed, require_plan
from study.confirmation.plan import read_plan
from study.driver import Driver, prepare_again, prepare_resumed
from study.inputs.environment_changes import list_arithmetic_changes
from study.inputs.fitted_defaults import prepare_new
from study.inputs.preparation import Prepared, check_groups
from study.inputs.provenance import make_passport
from study.open_study import (
    OpenStudy,
    check_is_new,
    create_to_drive,
    full_trial_seconds,
    has_finished_search,
    load_study,
    open_to_drive,
    read_passport,
    require_finished_search,
)
from study.scheduling.replay import Replay, replay_search
from study.scheduling.sampler import check_own_sampler
from study.scheduling.unseen_test import check_test_is_unseen
from study.scheduling.warm_start import collect_warm_start, earlier_trials
from study.spec.configuration_files import GivenConfiguration, describe_changed_settings
from study.spec.reading import load_spec
from study.spec.starts import describe_starts
from study.spec.study_spec import StudySpec
from study.spec.tuning import describe_untrained
from study.state import budget_extensions as extensions
from study.state.paths import ReportFormat, open_study, study_uri
from study.views.live_view import LiveView
from study.views.planning import describe_launch
from study.views.printing import print_line
from study.views.status import print_stage
from trainables.data.images import describe_skipped
from trainables.data.splits import list_rare_classes
from trainables.storage.store import Store


def launch(
    spec: str,
    *,
    storage: str | None,
    name: str | None,
    overrides: Sequence[str],
    address: str | None,
    console: Console,
    whole: bool = True,
    dry_run: bool = False,
    configurations: Sequence[GivenConfiguration] = (),
) -> list[str]:
    """Check everything, create the study, and run its search, or all of it.

    Args:
        spec: a TOML file, or the name of a preset.
        storage: the storage root; None for the default.
        name: the study's name; None for the spec's.
        overrides: ``section.key=value`` each.
        address: see `connect_cluster`.
        console: receives the progress and the tables.
        whole: whether to go on to the report after the search.
        dry_run: whether to stop after the checks, before anything is written.
        configurations: to compare instead of the arms of the spec, the control first.

    Returns:
        One message per arm that misses the minimum; none if only the search ran.
    """
    given = {c.name: c.hyperparameters for c in configurations}
    loaded, text = load_spec(spec, overrides, name, given or None)
    store = Store(study_uri(loaded.name, storage))
    check_is_new(store, loaded.name)
    check_own_sampler(loaded)
    earlier = loaded.search.warm_start
    launched = None if earlier is None else extensions.launched_spec(open_study(earlier, storage))
    fitted, prepared = prepare_new(loaded, text, launched)
    loaded = fitted.spec
    for note in fitted.notes:
        print_line(f"fitted to the data: {note}", console)
    for recipe in describe_starts(loaded):
        print_line(f"the search starts with {recipe}", console)
    warm_start = collect_warm_start(loaded, storage)
    check_groups(loaded, prepared.image_set)
    if warm_start is not None:
        warm_start = check_test_is_unseen(warm_start, loaded, prepared)
        if warm_start.note:
            print_line(warm_start.note, console)
    settings = {arm.name: prepared.fixed | dict(arm.space.fixed) for arm in loaded.arms()}
    for sentence in describe_changed_settings(configurations, settings):
        print_line(sentence, console)
    origin = prepared.image_set.origin
    if origin is not None and origin.skipped:
        print_line(f"{describe_skipped(origin.skipped)}; `study inspect {spec}` names them", console)
    for rare in list_rare_classes(prepared.image_set, prepared.splits):
        print_line(f"warning: {rare.problem}", console)
    for sentence in describe_untrained(loaded):
        print_line(f"warning: {sentence}", console)
    warning = describe_launch(loaded, len(prepared.splits.test), storage)
    if warning:
        print_line(f"warning: {warning}", console)
    with connect_cluster(address) as cluster:
        max_concurrent = check_cluster(loaded, cluster)
        costs = measure_full_trials(loaded, prepared, cluster) if loaded.search.device_seconds is not None else None
        if dry_run:
            arms = ", ".join(arm.name for arm in loaded.arms())
            trials = f"{max_concurrent} trials at once on {cluster.describe()}"
            print_line(
                f"{loaded.name}: {describe_budget(loaded)} for {arms}, {trials}; dry run, nothing written", console
            )
            return []
        passport = make_passport(prepared, cluster.describe(), count_devices(loaded, cluster, max_concurrent))
        with create_to_drive(store, loaded, passport, costs=costs, warm_start=warm_start) as opened:
            return drive(opened, prepared, cluster, max_concurrent, whole=whole, console=console)


def resume(
    store: Store,
    *,
    address: str | None,
    num_trials: str | None,
    device_seconds: str | None,
    allow_changed: bool,
    whole: bool,
    console: Console,
) -> list[str]:
    """Continue a study to the end of its search, or to its report.

    Args:
        store: the study.
        address: see `connect_cluster`.
        num_trials: a larger budget for the search, see `parse_extension`; None to keep the budget.
        device_seconds: the same for a budget of device-seconds.
        allow_changed: whether to continue with other code or package versions.
        whole: whether to go on to the report after the search.
        console: receives the progress and the tables.

    Returns:
        One message per arm that misses the minimum; none if only the search ran.
    """
    with _open_to_drive(store, console) as opened:
        extension = extensions.parse_extension(num_trials, device_seconds, opened.spec)
        prepared = prepare_resumed(opened, allow_changed=allow_changed)
        if extension is None and whole and has_finished_search(opened):
            from study import concluding

            missed_minimums = concluding.conclude_again(opened, prepared, console)
            if missed_minimums is not None:
                return missed_minimums
        with connect_cluster(address) as cluster:
            max_concurrent = check_cluster(opened.spec, cluster)
            if extension is not None:
                opened = _extend(opened, extension, console)
            return drive(opened, prepared, cluster, max_concurrent, whole=whole, console=console)


def _extend(opened: OpenStudy, extension: extensions.Extension, console: Console) -> OpenStudy:
    """Write a larger budget of the search, and return the study with it."""
    extensions.write_extension(opened.store, extension, len(opened.book.of_stage("search")))
    if read_plan(opened.store) is not None:
        print_line(
            "the plan was written before this extension and does not change: only the search is extended", console
        )
    return replace(opened, spec=extensions.extended_spec(opened.store, extensions.launched_spec(opened.store)))


def describe_budget(spec: StudySpec) -> str:
    """Return the search's budget in words."""
    if spec.num_trials is not None:
        return f"{spec.num_trials} trials"
    return f"{spec.search.device_seconds:g} device-seconds"


@contextmanager
def _open_to_drive(store: Store, console: Console) -> Iterator[OpenStudy]:
    """Open a study, hold its lease, and print which records were recovered from copies."""
    with open_to_drive(store) as opened:
        for message in opened.book.recovered:
            print_line(message, console)
        yield opened


def drive(
    opened: OpenStudy, prepared: Prepared, cluster: Cluster, max_concurrent: int, *, whole: bool, console: Console
) -> list[str]:
    """Run the stages that are left under a live view, print each stage's table, and return the arms that miss the minimum.

    Args:
        opened: the study, opened to be driven.
        prepared: its data.
        cluster: the connected cluster.
        max_concurrent: trials that may run at once.
        whole: whether to go on to the report after the search.
        console: receives the progress and the tables.
    """
    print_line(f"study {opened.name} at {opened.store.root}, on {cluster.describe()}", console)
    with LiveView(console) as view:
        driver = Driver(opened, prepared, cluster, max_concurrent, view.update)
        stored = driver.measure_baselines()
        for line in () if stored is None else describe_baselines(stored.findings):
            print_line(line, console)
        driver.search()
        print_stage(opened, "search", console)
        if not whole:
            print_line(f"next: study compare {opened.store.argument}", console)
            return []
        driver.confirm(find_undecided)
        print_stage(opened, "confirmation", console, is_over=True)
    from study import concluding

    findings = concluding.analyze_study(opened, prepared, driver.workers, console)
    return concluding.conclude(opened, findings, prepared, console)


def replay(store: Store, console: Console) -> bool:
    """Replay the search from its records; return whether every decision is the same.

    A Gaussian process may suggest other values where processor or versions are not those of the launch.
    """
    opened = load_study(store)
    result = replay_search(
        opened.book.of_stage("search"),
        extensions.specs_over_time(store, extensions.launched_spec(store)),
        full_trial_seconds=full_trial_seconds(store),
        earlier=earlier_trials(store),
    )
    print_line(
        f"replayed with the same decisions, in order: {result.num_suggestions} suggestions and {result.num_reports} reports, "
        f"{result.num_stops} of them stops" + (f"; first difference: {result.difference}" if result.difference else ""),
        console,
    )
    changes = list_arithmetic_changes(read_passport(store))
    if result.num_other_values:
        print_line(_describe_other_values(result, changes), console)
    return not result.difference and bool(changes or not result.num_other_values)


def _describe_other_values(result: Replay, changes: Sequence[str]) -> str:
    where = "; ".join(changes) or (
        "but processor and versions are those of the launch: the search was resumed on another machine, or a record was changed"
    )
    return (
        f"suggestions of the Gaussian process with other values: {result.num_other_values}, each of which "
        f"the replay replaced by the recorded one; its last digits depend on the machine ({where}). "
        f"The first: {result.first_other_values}"
    )


def confirm(store: Store, *, address: str | None, allow_changed: bool, console: Console) -> list[str]:
    """Run the missing confirmation trials and test predictions, then write and print the A/B table.

    Returns:
        One message per arm that misses the minimum.
    """
    from study import concluding

    with _open_to_drive(store, console) as opened:
        if not is_confirmed(opened):
            require_finished_search(opened)
            prepared = prepare_resumed(opened, allow_changed=allow_changed)
            with connect_cluster(address) as cluster, LiveView(console) as view:
                max_concurrent = check_cluster(opened.spec, cluster)
                Driver(opened, prepared, cluster, max_concurrent, view.update).confirm(find_undecided)
        return concluding.compare(opened, console)


def analyze(store: Store, console: Console, address: str = THIS_PROCESS) -> None:
    """Compute and write the findings of a confirmed study, on the devices of a cluster or in this process."""
    from study import concluding

    with _open_to_drive(store, console) as opened:
        require_plan(opened)
        prepared = prepare_again(opened)
        with connect_cluster(address) as cluster:
            findings = concluding.analyze_study(
                opened, prepared, make_workers(cluster, opened.spec, prepared.data), console
            )
        counts = f"{len(findings.panels)} Grad-CAM panels, {len(findings.figures)} figures"
        print_line(f"{counts} in {opened.store.root}/findings", console)


def report(store: Store, console: Console, formats: Collection[ReportFormat] | None = None) -> None:
    """Write the report of an analyzed study; `formats` are all where they are not given."""
    from study import concluding

    with _open_to_drive(store, console) as opened:
        concluding.write_reports(opened, console, formats or tuple(ReportFormat))

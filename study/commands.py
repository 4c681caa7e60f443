"""What the commands of the command line do, given where to print. Imports torch and Ray; `study.cli` imports it late."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from analysis.external.forensics import analyze_outside_arms
from analysis.external.predictions import compare_outside_arms, describe_single_seeds, read_predictions_file
from analysis.findings.study_findings import Findings
from analysis.report.arm_tables import build_arm_rich_table, build_pair_table
from analysis.report.figures import figure_to_png, plot_confusion
from analysis.report.forensic_sentences import describe_clusters, describe_contrast
from analysis.report.pages import build_comparison_page, build_forensics_page
from analysis.report.tables import (
    build_csv,
    build_latex,
    build_markdown,
    build_rich_table,
    build_table_rows,
    format_row,
)
from search_spaces.errors import UserInputError
from study.cluster.connection import Cluster, check_cluster, connect_cluster
from study.cluster.trial_costs import measure_full_trials
from study.confirmation.evidence import find_undecided, is_confirmed
from study.confirmation.plan import read_plan
from study.driver import Driver, prepare_again, prepare_resumed, start_study
from study.inputs.human_labels import read_counts
from study.inputs.preparation import Prepared, prepare
from study.open_study import (
    OpenStudy,
    check_is_new,
    full_trial_seconds,
    load_study,
    open_to_drive,
    require_finished_search,
)
from study.results.comparison import compare as compute_comparison
from study.results.findings import analyze as compute_findings
from study.results.findings import is_concluded
from study.results.report import write_report
from study.scheduling.replay import replay_search
from study.scheduling.warm_start import collect_warm_start, earlier_trials
from study.spec.configuration_files import (
    GivenConfiguration,
    default_name,
    describe_changed_settings,
    read_configurations,
)
from study.spec.study_spec import StudySpec, load_spec
from study.state.budget_extensions import launched_spec, parse_extension, specs_over_time, write_extension
from study.state.paths import open_study, study_uri
from study.views.live_view import LiveView
from study.views.status import print_stage
from trainables.records.store import Store


def launch(
    spec: str,
    *,
    storage: str | None,
    name: str | None,
    overrides: Sequence[str],
    address: str | None,
    whole: bool,
    dry_run: bool,
    console: Console,
    configurations: Sequence[GivenConfiguration] = (),
) -> OpenStudy | None:
    """Check everything, write the new study and run its search, or all of it where `whole`; None for a dry run.

    With `configurations` the arms are those, whatever the spec says of arms.
    """
    given = {c.name: c.hyperparameters for c in configurations} if configurations else None
    loaded, text = load_spec(spec, overrides, name, given)
    store = Store(study_uri(loaded.name, storage))
    check_is_new(store, loaded.name)
    warm_start = collect_warm_start(loaded, storage)
    prepared = prepare(loaded)
    for sentence in describe_changed_settings(configurations, prepared.fixed):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    with connect_cluster(address) as cluster:
        most = check_cluster(loaded, cluster)
        costs = measure_full_trials(loaded, prepared) if loaded.search.device_seconds is not None else None
        if dry_run:
            console.print(
                f"{loaded.name}: {describe_budget(loaded)} for {', '.join(a.name for a in loaded.arms())}, "
                f"{most} at once on {cluster.describe()}; nothing was started or written",
                soft_wrap=True,
            )
            return None
        start_study(store, loaded, text, prepared, cluster, costs=costs, warm_start=warm_start)
        with open_to_drive(store) as opened:
            drive(opened, prepared, cluster, whole=whole, console=console)
    return opened


def resume(
    study: str,
    *,
    storage: str | None,
    address: str | None,
    num_trials: str | None,
    device_seconds: str | None,
    allow_changed: bool,
    whole: bool,
    console: Console,
) -> OpenStudy:
    """Continue a study to the end of its search, or to its report where `whole`.

    `num_trials` or `device_seconds` make it grow first.
    """
    with open_to_drive(open_study(study, storage)) as opened:
        extension = parse_extension(num_trials, device_seconds, opened.spec)
        prepared = prepare_resumed(opened, allow_changed=allow_changed)
        if extension is not None:
            write_extension(opened.store, extension, len(opened.book.of_stage("search")))
            opened = replace(opened, spec=load_study(opened.store).spec)
            if read_plan(opened.store) is not None:
                console.print(
                    "the plan of the comparison was written before these trials and stands: they extend the search only",
                    soft_wrap=True,
                )
        elif whole and is_concluded(opened):
            _say_recovered(opened, console)
            console.print(
                f"study {opened.name} at {opened.store.root} is finished, and its findings are of these records; "
                "`study analyze` computes them again",
                soft_wrap=True,
            )
            _write_report(opened, console)
            return opened
        with connect_cluster(address) as cluster:
            drive(opened, prepared, cluster, whole=whole, console=console)
    return opened


def describe_budget(spec: StudySpec) -> str:
    """Return the search's budget in words."""
    if spec.num_trials is not None:
        return f"{spec.num_trials} trials"
    return f"{spec.search.device_seconds:g} device-seconds"


def drive(opened: OpenStudy, prepared: Prepared, cluster: Cluster, *, whole: bool, console: Console) -> None:
    """Run the stages that are left, showing them live; print each stage's table when it ends."""
    _say_recovered(opened, console)
    console.print(f"study {opened.name} at {opened.store.root}, on {cluster.describe()}", soft_wrap=True)
    with LiveView(console) as view:
        driver = Driver(opened, prepared, cluster, view.update)
        driver.search()
        print_stage(opened, "search", console)
        if not whole:
            console.print(f"next: study compare {opened.store.root}", soft_wrap=True)
            return
        driver.confirm(find_undecided)
        print_stage(opened, "confirmation", console)
    _analyze(opened, prepared, console)
    _write_report(opened, console)


def _say_recovered(opened: OpenStudy, console: Console) -> None:
    for message in opened.book.recovered:
        console.print(message, soft_wrap=True, highlight=False, markup=False)


def _write_report(opened: OpenStudy, console: Console) -> None:
    for name in write_report(opened):
        console.print(f"{opened.store.root}/{name}", soft_wrap=True)


def _analyze(opened: OpenStudy, prepared: Prepared, console: Console) -> Findings:
    """Compute the findings, which takes minutes, and say what is being done."""
    with console.status("analysis") as status:

        def say(step: str) -> None:
            status.update(f"analysis: {step}")
            if not console.is_terminal:
                console.print(f"analysis: {step}", soft_wrap=True, highlight=False, markup=False)

        return compute_findings(opened, prepared.image_set, say)


def replay(study: str, *, storage: str | None, console: Console) -> bool:
    """Replay the search's decisions from its records; return whether all came out the same."""
    store = open_study(study, storage)
    opened = load_study(store)
    result = replay_search(
        opened.book.of_stage("search"),
        specs_over_time(store, launched_spec(store)),
        full_trial_seconds=full_trial_seconds(store),
        earlier=earlier_trials(store),
    )
    console.print(
        f"{result.num_suggestions} suggestions and {result.num_reports} reports, {result.num_stops} of them stops, "
        "came out the same, in order" + (f"; then {result.difference}" if result.difference else ""),
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    return not result.difference


def confirm(
    study: str, *, storage: str | None, address: str | None, allow_changed: bool, console: Console
) -> OpenStudy:
    """Run what is missing of the confirmation seeds and of the test predictions."""
    store = open_study(study, storage)
    opened = load_study(store)
    if is_confirmed(opened):
        return opened
    require_finished_search(opened)
    with open_to_drive(store) as opened:
        prepared = prepare_resumed(opened, allow_changed=allow_changed)
        with connect_cluster(address) as cluster, LiveView(console) as view:
            Driver(opened, prepared, cluster, view.update).confirm(find_undecided)
    return opened


def print_comparison(opened: OpenStudy, console: Console, errors: Console) -> bool:
    """Print the A/B table and the arms; return whether every arm clears the gate, and say on `errors` which does not."""
    comparison = compute_comparison(opened)
    if comparison.rows:
        console.print(build_rich_table(comparison.rows))
    console.print(build_arm_rich_table(list(comparison.arms.values())))
    for row in comparison.rows:
        console.print(format_row(row), soft_wrap=True, highlight=False)
    missed = [arm for arm in comparison.arms.values() if arm.gate_cleared is False]
    gate = opened.spec.gate
    for arm in missed:
        assert gate is not None
        errors.print(
            f"gate missed: {arm.arm} has macro-F1 {arm.test_macro_f1.estimate:.4f} on the test split, "
            f"lower bound {arm.test_macro_f1.low:.4f}, but the gate is {gate.macro_f1}",
            soft_wrap=True,
        )
    return not missed


def compare_configurations(
    files: Sequence[Path],
    *,
    spec: str,
    storage: str | None,
    name: str | None,
    overrides: Sequence[str],
    address: str | None,
    console: Console,
) -> OpenStudy:
    """Launch the study that compares configurations from outside, to its report."""
    configurations = read_configurations(files)
    opened = launch(
        spec,
        storage=storage,
        name=name or default_name(configurations),
        overrides=overrides,
        address=address,
        whole=True,
        dry_run=False,
        console=console,
        configurations=configurations,
    )
    assert opened is not None
    return opened


def compare_predictions(
    file: Path, *, control: str | None, margin: float, alpha: float, to: Path | None, console: Console
) -> None:
    """Print the A/B table of models trained elsewhere; write it below `to` where given.

    Raises UserInputError, with the estimates, where an arm has one seed only.
    """
    rows, single = compare_outside_arms(read_predictions_file(file), control=control, margin=margin, alpha=alpha)
    if single:
        raise UserInputError(describe_single_seeds(single))
    console.print(build_rich_table(rows))
    for row in rows:
        console.print(format_row(row), soft_wrap=True, highlight=False)
    if to is not None:
        store = Store(to)
        page = build_comparison_page(file.stem, build_table_rows(rows))
        texts = {"html": page, "csv": build_csv(rows), "md": build_markdown(rows), "tex": build_latex(rows)}
        for suffix, text in texts.items():
            store.write_text(f"comparison.{suffix}", text)
            console.print(f"{to}/comparison.{suffix}", soft_wrap=True)


def analyze_predictions(
    file: Path,
    *,
    class_names: Sequence[str] | None,
    human_counts: Path | None,
    groups: Mapping[str, Sequence[str]],
    to: Path | None,
    console: Console,
) -> None:
    """Print the forensics of models trained elsewhere; write them below `to` where given."""
    counts = None if human_counts is None else read_counts(human_counts)
    found = analyze_outside_arms(
        read_predictions_file(file), class_names=class_names, human_counts=counts, groups=groups
    )
    for arm in found.arms:
        score = arm.test_macro_f1
        console.print(
            f"{arm.arm}: macro-F1 {score.estimate:.4f} [{score.low:.4f}, {score.high:.4f}], {len(arm.seeds)} seeds. "
            f"{describe_clusters(arm)}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        if arm.confused_pairs:
            console.print(build_pair_table(arm.confused_pairs))
        for contrast in arm.group_contrasts:
            console.print(describe_contrast(contrast, arm.arm), soft_wrap=True, highlight=False, markup=False)
    console.print(f"{len(found.label_issues)} labels to look at first", highlight=False)
    if to is not None:
        pictures = {
            arm.arm: figure_to_png(
                plot_confusion(arm.confusion, found.class_names, f"{arm.arm}: confusion", arm.clusters)
            )
            for arm in found.arms
        }
        store = Store(to)
        texts = {"html": build_forensics_page(file.stem, found, pictures), "json": found.to_json()}
        for suffix, text in texts.items():
            store.write_text(f"forensics.{suffix}", text)
            console.print(f"{to}/forensics.{suffix}", soft_wrap=True)


def analyze(study: str, *, storage: str | None, console: Console) -> None:
    """Compute and write the findings of a confirmed study."""
    opened = load_study(open_study(study, storage))
    findings = _analyze(opened, prepare_again(opened), console)
    console.print(
        f"{len(findings.panels)} Grad-CAM panels, {len(findings.figures)} figures in {opened.store.root}/findings",
        soft_wrap=True,
    )


def report(study: str, *, storage: str | None, console: Console) -> None:
    """Write the report of an analyzed study."""
    _write_report(load_study(open_study(study, storage)), console)

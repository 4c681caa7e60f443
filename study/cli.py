"""The command line `study`: words and exit statuses; what it does stands in the other files of this room."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from search_spaces.errors import UserInputError
from study.interruption import StudyInterrupted
from study.paths import default_storage, open_study, study_uri
from trainables.store import Store

if TYPE_CHECKING:
    from study.cluster import Cluster
    from study.lifecycle import OpenStudy
    from study.preparation import Prepared

EXIT_DONE, EXIT_GATE, EXIT_INPUT, EXIT_STOPPED = 0, 1, 2, 3

app = typer.Typer(
    name="study",
    help="Hyperparameter search and A/B studies for fine-tuning image classifiers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

SpecArgument = Annotated[str, typer.Argument(help="A TOML file, or the name of a preset: demo, cifar10, cifar10-cpu.")]
StudyArgument = Annotated[str, typer.Argument(help="A path, a URI, or a name under the storage root.")]
StorageOption = Annotated[
    str | None, typer.Option(help="Storage root: a folder or a URI. Default: $STUDY_STORAGE, or ./studies.")
]
NameOption = Annotated[str | None, typer.Option(help="Name of the study, in place of the spec's.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value: section.key=value. Repeatable.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(help="Address of a running Ray cluster, or 'auto'. Default: start Ray on this machine."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    spec: SpecArgument,
    storage: StorageOption = None,
    name: NameOption = None,
    overrides: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Search, confirm, compare, analyze and report, in one go."""
    _launch(spec, storage, name, overrides or [], address, whole=True)


@app.command()
def launch(
    spec: SpecArgument,
    storage: StorageOption = None,
    name: NameOption = None,
    overrides: SetOption = None,
    address: AddressOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start and write nothing.")] = False,
) -> None:
    """Run the search."""
    _launch(spec, storage, name, overrides or [], address, whole=False, dry_run=dry_run)


@app.command()
def resume(
    study: StudyArgument,
    storage: StorageOption = None,
    address: AddressOption = None,
    search_only: Annotated[bool, typer.Option("--search-only", help="Stop after the search.")] = False,
) -> None:
    """Continue a study that stopped, to its report. What has finished is not run again."""
    from study.lifecycle import load_study, prepare_resumed

    opened = load_study(open_study(study, storage))
    prepared = prepare_resumed(opened)
    _drive(opened, prepared, address, whole=not search_only)


@app.command()
def status(study: StudyArgument, storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Say where a study stands, from its records."""
    from study.lifecycle import load_study
    from study.status import print_status, status_json

    opened = load_study(open_study(study, storage))
    if as_json:
        print(json.dumps(status_json(opened), indent=1))
    else:
        print_status(opened, console)


@app.command("list")
def list_studies(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """List the studies under the storage root."""
    from study.status import find_studies, print_studies

    root = storage or default_storage()
    studies = find_studies(root)
    if as_json:
        print(json.dumps(studies, indent=1))
    else:
        print_studies(studies, root, console)


@app.command()
def compare(study: StudyArgument, storage: StorageOption = None, address: AddressOption = None) -> None:
    """Run what is missing of the confirmation seeds, then print the A/B table."""
    from study.lifecycle import load_study

    opened = load_study(open_study(study, storage))
    _confirm_if_needed(opened, address)
    _print_comparison(opened)


@app.command()
def analyze(study: StudyArgument, storage: StorageOption = None) -> None:
    """Compute findings: confusion, class-wise scores, Grad-CAM panels of the confirmed configurations."""
    from study.conclusion import analyze as write_findings
    from study.lifecycle import load_study, prepare_resumed

    opened = load_study(open_study(study, storage))
    findings = write_findings(opened, prepare_resumed(opened).image_set)
    console.print(
        f"{len(findings.panels)} Grad-CAM panels, {len(findings.figures)} figures in {opened.store.root}/findings"
    )


@app.command()
def report(study: StudyArgument, storage: StorageOption = None) -> None:
    """Write report.html and report.md from the findings."""
    from study.conclusion import write_report
    from study.lifecycle import load_study

    opened = load_study(open_study(study, storage))
    for name in write_report(opened):
        console.print(f"{opened.store.root}/{name}", soft_wrap=True)


@app.command()
def reproduce(
    study: StudyArgument,
    storage: StorageOption = None,
    trial: Annotated[str, typer.Option(help="best, a search trial's id, or confirmation/<id>.")] = "best",
    arm: Annotated[str | None, typer.Option(help="The arm whose best trial is meant.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Where data or weights lie on this machine: data.path=..., model.weights=..."),
    ] = None,
) -> None:
    """Retrain one trial here and say MATCH, CLOSE or DIFFERENT."""
    from study.reproducing import run_reproduction

    matched = run_reproduction(open_study(study, storage), trial, arm, overrides or [], console)
    raise typer.Exit(EXIT_DONE if matched else EXIT_GATE)


@app.command()
def tensorboard(
    study: StudyArgument,
    storage: StorageOption = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 6006,
) -> None:
    """Show the study's events in TensorBoard."""
    store = open_study(study, storage)
    root = str(store.local_path) if store.is_local else store.root
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        root,
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    raise typer.Exit(subprocess.call(command))


@app.command("inspect")
def inspect_spec(spec: SpecArgument, overrides: SetOption = None, address: AddressOption = None) -> None:
    """Check data, weights and resources before money is spent. Writes nothing."""
    from study.inspection import print_inspection
    from study.spec import load_spec

    loaded, _ = load_spec(spec, overrides or [])
    print_inspection(loaded, address, console)


def _launch(
    spec: str,
    storage: str | None,
    name: str | None,
    overrides: Sequence[str],
    address: str | None,
    *,
    whole: bool,
    dry_run: bool = False,
) -> None:
    from study.cluster import check_cluster, connect_cluster
    from study.lifecycle import check_is_new, start_study
    from study.preparation import prepare
    from study.spec import load_spec

    loaded, text = load_spec(spec, overrides, name)
    store = Store(study_uri(loaded.name, storage))
    check_is_new(store, loaded.name)
    prepared = prepare(loaded)
    with connect_cluster(address) as cluster:
        if dry_run:
            most = check_cluster(loaded, cluster)
            console.print(
                f"{loaded.name}: {loaded.search.num_trials} trials of {', '.join(a.name for a in loaded.arms())}, "
                f"{most} at once on {cluster.describe()}; nothing was started or written"
            )
            return
        opened = start_study(store, loaded, text, prepared, cluster)
        _drive_on(opened, prepared, cluster, whole=whole)


def _drive(opened: "OpenStudy", prepared: "Prepared", address: str | None, *, whole: bool) -> None:
    from study.cluster import connect_cluster

    with connect_cluster(address) as cluster:
        _drive_on(opened, prepared, cluster, whole=whole)


def _drive_on(opened: "OpenStudy", prepared: "Prepared", cluster: "Cluster", *, whole: bool) -> None:
    from study.lifecycle import Driver
    from study.live_view import LiveView
    from study.status import print_stage

    console.print(f"study {opened.name} at {opened.store.root}, on {cluster.describe()}", soft_wrap=True)
    with LiveView(console) as view:
        driver = Driver(opened, prepared, cluster, view.update)
        driver.search()
        print_stage(opened, "search", console)
        if not whole:
            console.print(f"next: study compare {opened.store.root}", soft_wrap=True)
            return
        driver.confirm()
        print_stage(opened, "confirmation", console)

    from study.conclusion import analyze as write_findings
    from study.conclusion import write_report

    write_findings(opened, prepared.image_set)
    written = write_report(opened)
    _print_comparison(opened)
    for name in written:
        console.print(f"{opened.store.root}/{name}", soft_wrap=True)


def _confirm_if_needed(opened: "OpenStudy", address: str | None) -> None:
    from study.cluster import connect_cluster
    from study.conclusion import is_confirmed
    from study.lifecycle import Driver, prepare_resumed
    from study.live_view import LiveView

    if is_confirmed(opened):
        return
    prepared = prepare_resumed(opened)
    with connect_cluster(address) as cluster, LiveView(console) as view:
        Driver(opened, prepared, cluster, view.update).confirm()


def _print_comparison(opened: "OpenStudy") -> None:
    """Print the A/B table; exit with status 1 if an arm misses the gate."""
    from analysis.tables import build_arm_rich_table, build_rich_table, format_row
    from study.conclusion import compare as compute_comparison

    comparison = compute_comparison(opened)
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
    if missed:
        raise typer.Exit(EXIT_GATE)


def main() -> None:
    """Entry point: turn errors into exit statuses."""
    try:
        app()
    except UserInputError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        sys.exit(EXIT_INPUT)
    except (StudyInterrupted, KeyboardInterrupt) as stop:
        message = str(stop) or "stopped; a launched study continues with `study resume`"
        errors.print(message, soft_wrap=True, markup=False, highlight=False)
        sys.exit(EXIT_STOPPED)


if __name__ == "__main__":
    main()

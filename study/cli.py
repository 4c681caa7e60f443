"""The command line `study`: words and exit statuses; what it does stands in the other files of this room."""

import gc
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from search_spaces.errors import UserInputError
from study.state.interruption import StudyInterrupted
from study.state.paths import default_storage, open_study
from trainables.records.store import StorageError

if TYPE_CHECKING:
    from study.open_study import OpenStudy

EXIT_DONE, EXIT_GATE, EXIT_INPUT, EXIT_STOPPED = 0, 1, 2, 3
# New objects until Python looks for cycles. Its default, 700, has it look through all of torch and Ray thousands of times while
# they load: a fourth of the time, and nothing found.
GC_THRESHOLD = 10_000

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
WarmStartOption = Annotated[
    str | None,
    typer.Option(help="Another study of the same space, whose finished trials the samplers start from."),
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Have every epoch say where its time went (resources.profile).")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        help="Address of a running Ray cluster, or 'auto'. Default, and 'local': start Ray on this machine.",
    ),
]
AllowChangedOption = Annotated[
    bool,
    typer.Option(
        "--allow-changed", help="Continue with other code or versions than it was launched with; noted for good."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    spec: SpecArgument,
    storage: StorageOption = None,
    name: NameOption = None,
    overrides: SetOption = None,
    warm_start: WarmStartOption = None,
    address: AddressOption = None,
    profile: ProfileOption = False,
) -> None:
    """Search, confirm, compare, analyze and report, in one go."""
    from study import commands

    opened = commands.launch(
        spec,
        storage=storage,
        name=name,
        overrides=_with_options(overrides, warm_start, profile=profile),
        address=address,
        whole=True,
        dry_run=False,
        console=console,
    )
    assert opened is not None
    _finish(opened)


@app.command()
def launch(
    spec: SpecArgument,
    storage: StorageOption = None,
    name: NameOption = None,
    overrides: SetOption = None,
    warm_start: WarmStartOption = None,
    address: AddressOption = None,
    profile: ProfileOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start and write nothing.")] = False,
) -> None:
    """Run the search."""
    from study import commands

    commands.launch(
        spec,
        storage=storage,
        name=name,
        overrides=_with_options(overrides, warm_start, profile=profile),
        address=address,
        whole=False,
        dry_run=dry_run,
        console=console,
    )


@app.command()
def resume(
    study: StudyArgument,
    storage: StorageOption = None,
    address: AddressOption = None,
    num_trials: Annotated[
        str | None, typer.Option(help="Extend the search: a total such as 40, or a growth such as +8.")
    ] = None,
    device_seconds: Annotated[
        str | None,
        typer.Option(help="Extend a search whose budget is device-seconds: a total, or a growth such as +600."),
    ] = None,
    allow_changed: AllowChangedOption = False,
    search_only: Annotated[bool, typer.Option("--search-only", help="Stop after the search.")] = False,
) -> None:
    """Continue a study that stopped, to its report. What has finished is not run again."""
    from study import commands

    opened = commands.resume(
        study,
        storage=storage,
        address=address,
        num_trials=num_trials,
        device_seconds=device_seconds,
        allow_changed=allow_changed,
        whole=not search_only,
        console=console,
    )
    if not search_only:
        _finish(opened)


@app.command()
def status(study: StudyArgument, storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """Say where a study stands, from its records."""
    from study.open_study import load_study
    from study.views.status import print_status, status_json

    opened = load_study(open_study(study, storage))
    if as_json:
        print(json.dumps(status_json(opened), indent=1))
    else:
        print_status(opened, console)


@app.command("list")
def list_studies(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """List the studies under the storage root."""
    from study.views.status import find_studies, print_studies

    root = storage or default_storage()
    studies = find_studies(root)
    if as_json:
        print(json.dumps(studies, indent=1))
    else:
        print_studies(studies, root, console)


@app.command()
def compare(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY", help="A path, a URI, or a name under the storage root; with --arms, configuration files."
        ),
    ] = None,
    arms: Annotated[
        bool,
        typer.Option(
            "--arms",
            help="In place of a study: JSON files of configurations (those of `study export`, or an object of hyperparameters "
            "each), the control first. Launches the study that compares them under --spec.",
        ),
    ] = False,
    spec: Annotated[
        str | None, typer.Option(help="With --arms: a TOML file or a preset that says data, training and seeds.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="With --arms: name of the new study.")] = None,
    overrides: SetOption = None,
    storage: StorageOption = None,
    address: AddressOption = None,
    allow_changed: AllowChangedOption = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="In place of a study: a parquet file of models trained elsewhere, with the columns arm, seed, sample_id, label "
            "and probabilities or logits (a list per row)."
        ),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="With --predictions: the control. Default: the first arm.")
    ] = None,
    margin: Annotated[float, typer.Option(help="With --predictions: the margin in macro-F1.")] = 0.005,
    alpha: Annotated[float, typer.Option(help="With --predictions: the family-wise error rate.")] = 0.05,
    to: Annotated[
        Path | None, typer.Option(help="With --predictions: a folder for comparison.html, .csv, .md and .tex.")
    ] = None,
) -> None:
    """Run what is missing of the confirmation seeds, then print the A/B table."""
    from study import commands

    given = studies or []
    if predictions is not None and not given and not arms:
        commands.compare_predictions(predictions, control=control, margin=margin, alpha=alpha, to=to, console=console)
        return
    if predictions is not None or (not arms and len(given) != 1):
        raise UserInputError("compare takes one STUDY, or --arms FILE FILE..., or --predictions FILE")
    if not arms:
        if spec is not None or name is not None or overrides:
            raise UserInputError("--spec, --name and --set of compare go with --arms; a study has its own")
        _finish(
            commands.confirm(given[0], storage=storage, address=address, allow_changed=allow_changed, console=console)
        )
        return
    if spec is None:
        raise UserInputError("compare --arms needs --spec, which says data, training and seeds, such as --spec cifar10")
    files = [Path(file) for file in given]
    _finish(
        commands.compare_configurations(
            files, spec=spec, storage=storage, name=name, overrides=overrides or [], address=address, console=console
        )
    )


@app.command()
def analyze(
    study: Annotated[str | None, typer.Argument(help="A path, a URI, or a name under the storage root.")] = None,
    storage: StorageOption = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="In place of a study: a parquet file of models trained elsewhere, as for compare --predictions."
        ),
    ] = None,
    class_names: Annotated[
        str | None, typer.Option(help="With --predictions: the classes' names, with commas between them.")
    ] = None,
    human_counts: Annotated[
        Path | None,
        typer.Option(
            help="With --predictions: an .npy file of people's answers, (images, classes), in the order of sample_id."
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="With --predictions, twice or more: a group of classes to contrast, NAME=CLASS,CLASS."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="With --predictions: a folder for forensics.html and forensics.json.")
    ] = None,
) -> None:
    """Compute findings: confusion, clusters, class-wise scores, audit, causes, Grad-CAM panels of what was confirmed."""
    from study import commands

    if (study is None) == (predictions is None):
        raise UserInputError("analyze takes a STUDY, or --predictions FILE")
    if predictions is not None:
        names = None if class_names is None else [name.strip() for name in class_names.split(",")]
        commands.analyze_predictions(
            predictions,
            class_names=names,
            human_counts=human_counts,
            groups=dict(read_group(text) for text in group or ()),
            to=to,
            console=console,
        )
        return
    assert study is not None
    if class_names is not None or human_counts is not None or group is not None or to is not None:
        raise UserInputError(
            "--class-names, --human-counts, --group and --to of analyze go with --predictions; a study has its own"
        )
    commands.analyze(study, storage=storage, console=console)


def read_group(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the name and the classes of "NAME=CLASS,CLASS"; raise UserInputError for another form."""
    name, found, classes = text.partition("=")
    names = tuple(word.strip() for word in classes.split(",") if word.strip())
    if not found or not name.strip() or not names:
        raise UserInputError(f"--group takes NAME=CLASS,CLASS, but got {text!r}")
    return name.strip(), names


@app.command()
def report(study: StudyArgument, storage: StorageOption = None) -> None:
    """Write report.html and report.md from the findings."""
    from study import commands

    commands.report(study, storage=storage, console=console)


@app.command()
def export(
    study: StudyArgument,
    to: Annotated[
        str | None, typer.Option(help="A new or empty folder. Default: export, inside the study's folder.")
    ] = None,
    optuna: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL for the Optuna studies. Default: optuna.db in the folder.")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write records as csv and parquet, the search as Optuna studies, and the winners' weights with their preprocessing."""
    from study.views.export import run_export

    run_export(open_study(study, storage), to, optuna, console)


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
    from study.views.reproducing import run_reproduction

    matched = run_reproduction(open_study(study, storage), trial, arm, overrides or [], console)
    raise typer.Exit(EXIT_DONE if matched else EXIT_GATE)


@app.command()
def replay(study: StudyArgument, storage: StorageOption = None) -> None:
    """Go through the search's records again: do a fresh sampler and scheduler decide the same, in order?"""
    from study import commands

    same = commands.replay(study, storage=storage, console=console)
    raise typer.Exit(EXIT_DONE if same else EXIT_GATE)


@app.command()
def tensorboard(
    study: StudyArgument,
    storage: StorageOption = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 6006,
) -> None:
    """Show the study's events in TensorBoard; those on an object store through a local copy that follows them."""
    from study.views.event_mirror import mirrored_events

    store = open_study(study, storage)
    with nullcontext(store.local_path) if store.is_local else mirrored_events(store) as folder:
        options = ["--logdir", str(folder), "--port", str(port), "--host", "127.0.0.1"]
        status = subprocess.call([sys.executable, "-m", "tensorboard.main", *options])
    raise typer.Exit(status)


@app.command("inspect")
def inspect_spec(spec: SpecArgument, overrides: SetOption = None, address: AddressOption = None) -> None:
    """Check data, weights and resources before money is spent. Writes nothing."""
    from study.spec.study_spec import load_spec
    from study.views.inspection import print_inspection

    loaded, _ = load_spec(spec, overrides or [])
    print_inspection(loaded, address, console)


def _with_options(overrides: list[str] | None, warm_start: str | None, *, profile: bool) -> list[str]:
    """Return the overrides with ``--warm-start`` and ``--profile`` written as the spec's keys, so that spec.toml records them."""
    options = [] if warm_start is None else [f"search.warm_start={json.dumps(warm_start)}"]
    return [*(overrides or []), *options, *(["resources.profile=true"] if profile else [])]


def _finish(opened: "OpenStudy") -> None:
    """Print the A/B table; exit with status 1 if an arm misses the gate."""
    from study import commands

    if not commands.print_comparison(opened, console, errors):
        raise typer.Exit(EXIT_GATE)


def main() -> None:
    """Entry point: turn errors into exit statuses."""
    gc.set_threshold(GC_THRESHOLD)
    try:
        app()
    except UserInputError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        sys.exit(EXIT_INPUT)
    except (StudyInterrupted, StorageError, KeyboardInterrupt) as stop:
        message = str(stop) or "stopped; a launched study continues with `study resume`"
        errors.print(message, soft_wrap=True, markup=False, highlight=False)
        sys.exit(EXIT_STOPPED)


if __name__ == "__main__":
    main()

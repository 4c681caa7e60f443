"""The command line `study`: its commands, their options and the exit statuses. The commands are implemented elsewhere."""

import gc
import io
import itertools
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from search_spaces.errors import UserInputError
from study import cli_options as options
from study.state.paths import default_storage, open_study
from study.state.record_book import StudyInterrupted
from trainables.processes import collect_garbage_rarely
from trainables.storage.store import StorageError

STOPPED = "stopped; a launched study continues with `study resume`"
EXIT_DONE, EXIT_MINIMUM, EXIT_INPUT, EXIT_STOPPED, EXIT_UNDECIDED = 0, 1, 2, 3, 4


class _Commands(TyperGroup):
    """The commands; Typer would end an interrupted one with a status of its own and without a word."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise StudyInterrupted(STOPPED) from None


app = typer.Typer(
    name="study",
    cls=_Commands,
    help="Hyperparameter search and A/B studies for fine-tuning image classifiers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Of output that is no terminal, where COLUMNS does not say another: tables are as wide as their content.
PIPE_WIDTH = 1000


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that cuts nothing where its output is a file or a pipe, in any encoding."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    made = Console(stderr=stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPE_WIDTH
    return made


console = make_console()
errors = make_console(stderr=True)


@app.command()
def init(
    context: typer.Context,
    folder: options.FolderArgument = None,
    to: options.SpecFileOption = None,
    force: options.ForceOption = False,
    weights: options.WeightsOption = None,
    image_size: options.ImageSizeOption = None,
    minutes: options.MinutesOption = 30.0,
    group: options.InitGroupOption = None,
    ignore_near_duplicates: options.IgnoreNearDuplicatesOption = False,
) -> None:
    """Look at a folder of images, say what is found, and write a spec that fits the images and this machine."""
    from study.views.first_spec.init import InitOptions, explain_init, run_init

    if folder is None:
        if any(options.is_given(context, name) for name in context.params):
            raise UserInputError("init needs FOLDER for its options; name the folder of images before them")
        explain_init(console)
        return
    given = InitOptions(
        path=folder,
        to=to,
        force=force,
        weights=weights,
        image_size=image_size,
        minutes=minutes,
        group=group,
        ignores_near_duplicates=ignore_near_duplicates,
    )
    run_init(given, console)


@app.command()
def run(
    spec: options.SpecArgument,
    storage: options.StorageOption = None,
    name: options.NameOption = None,
    overrides: options.SetOption = None,
    configurations: options.ConfigurationOption = None,
    warm_start: options.WarmStartOption = None,
    address: options.AddressOption = None,
    _local: options.LocalOption = False,
    profile: options.ProfileOption = False,
    interventions: options.InterveneOption = False,
    only: options.OnlyOption = None,
    _trust_code: options.TrustOption = False,
) -> None:
    """Launch a study and run it to its report: search, confirmation, comparison, analysis.

    With --configuration, compare configurations from files, under the data, training and seeds of the spec, without a search.
    With --intervene, go on to the interventions that the findings ask for, or to those of --only.
    """
    from study.spec.reading import default_name, load_spec, read_configurations
    from study.stages.launching import Launch, list_stages
    from study.stages.stage import run_stages

    if only:
        from study.interventions.stating import check_names

        check_names(only, is_asked=interventions)
    given = read_configurations(configurations) if configurations else ()
    arms = {one.name: one.hyperparameters for one in given}
    keys = _with_options(overrides, warm_start, profile=profile)
    loaded, text = load_spec(spec, keys, name or (default_name(given) if given else None), arms or None)
    launched = Launch(argument=spec, spec=loaded, text=text, storage=storage, configurations=given)
    missed_minimums = run_stages(itertools.chain([launched], list_stages()), console, address)
    if interventions:
        from study.stages.intervening import Intervene

        stage = Intervene(store=open_study(loaded.name, storage), only=tuple(only or ()))
        run_stages([stage], console, address)
    _finish(missed_minimums)


@app.command()
def submit(
    spec: options.SpecArgument,
    storage: options.SharedStorageOption = None,
    address: options.JobsAddressOption = None,
    name: options.NameOption = None,
    overrides: options.SetOption = None,
    files: options.WithOption = None,
    resumes: options.ResumeOption = False,
    detach: options.DetachOption = False,
    trust_code: options.TrustOption = False,
) -> None:
    """Run a study as a job of a running Ray cluster, which goes on when this machine is off.

    The job shows its output here; Ctrl-C leaves it running. With --resume, go on with a study that was stopped.
    """
    from study.submission import submit_study

    succeeded = submit_study(
        spec,
        console,
        address=address,
        storage=storage,
        name=name,
        overrides=overrides or (),
        files=files or (),
        resumes=resumes,
        follows=not detach,
        trusts_code=trust_code,
    )
    if not succeeded:
        raise typer.Exit(1)


@app.command()
def launch(
    spec: options.SpecArgument,
    storage: options.StorageOption = None,
    name: options.NameOption = None,
    overrides: options.SetOption = None,
    warm_start: options.WarmStartOption = None,
    address: options.AddressOption = None,
    _local: options.LocalOption = False,
    profile: options.ProfileOption = False,
    dry_run: options.DryRunOption = False,
    _trust_code: options.TrustOption = False,
) -> None:
    """Launch a study and run its search."""
    from study.spec.reading import load_spec
    from study.stages.launching import SEARCH_ALONE, Launch
    from study.stages.stage import run_stages

    keys = _with_options(overrides, warm_start, profile=profile)
    loaded, text = load_spec(spec, keys, name)
    launched = Launch(argument=spec, spec=loaded, text=text, storage=storage, dry_run=dry_run)
    run_stages([launched, *(() if dry_run else SEARCH_ALONE)], console, address)


@app.command()
def resume(
    study: options.StudyArgument,
    storage: options.StorageOption = None,
    address: options.AddressOption = None,
    _local: options.LocalOption = False,
    num_trials: options.NumTrialsOption = None,
    device_seconds: options.DeviceSecondsOption = None,
    allow_changed: options.AllowChangedOption = False,
    search_only: options.SearchOnlyOption = False,
    _trust_code: options.TrustOption = False,
) -> None:
    """Continue a stopped study to its report. Finished trials are not repeated."""
    from study.stages.launching import resume_study

    missed_minimums = resume_study(
        open_study(study, storage),
        console,
        address,
        num_trials=num_trials,
        device_seconds=device_seconds,
        allow_changed=allow_changed,
        search_only=search_only,
    )
    _finish(missed_minimums)


@app.command()
def status(
    study: options.StudyArgument, storage: options.StorageOption = None, as_json: options.JsonOption = False
) -> None:
    """Show the progress of a study."""
    from study.open_study import load_study
    from study.views.status import print_status, status_json

    opened = load_study(open_study(study, storage))
    if as_json:
        print(json.dumps(status_json(opened), indent=1))
    else:
        print_status(opened, console)


@app.command("list")
def list_studies(storage: options.StorageOption = None, as_json: options.JsonOption = False) -> None:
    """List the studies under the storage root."""
    from study.views.status import find_studies, print_studies

    root = storage or default_storage()
    studies = find_studies(root)
    if as_json:
        print(json.dumps(studies, indent=1))
    else:
        print_studies(studies, root, console)


@app.command()
def verdicts(study: options.StudyArgument, storage: options.StorageOption = None) -> None:
    """Print the A/B table of an analyzed study, and which model it hands over. Read-only."""
    from study.open_study import load_study
    from study.views.verdicts import print_verdicts

    print_verdicts(load_study(open_study(study, storage)), console)


@app.command()
def compare(
    study: options.StudyArgument,
    storage: options.StorageOption = None,
    address: options.AddressOption = None,
    _local: options.LocalOption = False,
    allow_changed: options.AllowChangedOption = False,
    _trust_code: options.TrustOption = False,
) -> None:
    """Run the missing confirmation trials of a study, then print the A/B table."""
    from study.stages.concluding import COMPARE
    from study.stages.stage import run_stages
    from study.stages.training import Confirm

    store, stages = open_study(study, storage), [Confirm(is_shown=False), COMPARE]
    _finish(run_stages(stages, console, address, store=store, allow_changed=allow_changed))


@app.command()
def analyze(
    study: options.StudyArgument,
    storage: options.StorageOption = None,
    address: options.AnalysisAddressOption = None,
    _local: options.LocalOption = False,
    _trust_code: options.TrustOption = False,
) -> None:
    """Compute the findings of a confirmed study: confusion matrix, class clusters and scores, audits, Grad-CAM panels.

    An analysis that was interrupted goes on with the audits that are left.
    """
    from study.stages.concluding import Analyze
    from study.stages.stage import run_stages

    store = open_study(study, storage)
    run_stages([Analyze(is_alone=True)], console, address or options.THIS_PROCESS, store=store)


@app.command()
def judge(
    files: options.PredictionsArgument,
    class_names: options.ClassNamesOption = None,
    control: options.ControlOption = None,
    margin: options.MarginOption = None,
    alpha: options.AlphaOption = None,
    groups: options.GroupOption = None,
    human_counts: options.HumanCountsOption = None,
    to: options.JudgmentFolderOption = None,
) -> None:
    """Judge models trained elsewhere by their predictions: confusions, class clusters and scores, suspected label errors.

    Two or more arms are compared as well: the A/B table, with intervals and verdicts.
    """
    from study.judging import JudgeOptions, judge_models

    given = JudgeOptions(
        class_names=class_names,
        control=control,
        margin=margin,
        alpha=alpha,
        groups=groups or (),
        human_counts=human_counts,
        to=to,
    )
    judge_models(files, given, console)


@app.command()
def gate(
    old: options.OldArgument,
    new: options.NewArgument,
    not_worse: options.NotWorseOption = False,
    margin: options.MarginOption = None,
    alpha: options.AlphaOption = None,
    log: options.LogOption = None,
    rate: options.RateOption = None,
    markdown: options.MarkdownOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Say whether a change is real: exit status 0 for yes, 1 for no, 4 for undecided, with what would decide.

    Yes is BETTER, no is WORSE or EQUIVALENT. The error rate holds whenever you look and stop, also after every seed.
    """
    from analysis.comparison.values import GateAnswer
    from study.views.gating import GateOptions, judge_sides, print_gate

    given = GateOptions(old=old, new=new, not_worse=not_worse, margin=margin, alpha=alpha, log=log, rate=rate)
    if markdown and as_json:
        raise UserInputError("--markdown and --json are two forms of the same answer; remove one")
    look, notes = judge_sides(given)
    print_gate(look, notes, console, markdown=markdown, as_json=as_json)
    status = {GateAnswer.YES: EXIT_DONE, GateAnswer.NO: EXIT_MINIMUM, GateAnswer.UNDECIDED: EXIT_UNDECIDED}
    raise typer.Exit(status[look.answer])


@app.command()
def intervene(
    study: options.StudyArgument,
    storage: options.StorageOption = None,
    target: options.TargetOption = None,
    only: options.OnlyOption = None,
    strength: options.StrengthOption = None,
    seeds: options.RoundSeedsOption = None,
    device_seconds: options.RoundBudgetOption = None,
    design: options.RoundDesignOption = options.RoundDesign.ONE_AT_A_TIME,
    again: options.AgainOption = False,
    dry_run: options.DryRunOption = False,
    address: options.AddressOption = None,
    _local: options.LocalOption = False,
    as_json: options.JsonOption = False,
    _trust_code: options.TrustOption = False,
) -> None:
    """Try what the findings of a study ask for: state predictions, train, compare, and recommend a configuration.

    The interventions are a study of their own, STUDY-intervene-1. A stopped one is continued.
    """
    from study.stages.intervening import Intervene
    from study.stages.stage import run_stages

    stage = Intervene(
        store=open_study(study, storage),
        target=target,
        only=tuple(only or ()),
        strength=strength,
        num_seeds=seeds,
        device_seconds=device_seconds,
        is_factorial=design is options.RoundDesign.FACTORIAL,
        again=again,
        dry_run=dry_run,
        as_json=as_json,
    )
    run_stages([stage], console, address)


@app.command()
def report(
    study: options.StudyArgument, storage: options.StorageOption = None, formats: options.FormatOption = None
) -> None:
    """Write the report from the findings: report.html, report.md, and explore.html with all test images and trials."""
    from study.stages.concluding import Report
    from study.stages.stage import run_stages

    run_stages([Report(formats=formats) if formats else Report()], console, store=open_study(study, storage))


@app.command()
def export(
    study: options.StudyArgument,
    to: options.ExportFolderOption = None,
    optuna: options.OptunaOption = None,
    onnx: options.OnnxOption = False,
    storage: options.StorageOption = None,
    _trust_code: options.TrustOption = False,
) -> None:
    """Export the records as CSV and Parquet, the search as Optuna studies, and the weights of the best models."""
    from study.views.export import run_export

    run_export(open_study(study, storage), to, optuna, console, onnx=onnx)


@app.command()
def reproduce(
    study: options.StudyArgument,
    storage: options.StorageOption = None,
    trial: options.TrialOption = "best",
    arm: options.ArmOption = None,
    overrides: options.RelocateOption = None,
    _trust_code: options.TrustOption = False,
) -> None:
    """Retrain one trial on this machine and report MATCH, CLOSE or DIFFERENT."""
    from study.views.reproduction import run_reproduction

    matched = run_reproduction(open_study(study, storage), trial, arm, overrides or [], console)
    raise typer.Exit(EXIT_DONE if matched else EXIT_MINIMUM)


@app.command()
def tensorboard(
    study: options.StudyArgument, storage: options.StorageOption = None, port: options.PortOption = 6006
) -> None:
    """Show the events of a study in TensorBoard. Events on an object store are copied to a local folder as they grow."""
    from study.views.event_mirror import mirrored_events

    store = open_study(study, storage)
    with nullcontext(store.local_path) if store.is_local else mirrored_events(store) as folder:
        arguments = ["--logdir", str(folder), "--port", str(port), "--host", "127.0.0.1"]
        status = subprocess.call([sys.executable, "-m", "tensorboard.main", *arguments])
    raise typer.Exit(status)


@app.command()
def sync(
    study: options.StudyArgument,
    to: options.TrackerOption,
    storage: options.StorageOption = None,
    follow: options.FollowOption = False,
) -> None:
    """Write the trials of a study, its verdict and its report to a tracker; again and again, only what has changed is written."""
    from study.views.trackers import sync_study

    sync_study(open_study(study, storage), to, console, follow=follow)


@app.command()
def mcp(storage: options.StorageOption = None) -> None:
    """Answer an agent's questions about studies, over the Model Context Protocol on standard input and output. Only reads."""
    from study.agents import serve_answers

    serve_answers(storage)


@app.command()
def models(library: options.LibraryArgument = "", pattern: options.PatternArgument = "*") -> None:
    """List the names that a backbone may have."""
    from study.views.model_names import list_model_names

    for name in list_model_names(library, pattern):
        console.print(name, markup=False, highlight=False)


@app.command("inspect")
def inspect_spec(
    spec: options.SpecArgument,
    overrides: options.SetOption = None,
    address: options.AddressOption = None,
    _local: options.LocalOption = False,
    to: options.InspectionPageOption = None,
    quick: options.QuickOption = False,
    _trust_code: options.TrustOption = False,
) -> None:
    """Show what a spec's images, weights and resources are like before anything is trained."""
    from study.spec.reading import load_spec
    from study.views.data_inspection import print_inspection

    loaded, text = load_spec(spec, overrides or [])
    print_inspection(loaded, address, console, text=text, to=to, quick=quick)


@app.command("check-cluster")
def check_nodes(address: options.ClusterArgument, storage: options.SharedStorageOption = None) -> None:
    """Show devices, versions, clocks and shared storage of a cluster's nodes, and what to do about them.

    The exit status is 1 if something is to be done.
    """
    from study.views.cluster_check import print_cluster_check

    if not print_cluster_check(address, storage, console):
        raise typer.Exit(1)


@app.command()
def plan(
    spec: options.SpecArgument,
    overrides: options.SetOption = None,
    like: options.LikeOption = None,
    pilot: options.PilotOption = None,
    seed_sd: options.SeedSdOption = None,
    image_sd: options.ImageSdOption = None,
    seed_image_sd: options.SeedImageSdOption = None,
    storage: options.StorageOption = None,
    _trust_code: options.TrustOption = False,
) -> None:
    """Forecast what the looks of a spec can decide, and what would decide its margin. Writes nothing.

    The variances come from the section `plan` of the spec, from --like, from --pilot, or from --seed-sd and --image-sd.
    """
    from study.spec.reading import load_spec
    from study.views.planning import PlanOptions, print_plan

    loaded, text = load_spec(spec, overrides or [], runs_code=pilot is not None)
    given = PlanOptions(like=like, pilot=pilot, seed_sd=seed_sd, image_sd=image_sd, seed_image_sd=seed_image_sd)
    print_plan(loaded, text, given, storage, console)


def _with_options(overrides: list[str] | None, warm_start: str | None, *, profile: bool) -> list[str]:
    """Return the overrides, with ``--warm-start`` and ``--profile`` as keys of the spec, so that spec.toml records them."""
    warm = [] if warm_start is None else [f"search.warm_start={json.dumps(warm_start)}"]
    return [*(overrides or []), *warm, *(["resources.profile=true"] if profile else [])]


def _finish(missed_minimums: list[str]) -> None:
    """Print the arms that do not clear the minimum; exit with status 1 if there are any."""
    for message in missed_minimums:
        errors.print(message, soft_wrap=True, markup=False)
    if missed_minimums:
        raise typer.Exit(EXIT_MINIMUM)


def main() -> None:
    """Run the command line; the entry point `study`. Errors of the user or the storage become exit statuses."""
    collect_garbage_rarely()
    try:
        app()
    except UserInputError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        sys.exit(EXIT_INPUT)
    except (StudyInterrupted, StorageError, KeyboardInterrupt) as stop:
        errors.print(str(stop) or STOPPED, soft_wrap=True, markup=False, highlight=False)
        sys.exit(EXIT_STOPPED)
    finally:
        # Python collects garbage when it ends, and looks at all that torch and Ray have left: two seconds, for nothing.
        gc.freeze()


if __name__ == "__main__":
    main()

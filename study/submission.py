"""`study submit`: a study as a job of a running cluster."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from search_spaces.errors import UserInputError, collect_problems, first_line
from study.cluster.job_submission import SPEC_NAME, connect_job_server, follow_job, name_in_job, submit_job
from study.spec.reading import load_spec
from study.spec.study_spec import StudySpec
from study.state.interruption import StudyInterrupted
from study.state.paths import study_uri
from study.views.printing import print_line
from trainables.storage.store import check_uri

SUCCEEDED = "SUCCEEDED"
ENDED = frozenset({SUCCEEDED, "FAILED", "STOPPED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """The options of `study submit`.

    Attributes:
        address: of the job server.
        storage: the storage root, which all nodes and this machine reach.
        name: of the study, instead of the spec's.
        overrides: ``section.key=value`` each.
        files: that the job needs beside the spec.
        resumes: whether a study is resumed instead of a spec launched.
        follows: whether to show the job's output until it ends.
        trusts_code: whether code of the job's folder may run.
    """

    address: str | None
    storage: str | None
    name: str | None = None
    overrides: Sequence[str] = ()
    files: Sequence[Path] = ()
    resumes: bool = False
    follows: bool = True
    trusts_code: bool = False


def submit_study(spec: str, options: SubmitOptions, console: Console) -> bool:
    """Start a study, or go on with one, as a job; return whether the job succeeded, or was not followed.

    Args:
        spec: a TOML file or the name of a preset; of a study that is resumed, its path, URI or name.
        options: of the command.
        console: receives the job's output.

    Raises:
        UserInputError: listing everything that is wrong with the options, or if the spec is not valid or the server not there.
    """
    _check(spec, options)
    assert options.address is not None
    if options.resumes:
        root, text = study_uri(spec, options.storage), None
        command = ["resume", root, "--address", "auto"]
    else:
        loaded, text = load_spec(spec, options.overrides, options.name)
        assert options.storage is not None
        root = study_uri(loaded.name, options.storage)
        command = ["run", SPEC_NAME, "--storage", options.storage, "--address", "auto"]
        for place in _list_local_places(loaded):
            print_line(f"every node of the cluster must find {place} of the spec", console)
    command += (trust := ["--trust-code"] if options.trusts_code else [])
    client = connect_job_server(options.address)
    job = submit_job(client, command, text, options.files)
    print_line(f"job {job} at {options.address} runs: study {shlex.join(command)}", console)
    print_line(
        f"from anywhere: study status {shlex.quote(root)}; ray job stop {job} --address {options.address}", console
    )
    if not options.follows:
        return True
    follow = f"ray job logs {job} --follow --address {options.address}"
    try:
        state = follow_job(client, job, lambda part: print_line(part, console, end=""))
    except KeyboardInterrupt:
        print_line(f"the job goes on; follow it: {follow}", console)
        return True
    except Exception as error:  # what the connection and Ray's client raise has many classes
        raise StudyInterrupted(
            f"the connection to the job was lost ({first_line(error)}), and the job goes on; follow it: {follow}"
        ) from None
    if state not in ENDED:
        raise StudyInterrupted(f"the job's output ended, but the job is {state}; follow it: {follow}")
    if state != SUCCEEDED:
        resume = shlex.join(["study", "submit", root, "--resume", "--address", options.address, *trust])
        print_line(
            f"the job ended as {state}; if its study had begun and is not at its end, go on with: {resume}", console
        )
    return state == SUCCEEDED


def _check(spec: str, options: SubmitOptions) -> None:
    """Raise UserInputError with everything that is wrong with the options."""
    problems = []
    if options.address is None or "://" not in options.address:
        problems.append(
            f"--address must be that of the job server, such as http://HEAD:8265, but got {options.address or 'none'}"
        )
    where = study_uri(spec, options.storage) if options.resumes else options.storage
    if where is None or not ("://" in where or Path(where).is_absolute()):
        problems.append(
            "--storage must be a place that all nodes and this machine reach, such as s3://BUCKET/studies or an absolute path on "
            f"a shared disk, but got {where or 'none'}"
        )
    elif "://" in where:
        problems += collect_problems([("--storage: ", partial(check_uri, where))])
    problems += [f"--with {file} does not exist" for file in options.files if not file.exists()]
    taken = {SPEC_NAME} if not options.resumes else set()
    for file in options.files:
        name = name_in_job(file)
        if name in taken:
            problems.append(f"--with {file}: the job has another file of the name {name}")
        taken.add(name)
    if options.resumes and (options.name or options.overrides):
        problems.append("--resume goes on with a study as it is; remove --name and --set")
    if problems:
        raise UserInputError("; ".join(problems))


def _list_local_places(spec: StudySpec) -> list[str]:
    """Return the paths of the spec that are not URIs, such as "data.path (/mnt/photos)"."""
    places = {
        "data.path": spec.data.path,
        "model.weights": spec.model.weights,
        "analyze.human_counts": spec.analyze.human_counts,
    }
    words = {None, "none", "imagenet"}
    return [f"{key} ({place})" for key, place in places.items() if place not in words and "://" not in str(place)]

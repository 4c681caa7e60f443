"""`study submit`: a study as a job of a running cluster, driven on its head, so that the user's machine need not stay on.

Ray's job server runs the job; its address is that of the dashboard, such as ``http://HEAD:8265``. The job is an ordinary
``study run``: it can be looked at with ``study status`` and, if it dies, be resumed by another job.
"""

import asyncio
import logging
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from search_spaces.errors import UserInputError, attempt, first_line, refuse_any
from study.spec.reading import load_spec
from study.spec.study_spec import StudySpec
from study.state.paths import study_uri
from study.state.record_book import StudyInterrupted
from study.views.printing import print_line, print_lines
from trainables.storage.store import check_uri

SPEC_NAME = "spec.toml"
EXTRA = "abstudy[submit]"
SUCCEEDED = "SUCCEEDED"
ENDED = frozenset({SUCCEEDED, "FAILED", "STOPPED"})


def submit_study(
    spec: str,
    console: Console,
    *,
    address: str | None,
    storage: str | None,
    name: str | None,
    overrides: Sequence[str],
    files: Sequence[Path],
    resumes: bool,
    follows: bool,
    trusts_code: bool,
) -> bool:
    """Start a study, or go on with one, as a job; return whether the job succeeded, or was not followed.

    Args:
        spec: a TOML file or the name of a preset; of a study that is resumed, its path, URI or name.
        console: receives the job's output.
        address: of the job server.
        storage: the storage root, which all nodes and this machine reach.
        name: of the study, instead of the spec's.
        overrides: ``section.key=value`` each.
        files: files and folders that the job needs beside the spec, such as the module of a custom training loop.
        resumes: whether a study is resumed instead of a spec launched.
        follows: whether to show the job's output until it ends.
        trusts_code: whether code of the job's folder may run.

    Raises:
        UserInputError: listing everything that is wrong with the options, or if the spec is not valid or the server not there.
    """
    problems = _list_place_problems(address, study_uri(spec, storage) if resumes else storage)
    problems += _list_file_problems(files, taken=set() if resumes else {SPEC_NAME})
    if resumes and (name or overrides):
        problems.append("--resume goes on with a study as it is; remove --name and --set")
    refuse_any(problems)
    assert address is not None
    if resumes:
        root, text = study_uri(spec, storage), None
        command = ["resume", root, "--address", "auto"]
    else:
        loaded, text = load_spec(spec, overrides, name)
        assert storage is not None
        root = study_uri(loaded.name, storage)
        command = ["run", SPEC_NAME, "--storage", storage, "--address", "auto"]
        places = _list_local_places(loaded)
        print_lines((f"every node of the cluster must find {place} of the spec" for place in places), console)
    command += (trust := ["--trust-code"] if trusts_code else [])
    client = connect_job_server(address)
    job = _submit_job(client, command, text, files)
    print_line(f"job {job} at {address} runs: study {shlex.join(command)}", console)
    print_line(f"from anywhere: study status {shlex.quote(root)}; ray job stop {job} --address {address}", console)
    if not follows:
        return True
    state = _follow_job(client, job, address, console)
    if state not in {SUCCEEDED, ""}:
        resume = shlex.join(["study", "submit", root, "--resume", "--address", address, *trust])
        print_line(
            f"the job ended as {state}; if its study had begun and is not at its end, go on with: {resume}", console
        )
    return state in {SUCCEEDED, ""}


def _list_place_problems(address: str | None, where: str | None) -> list[str]:
    """Return what is wrong with the address of the job server, and with the place of the study or its storage root."""
    problems = []
    if address is None or "://" not in address:
        problems.append(
            f"--address must be that of the job server, such as http://HEAD:8265, but got {address or 'none'}"
        )
    if where is None or not ("://" in where or Path(where).is_absolute()):
        problems.append(
            "--storage must be a place that all nodes and this machine reach, such as s3://BUCKET/studies or an absolute path on "
            f"a shared disk, but got {where or 'none'}"
        )
    elif "://" in where:
        attempt(problems, check_uri, where, prefix="--storage: ")
    return problems


def _list_file_problems(files: Sequence[Path], taken: set[str]) -> list[str]:
    """Return the files that do not exist, and those whose name another file of the job has taken."""
    problems = [f"--with {file} does not exist" for file in files if not file.exists()]
    for file in files:
        name = _name_in_job(file)
        if name in taken:
            problems.append(f"--with {file}: the job has another file of the name {name}")
        taken.add(name)
    return problems


def _list_local_places(spec: StudySpec) -> list[str]:
    """Return the paths of the spec that are not URIs, such as "data.path (/mnt/photos)"."""
    places = {
        "data.path": spec.data.path,
        "model.weights": spec.model.weights,
        "analyze.human_counts": spec.analyze.human_counts,
    }
    words = {None, "none", "imagenet"}
    return [f"{key} ({place})" for key, place in places.items() if place not in words and "://" not in str(place)]


def connect_job_server(address: str) -> Any:
    """Return Ray's client of the job server at `address`, with the token of RAY_AUTH_TOKEN where the cluster asks for one.

    Raises:
        UserInputError: if Ray's job client is not installed, or nothing answers at the address.
    """
    try:
        from ray.job_submission import JobSubmissionClient

        # It tells each upload.
        logging.getLogger("ray").setLevel(logging.WARNING)
        return JobSubmissionClient(address)
    except (ConnectionError, ValueError) as error:
        raise UserInputError(
            f"no job server answers at --address {address} ({first_line(error)}); it is that of Ray's dashboard, port 8265 of "
            "the head: `ray dashboard cluster.yaml` forwards it to http://localhost:8265"
        ) from None
    except (ImportError, RuntimeError) as error:
        if "ray[default]" in str(error) or isinstance(error, ImportError):
            raise UserInputError(f"submitting needs Ray's job client: pip install '{EXTRA}'") from None
        raise UserInputError(f"the job server at --address {address} refuses: {first_line(error)}") from None


def _submit_job(client: Any, command: Sequence[str], spec_text: str | None, files: Sequence[Path]) -> str:
    """Start a job that runs a command of `study` in a folder with the spec and the files; return its id."""
    with tempfile.TemporaryDirectory(prefix="abstudy-job-") as name:
        folder = Path(name)
        if spec_text is not None:
            (folder / SPEC_NAME).write_text(spec_text, encoding="utf-8")
        for file in files:
            if file.is_dir():
                shutil.copytree(file, folder / _name_in_job(file), ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copy(file, folder / _name_in_job(file))
        # The client uploads the folder before it returns. In a job, Ray sets the address of the cluster.
        entrypoint = shlex.join(["study", *command])
        return str(client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(folder)}))


def _name_in_job(file: Path) -> str:
    """Return the name that a file or folder has in the job's folder: its own, that of a link included."""
    return file.name if file.name not in {"", ".."} else file.resolve().name


def _follow_job(client: Any, job: str, address: str, console: Console) -> str:
    """Print the job's output until it ends; return its state, one of `ENDED`, or "" if the user does not wait for it.

    Raises:
        StudyInterrupted: if the connection was lost, or the output ended before the job.
    """
    follow = f"ray job logs {job} --follow --address {address}"

    async def tail() -> None:
        async for part in client.tail_job_logs(job):
            print_line(part, console, end="")

    try:
        asyncio.run(tail())
        state = str(getattr(client.get_job_status(job), "value", ""))
    except KeyboardInterrupt:
        print_line(f"the job goes on; follow it: {follow}", console)
        return ""
    except Exception as error:  # what the connection and Ray's client raise has many classes
        raise StudyInterrupted(
            f"the connection to the job was lost ({first_line(error)}), and the job goes on; follow it: {follow}"
        ) from None
    if state not in ENDED:
        raise StudyInterrupted(f"the job's output ended, but the job is {state}; follow it: {follow}")
    return state

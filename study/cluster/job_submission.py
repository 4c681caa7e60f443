"""Jobs of a running cluster: a study is driven by a job on the head, so that the user's machine need not stay on.

Ray's job server runs the job; its address is that of the dashboard, such as ``http://HEAD:8265``. The job is an ordinary
``study run``: it can be looked at with ``study status`` and, if it dies, be resumed by another job.
"""

import asyncio
import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from search_spaces.errors import UserInputError, first_line

SPEC_NAME = "spec.toml"
EXTRA = "abstudy[submit]"


class JobClient(Protocol):
    """What this module needs of Ray's `JobSubmissionClient`."""

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str:
        """Start a job and return its id."""

    def tail_job_logs(self, job_id: str) -> Any:
        """Return an asynchronous iterator over the parts of its output, until it ends."""

    def get_job_status(self, job_id: str) -> Any:
        """Return its state."""


def connect_job_server(address: str) -> JobClient:
    """Return a client of the job server at `address`, with the token of RAY_AUTH_TOKEN where the cluster asks for one.

    Raises:
        UserInputError: if Ray's job client is not installed, or nothing answers at the address.
    """
    try:
        from ray.job_submission import JobSubmissionClient

        # It tells each upload.
        logging.getLogger("ray").setLevel(logging.WARNING)
        return JobSubmissionClient(address)  # type: ignore[no-any-return]
    except (ConnectionError, ValueError) as error:
        raise UserInputError(
            f"no job server answers at --address {address} ({first_line(error)}); it is that of Ray's dashboard, port 8265 of "
            "the head: `ray dashboard cluster.yaml` forwards it to http://localhost:8265"
        ) from None
    except (ImportError, RuntimeError) as error:
        if "ray[default]" in str(error) or isinstance(error, ImportError):
            raise UserInputError(f"submitting needs Ray's job client: pip install '{EXTRA}'") from None
        raise UserInputError(f"the job server at --address {address} refuses: {first_line(error)}") from None


def submit_job(client: JobClient, command: Sequence[str], spec_text: str | None, files: Sequence[Path]) -> str:
    """Start a job that runs a command of `study` in a folder with the spec and other files; return its id.

    Args:
        client: of `connect_job_server`.
        command: without the word "study".
        spec_text: content of `SPEC_NAME`; None without a spec.
        files: files and folders to put beside it, such as the module of a custom training loop, which can be imported.
    """
    with tempfile.TemporaryDirectory(prefix="abstudy-job-") as name:
        folder = Path(name)
        if spec_text is not None:
            (folder / SPEC_NAME).write_text(spec_text, encoding="utf-8")
        for file in files:
            if file.is_dir():
                shutil.copytree(file, folder / name_in_job(file), ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copy(file, folder / name_in_job(file))
        # The client uploads the folder before it returns. In a job, Ray sets the address of the cluster.
        return client.submit_job(entrypoint=shlex.join(["study", *command]), runtime_env={"working_dir": str(folder)})


def name_in_job(file: Path) -> str:
    """Return the name that a file or folder has in the job's folder: its own, that of a link included."""
    return file.name if file.name not in {"", ".."} else file.resolve().name


def follow_job(client: JobClient, job_id: str, write: Callable[[str], None]) -> str:
    """Pass the job's output on until it ends; return its state, such as "SUCCEEDED" or "FAILED"."""

    async def tail() -> None:
        async for part in client.tail_job_logs(job_id):
            write(part)

    asyncio.run(tail())
    return str(getattr(client.get_job_status(job_id), "value", ""))

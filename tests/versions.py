"""The tests in an environment with other packages.

``python -m tests.versions lowest|newest|jobs|image|mlflow|trackio [PYTHON]``

``lowest`` has the lowest direct dependencies that have binaries for the interpreter PYTHON (grad-cam has none), ``newest`` the
newest of everything; both leave their versions in .venv/lowest.txt and .venv/newest.txt. ``jobs`` adds the packages of Ray's
job server, submits to it, probes the ports that it opens, and writes the rows R14 and R18 job of benchmarks/FAULTS.md.
``image`` executes the RUN lines of the Dockerfile on a copy of this checkout in an empty environment, which needs about 8 GB, or
2 GB where pip finds torch for CPUs (PIP_FIND_LINKS). ``mlflow`` and ``trackio`` test `study sync` against the store of that
tracker.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VENV = Path(".venv")
UV = str(Path(sys.executable).with_name("uv"))
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TEST_OPTIONS = ("--durations=25", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
# Environments with another extra beside "dev", and the tests that need it.
JOB_TESTS = ("-m", "", "tests/study/test_submission.py", "tests/faults/test_faults.py", "-k", "submit or port")
TRACKER_TESTS = ("tests/study/views/test_tracker_stores.py",)
EXTRAS = {
    "jobs": ("submit", JOB_TESTS),
    "mlflow": ("mlflow", (*TRACKER_TESTS, "-k", "mlflow")),
    "trackio": ("trackio", (*TRACKER_TESTS, "-k", "trackio")),
}


def run(*command: str | Path, **variables: str) -> None:
    """Run a command with additional environment variables, and exit with its status if that is not 0."""
    status = subprocess.run([str(part) for part in command], env={**os.environ, **variables}, check=False).returncode
    if status:
        sys.exit(status)


def run_tests(versions: str, interpreter: str) -> None:
    """Create the environment .venv/VERSIONS and run its tests."""
    environment = VENV / versions
    python, wanted = environment / "bin" / "python", VENV / f"{versions}.txt"
    install = (UV, "pip", "install", "--quiet", "--python", python, "--editable")
    if versions in RESOLUTIONS:
        resolve = ("--resolution", RESOLUTIONS[versions], "--only-binary", ":all:", "--no-binary", "grad-cam")
        compile_versions = (UV, "pip", "compile", "--quiet", "--python", interpreter, *resolve)
        run(*compile_versions, "--extra", "dev", "pyproject.toml", "--output-file", wanted)
    run(UV, "venv", "--quiet", "--clear", "--python", interpreter, environment)
    if versions in EXTRAS:
        extra, tests = EXTRAS[versions]
        run(*install, f".[dev,{extra}]")
        run(python, "-m", "pytest", *tests)
        if versions == "jobs":
            run(python, "-m", "tests.faults", "R14", "R18 job")
    else:
        run(UV, "pip", "sync", "--quiet", "--python", python, wanted)
        run(*install, ".", "--no-deps")
        run(python, "-m", "pytest", *TEST_OPTIONS, OTHER_VERSIONS=versions)


def run_image(interpreter: str) -> None:
    """Execute the RUN lines of the Dockerfile in the environment .venv/image."""
    environment = (VENV / "image").resolve()
    run(UV, "venv", "--quiet", "--clear", "--seed", "--python", interpreter, environment)
    with tempfile.TemporaryDirectory(prefix="abstudy-image-") as folder:
        names = subprocess.run(("git", "ls-files", "-z"), capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            copied = Path(folder) / "abstudy" / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, copied)
        for line in Path("Dockerfile").read_text().splitlines():
            if line.startswith("RUN "):
                command = f"cd {folder} && {line.removeprefix('RUN ')}"
                run("sh", "-c", command, PATH=f"{environment / 'bin'}:{os.environ['PATH']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("versions", choices=(*RESOLUTIONS, *EXTRAS, "image"))
    parser.add_argument("interpreter", metavar="PYTHON", nargs="?", default="python3")
    arguments = parser.parse_args()
    if arguments.versions == "image":
        run_image(arguments.interpreter)
    else:
        run_tests(arguments.versions, arguments.interpreter)

"""A machine that will be taken away: its trials store a checkpoint before Ray stops there.

`python spot_notice.py` waits for AWS's notice of a spot machine, and `python spot_notice.py now` does at once what follows a
notice: the first is a command of cluster.yaml, the second the hook of Kubernetes in kuberay.yaml. It needs Python's library
alone.
"""

import http.client
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

# Of an EC2 instance, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
METADATA = "169.254.169.254"
POLL_SECONDS = 5.0
# AWS gives two minutes.
PATIENCE_SECONDS = 90.0


def is_announced(host: str = METADATA) -> bool:
    """Return whether the metadata service announces that this machine stops; raise OSError if it does not answer as AWS's."""
    _, token = _ask(host, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    status, text = _ask(host, "GET", "/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    if status not in {200, 404}:
        raise OSError(f"the metadata service of this machine answered with status {status}: {text}")
    return status == 200


def _ask(host: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(host, timeout=POLL_SECONDS)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def list_workers() -> set[int]:
    """Return the processes of this node's trials and tasks, which have names such as ``ray::TrialTrainable.train()``.

    Without Ray's own ``ray::DashboardAgent`` and ``ray::RuntimeEnvAgent``, with which the node would end at once.
    """
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            name = file.read_bytes().split(b"\0")[0]
            if name.startswith(b"ray::") and not name.endswith(b"Agent"):
                found.add(int(file.parent.name))
    return found


def stop_node(stop_command: tuple[str, ...] = ("ray", "stop")) -> None:
    """Send SIGTERM to the workers of this node, wait until they have stored their state and ended, then stop Ray here."""
    told = list_workers()
    for process in told:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    until = time.monotonic() + PATIENCE_SECONDS
    while told & list_workers() and time.monotonic() < until:
        time.sleep(0.1)
    subprocess.run(stop_command, check=False)


def main() -> None:
    """Wait for a notice, unless the command line says "now"; then stop the node."""
    while sys.argv[1:] != ["now"] and not is_announced():
        time.sleep(POLL_SECONDS)
    stop_node()


if __name__ == "__main__":
    main()

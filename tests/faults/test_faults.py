"""A sample of every kind of fault; `make faults` has the full counts. Killed drivers and damaged files are in tests/study."""

import contextlib
import http.server
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from search_spaces.errors import UserInputError
from study.scheduling.search_director import SearchDirector
from study.spec.reading import load_spec
from study.state.paths import FINDINGS
from study.state.record_book import MemoryBook
from tests.faults import drivers, hostile, nodes, partitions, payloads, ports, processes, storage
from tests.faults.__main__ import Row
from tests.faults.campaign import EXIT_DONE, EXIT_STOPPED, LOG_NAME, Campaign, Outcome, has_changed
from tests.faults.process_tree import is_alive, kill
from tests.faults.processes import IN_ORDER, find_differences, find_other_decisions
from tests.study import replaying
from tests.study.replaying import Replay
from tests.study.simulated import FIXED, drive, make_spec
from trainables.storage.store import Store

PREDICTIONS, WEIGHTS = "best/0001/search.npz", "best/0001/weights.safetensors"

NEEDS_NETWORKS = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="networks of their own need root and iproute2"
)
pytestmark = [pytest.mark.ray_cluster, pytest.mark.timeout(290)]


@pytest.mark.long_faults
def test_trials_killed_told_to_end_and_hung_in_one_study(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, num_trials=4, max_epochs=4, retries=10, timeout_seconds=40.0)
    campaign.start()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
        assert campaign.wait_for(lambda: bool(campaign.running_pids()))
        time.sleep(0.7)
        pids = campaign.running_pids()
        assert pids, "every trial ended at once"
        assert kill(pids[0], number)
        if number is not signal.SIGSTOP:
            assert campaign.wait_for(lambda pid=pids[0]: not is_alive(pid))  # type: ignore[misc]
    status, output = campaign.end()
    assert status == EXIT_DONE, output
    assert campaign.find_losses(expected=4) == ()
    causes = [cause for record in campaign.records().values() for cause in record.retry_causes]
    assert sum("no report for 40 s" in cause for cause in causes) == 1
    assert len(causes) >= 3
    assert any(line.event == "left" for line in campaign.lines())


@pytest.mark.long_faults
def test_node_lost_trial_orphaned_and_head_lost(tmp_path: Path) -> None:
    """The cluster is started by the commands of cluster.yaml, with a token; the study is resumed on another one."""
    with nodes.local_cluster(2, tmp_path) as cluster:
        campaign = nodes.make_campaign(tmp_path, cluster, num_trials=4, retries=10)
        campaign.start()
        try:
            assert campaign.strike(1, (0.5, 3.0), partial(nodes.replace_node, cluster)) == 1
            ends: list[str] = []
            orphan = partial(nodes.orphan_trial, campaign, cluster, ends, partial(nodes.lose_raylet, signal.SIGKILL))
            assert campaign.strike(1, (0.5, 2.0), orphan) == 1
            assert ends[0] in {"refused", "gone"}
            campaign.note_finished()
            kill(cluster.gcs(), signal.SIGKILL)
        finally:
            campaign.end(150)
    with nodes.local_cluster(1, tmp_path) as cluster:
        campaign.address, campaign.environment = cluster.address, cluster.environment
        campaign.start("resume")
        status, output = campaign.end()
    assert status == EXIT_DONE, output
    assert campaign.find_losses(expected=4) == ()
    assert nodes.find_late_writes(campaign) == ()


@pytest.mark.long_faults
def test_a_node_that_is_stopped_leaves_checkpoints_and_no_step_is_trained_twice(tmp_path: Path) -> None:
    outcome = nodes.stop_nodes(tmp_path, 2)
    assert outcome.is_met, outcome
    assert outcome.injected == 2


@pytest.mark.long_faults
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is a tmpfs, which only root may mount")
def test_full_disk_stops_the_study_and_it_is_resumed_when_there_is_space(tmp_path: Path) -> None:
    if subprocess.run(["mount", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no mount here")
    with storage.small_disk(tmp_path / "disk", 700):
        campaign = Campaign(tmp_path, storage=str(tmp_path / "disk"), num_trials=4, max_epochs=3)
        campaign.start()
        assert campaign.wait_for(lambda: any(line.event == "epoch" for line in campaign.lines()))
        storage.fill(tmp_path / "disk" / "filler")
        status, output = campaign.end()
        assert status == EXIT_STOPPED, output
        assert "No space left on device" in output
        assert "study resume" in output
        assert "Traceback" not in output
        campaign.note_finished()
        assert campaign.records()
        (tmp_path / "disk" / "filler").unlink()
        campaign.start("resume")
        status, output = campaign.end()
        assert status == EXIT_DONE, output
        assert campaign.find_losses(expected=4) == ()


@pytest.mark.long_faults
def test_search_on_a_failing_object_store_is_killed_and_resumed_with_its_uri_alone(tmp_path: Path) -> None:
    outcome = storage.fail_object_store(tmp_path, 16, num_trials=3, whole=False)
    assert outcome.is_met, outcome
    assert outcome.injected >= 12


@pytest.mark.long_faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "inject",
    [
        nodes.orphan_trials,
        nodes.orphan_studies,
        pytest.param(partitions.cut_off_nodes, marks=NEEDS_NETWORKS),
        processes.hang_up,
        processes.hang_set_ups,
        processes.kill_rounds,
        pytest.param(
            nodes.kill_jobs, marks=pytest.mark.skipif(not ports.HAS_JOB_SERVER, reason="needs abstudy[submit]")
        ),
        storage.lose_object_store,
    ],
)
def test_one_fault_is_survived(tmp_path: Path, inject: Callable[[Path, int], Outcome]) -> None:
    outcome = inject(tmp_path, 1)
    assert outcome.is_met, outcome
    assert inject is not nodes.orphan_trials or outcome.seen.startswith(
        "orphans that were refused their checkpoint: 1;"
    ), outcome


@NEEDS_NETWORKS
def test_a_node_without_a_cable_reaches_the_other_network_alone() -> None:
    with partitions.networks(), contextlib.ExitStack() as opened:
        hosts = [f"{prefix}.1" for prefix in partitions.NETWORKS.values()]
        places = [opened.enter_context(socket.create_server((host, 0))).getsockname() for host in hosts]

        def find_reached() -> list[bool]:
            reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
            inside = ("ip", "netns", "exec", "abf-0", sys.executable, "-c", reach)
            commands = [[*inside, *map(str, place)] for place in places]
            return [subprocess.run(c, capture_output=True, check=False).returncode == 0 for c in commands]

        assert find_reached() == [True, True]
        with partitions.without_cables(0, ["head"]):
            assert find_reached() == [False, True]
        assert find_reached() == [True, True]


def test_judge_finds_a_checkpoint_that_an_attempt_stored_too_late(tmp_path: Path) -> None:
    events = [("stored", 1, 1.0), ("start", 2, 2.0), ("refused", 1, 3.0), ("stored", 2, 4.0)]
    late = ("stored", 1, 5.0)
    for lines, num_late in ((events, 0), ([*events, late], 1)):
        common = {"trial": "trials/00000", "pid": 1, "steps": 9}
        written = [json.dumps({"event": e, "attempt": a, "time": t, **common}) for e, a, t in lines]
        (tmp_path / LOG_NAME).write_text("\n".join([*written, ""]))
        assert len(nodes.find_late_writes(Campaign(tmp_path))) == num_late


def test_judge_distinguishes_a_trial_started_again_from_one_that_was_not_finished(tmp_path: Path) -> None:
    starts = [{"trial": "trials/00000", "time": 100.0}, {"trial": "trials/00000", "time": 200.0}]
    lines = [{"event": "start", "attempt": 1, "pid": 1, **start} for start in starts]
    (tmp_path / LOG_NAME).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert not Campaign(tmp_path, finished_at={"00000": 201.0}).find_restarted()
    assert not Campaign(tmp_path, finished_at={"00001": 1.0}).find_restarted()
    assert len(Campaign(tmp_path, finished_at={"00000": 199.0}).find_restarted()) == 1


def test_judge_finds_a_search_that_replays_with_other_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[1] / "golden" / "finished")
    assert find_other_decisions(root) == ()
    monkeypatch.setattr(replaying, "replay_search", lambda *_, **__: Replay(difference="trial 00003 was not suggested"))
    (line,) = find_other_decisions(root)
    assert "first difference: trial 00003 was not suggested" in line


def test_judge_distinguishes_a_changed_trial_from_one_whose_weights_are_not_kept() -> None:
    """R5 at full count called a trial changed whose weights had gone, since another one had become the best of its arm."""
    director = SearchDirector(MemoryBook(), make_spec(num_trials=2), FIXED)
    drive(director)
    before = director.book.of_stage("search")[0].updated(digests={PREDICTIONS: "a", WEIGHTS: "b"})
    dropped = before.updated(weights_dropped=True, digests={PREDICTIONS: "a"}, writer="another")
    assert not has_changed(before, dropped)
    assert not has_changed(dropped, dropped.updated(writer="a third"))
    for changes in (
        {"digests": {PREDICTIONS: "a"}},
        {"digests": {PREDICTIONS: "a", WEIGHTS: "c"}},
        {"weights_dropped": True, "digests": {PREDICTIONS: "c"}},
        {"weights_dropped": True, "digests": {PREDICTIONS: "a"}, "attempts": before.attempts + 1},
    ):
        assert has_changed(before, before.updated(**changes)), changes


def test_a_campaign_whose_study_ends_before_its_faults_has_not_met_its_row() -> None:
    """R3 was struck 3 times of 10 and called met."""
    outcome = Outcome(fault="R3 orphan", injected=3, survived=3)
    rows = [Row(outcome=outcome, seconds=1.0, date="", planned=planned) for planned in (3, 10)]
    assert [row.verdict for row in rows] == ["met", "NOT MET"]


def test_specs_of_killed_studies_fix_the_order_of_their_arms() -> None:
    """At full count the demo's driver ended with 2: the campaign named arms that the demo does not have."""
    spec, _ = load_spec("demo", IN_ORDER)
    assert spec.search is not None
    assert spec.search.epoch_cost is not None


def test_judge_distinguishes_other_findings_from_other_measured_times(tmp_path: Path) -> None:
    curve = {"arm": "resnet18", "points": [{"expected": 0.81}], "observed": [[28.7, 0.79], [42.9, 0.8]]}
    first = {"rows": [{"verdict": "BETTER", "cost_ratio": 2.1}], "tuning_curves": [curve]}
    slower = {**curve, "points": [{"expected": 0.82}], "observed": [[29.1, 0.79], [41.9, 0.8]]}
    changes = {
        "slower": ({"rows": [{"verdict": "BETTER", "cost_ratio": 2.2}], "tuning_curves": [slower]}, ()),
        "verdict": ({"rows": [{"verdict": "WORSE", "cost_ratio": 2.1}]}, ("findings differ in rows",)),
        "score": (
            {"tuning_curves": [{**curve, "observed": [[28.7, 0.79], [42.9, 0.81]]}]},
            ("findings differ in tuning_curves",),
        ),
    }
    Store(tmp_path / "first").write_text(FINDINGS, json.dumps(first))
    for name, (change, differences) in changes.items():
        Store(tmp_path / name).write_text(FINDINGS, json.dumps({**first, **change}))
        assert find_differences(str(tmp_path / "first"), str(tmp_path / name)) == differences
    assert "has no findings" in find_differences(str(tmp_path / "first"), str(tmp_path / "none"))[0]


def test_payload_leaves_its_mark_where_it_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    pickle.loads(payloads.wrap_payload(marker)["pickle"])
    assert marker.exists()


def test_hostile_input_is_accepted_or_refused_with_a_message(tmp_path: Path) -> None:
    outcome = hostile.feed_hostile_input(tmp_path, 200)
    assert outcome.is_met, outcome
    assert outcome.injected >= 190


def test_input_that_crashes_writes_or_is_refused_without_a_message_is_lost(tmp_path: Path) -> None:
    def refuse(message: str, _: Path) -> None:
        raise UserInputError(message)

    assert hostile.judge_input("a reason", refuse, tmp_path) == "refused"
    for message in ("", "Traceback: x", "three\nlines\nof reasons"):
        with pytest.raises(AssertionError):
            hostile.judge_input(message, refuse, tmp_path)
    with pytest.raises(AssertionError, match="files were written"):
        hostile.judge_input("x", lambda _, place: (place.parent / "left").touch(), tmp_path)
    with pytest.raises(ZeroDivisionError):
        hostile.judge_input(0, lambda number, _: 1 / number, tmp_path)


def test_store_survives_every_fault_of_the_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with storage.object_store(faults=8, probability=0.6) as (sound, faulty, application):
        for number in range(30):
            Store(faulty).write_text(f"{number}", f"text {number}")
            assert Store(sound).read_text(f"{number}") == f"text {number}"
        assert sum(application.counts.values()) == 8


def test_of_two_drivers_at_the_same_moment_one_has_the_study(tmp_path: Path) -> None:
    outcome = drivers.race_drivers(tmp_path, 7)
    assert outcome.is_met, outcome


def test_no_port_answers_without_the_token() -> None:
    outcome = ports.probe_ports()
    assert outcome.is_met, outcome
    assert outcome.injected >= 6


def test_faults_leave_a_slow_machine_the_time_of_its_epochs(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    events = (
        ("start", 1, 0.0),
        ("start", 2, 1.0),
        ("epoch", 1, 4.0),
        ("epoch", 2, 7.0),
        ("epoch", 1, 9.0),
        ("start", 3, 9.5),
    )
    lines = ({"event": e, "pid": p, "time": t, "trial": f"trials/{p}", "attempt": 1} for e, p, t in events)
    (tmp_path / LOG_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert campaign.epoch_seconds() == [4.0, 6.0, 5.0]


def test_a_driver_that_prints_much_does_not_wait_for_the_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "prints-much"
    program.write_text("#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\0' x\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    campaign = Campaign(tmp_path)
    assert campaign.start().wait(20) == 0
    assert campaign.end() == (0, "x" * 200_000)


def test_a_driver_is_waited_for_as_long_as_its_trials_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = '{"event": "epoch", "pid": 1, "time": 0.0, "trial": "trials/1", "attempt": 1}'
    program = tmp_path / "goes-on"
    program.write_text(f"#!/bin/sh\nfor i in 1 2 3 4; do echo '{line}' >> {tmp_path / LOG_NAME}; sleep 0.5; done\n$1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    campaign = Campaign(tmp_path)
    campaign.start()
    assert campaign.end(1.0)[0] == 127, "the shell knows no command -m"
    program.write_text(program.read_text().replace("$1", "exec sleep 60"))
    campaign.start()
    with pytest.raises(subprocess.TimeoutExpired):
        campaign.end(1.0)
    campaign.kill_driver()


class OpenPort(http.server.BaseHTTPRequestHandler):
    """Answers every request, as Ray's exporters of metrics do."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"# HELP metrics")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_a_port_that_answers_everybody_is_found(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenPort) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        replies = ports.probe_port(f"127.0.0.1:{server.server_port}", "open", tmp_path / "marker")
        server.shutdown()
    accepted = {(r.header, r.request) for r in replies if r.answer.startswith("accepted")}
    for header in ("no token", "wrong token"):
        assert {(header, "GET /metrics"), (header, "POST /api/jobs/")} <= accepted

"""`study sync`: the trials of a study in MLflow or trackio, equal to its records, however often and wherever it was stopped.

A run of the tracker is a trial, or the study as a whole. It is known by a key, and skipped where the digest of its content is
the one that is kept with it, which is written last.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from rich.console import Console

from analysis.comparison.tables import build_table_rows, format_row
from analysis.report.summary import summarize
from search_spaces.errors import UserInputError, list_some
from search_spaces.extensions import import_extra, refusing
from study.cli_options import TrackerName
from study.open_study import OpenStudy, load_study
from study.results.optuna_export import hide_password
from study.results.stored_findings import load_findings, load_rounds
from study.state import paths
from study.state.lease import read_holder
from study.views.printing import print_line
from study.views.status import study_state
from trainables.records.record import TrialRecord, TrialState
from trainables.storage.store import StorageError, Store

SECONDS_BETWEEN = 15.0
# Of a run of the tracker: what it is, and what it holds.
KEY, DIGEST = "abstudy.key", "abstudy.digest"
# Of the study as a whole, where they exist.
TEXTS = (paths.SPEC, paths.REPORT_MARKDOWN, paths.REPORT_HTML, paths.COMPARISON_CSV)
# Metrics of one request to MLflow, which has at most 1,000 with the tags.
MOST_METRICS = 800
# MLflow's words for the states of a trial.
STATUS = {"RUNNING": "RUNNING", "COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAILED": "FAILED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A trial, or the study as a whole, as a tracker is to hold it.

    Attributes:
        key: that no other run has, in any study.
        name: for people.
        state: of the trial; RUNNING for a study without a report.
        started: Unix time in seconds.
        ended: the same; None while it runs.
        params: the hyperparameters.
        tags: everything else in words.
        points: epoch, its Unix time in seconds, and its measurements by tag; None for a number that was not finite.
        texts: content of files by name.
    """

    key: str
    name: str
    state: TrialState
    started: float
    ended: float | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[tuple[int, float, dict[str, float | None]], ...] = ()
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """32 hex digits of SHA-256 over the content."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def sync_study(store: Store, to: TrackerName, console: Console, *, follow: bool) -> None:
    """Make a tracker's runs equal to the records of a study, and print how many were written.

    Args:
        store: the study, of which nothing is written and no lease is taken.
        to: the tracker.
        console: receives a line each time that runs were written.
        follow: whether to go on while a process drives the study; what fails then is said, and tried again.

    Raises:
        UserInputError: if the tracker is not installed, is another version, or cannot be reached.
    """
    name = load_study(store).name
    with refusing(lambda reason: f"{to} cannot be used: {reason}; check that it is there and may be written"):
        tracker = MlflowTracker(name) if to is TrackerName.MLFLOW else TrackioTracker(name)
    while True:
        # Before the records are read, so that those of a driver that ends meanwhile are read once more.
        is_driven = follow and read_holder(store) is not None
        try:
            written, total = write_changes(load_study(store), tracker)
        except (UserInputError, StorageError) as error:
            if not is_driven:
                raise
            print_line(str(error), console)
        else:
            if written or not is_driven:
                print_line(f"{tracker.place}: {written} runs written, {total - written} unchanged", console)
        if not is_driven:
            return
        time.sleep(SECONDS_BETWEEN)


def write_changes(study: OpenStudy, tracker: "MlflowTracker | TrackioTracker") -> tuple[int, int]:
    """Write the runs whose digest is not the tracker's; return how many these are, and how many there are in all."""
    runs = list(list_tracked(study))
    with refusing(lambda reason: f"{tracker.place} failed: {reason}; run `study sync` again, which goes on"):
        digests = tracker.read_digests()
        changed = [run for run in runs if digests.get(run.key) != run.digest]
        for run in changed:
            tracker.write(run)
    return len(changed), len(runs)


def list_tracked(study: OpenStudy) -> Iterator[TrackedRun]:
    """Yield a run per trial, then that of the study; none before the first trial."""
    records = list(study.book)
    if not records:
        return
    # The start tells apart what was launched twice from one spec.
    started = min(record.started for record in records)
    launch = b"".join(study.store.read_bytes(name) for name in (paths.SPEC, paths.PASSPORT)) + started.encode()
    identity = hashlib.sha256(launch).hexdigest()[:16]
    for record in records:
        yield track_trial(record, identity)
    yield _track_study(study, f"{identity}/study", started, max(record.ended for record in records))


def track_trial(record: TrialRecord, identity: str) -> TrackedRun:
    """Return the run of a trial of the study with this digest.

    The time of an epoch is the trial's start and the device-seconds up to then, per device that it holds.
    """
    config, started, name = record.config, _read_time(record.started), f"{record.stage}/{record.trial_id}"
    points = tuple((e.epoch, started + e.device_seconds / record.devices_per_trial, e.scalars) for e in record.epochs)
    missing = [f"{tag} at epoch {epoch}" for epoch, _, values in points for tag, x in values.items() if x is None]
    if points and record.confirm_macro_f1 is not None:
        points[-1][2]["macro_f1/confirm"] = record.confirm_macro_f1
    tags = {"study": identity, "arm": config.arm, "seed": config.seed, "fold": config.fold}
    kept = ("stage", "trial_id", "source_trial_id", "state", "reason", "device")
    tags |= {field: getattr(record, field) for field in kept} | {"not_finite": list_some(missing)}
    return TrackedRun(
        key=f"{identity}/{name}/{config.seed}",
        name=name,
        state=record.state,
        started=started,
        ended=_read_time(record.ended) if record.ended else None,
        params={key: str(value) for key, value in config.hyperparameters.items()},
        tags={key: str(value) for key, value in tags.items() if value != ""},
        points=points,
    )


def _track_study(study: OpenStudy, key: str, started: str, ended: str) -> TrackedRun:
    state = study_state(study)
    is_reported, tags = state == "reported", {"study": key.partition("/")[0], "stage": "study", "state": state}
    if study.store.exists(paths.FINDINGS):
        found = load_findings(study)
        # MLflow takes no commas in the names of tags.
        tags |= {q.replace(",", ""): a for q, a in summarize(found, build_table_rows(found.rows), load_rounds(study))}
        tags |= {f"verdict {number}": format_row(row) for number, row in enumerate(found.rows, start=1)}
    return TrackedRun(
        key=key,
        name=study.name,
        state=TrialState.COMPLETE if is_reported else TrialState.RUNNING,
        started=_read_time(started),
        ended=_read_time(ended) if is_reported else None,
        params={},
        tags=tags,
        texts={name: study.store.read_text(name) for name in TEXTS if study.store.exists(name)},
    )


def _finite(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(tag, value) for tag, value in values.items() if value is not None]


def _read_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class MlflowTracker:
    """The runs of the experiment with the study's name, where $MLFLOW_TRACKING_URI or MLflow's default is."""

    def __init__(self, study: str) -> None:
        # MLflow would try for minutes to reach a server that is not there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        self._mlflow = import_extra("mlflow", "3.")
        self._client = self._mlflow.MlflowClient()
        self.place = hide_password(self._client.tracking_uri)
        found = self._client.get_experiment_by_name(study)
        self._experiment = self._client.create_experiment(study) if found is None else found.experiment_id

    def read_digests(self) -> dict[str, str]:
        """Return the digest of each run by its key; of two with one key, made by two calls at a time, one is deleted."""
        self._runs: dict[str, Any] = {}
        for run in self._mlflow.search_runs([self._experiment], output_format="list"):
            if (key := run.data.tags.get(KEY)) in self._runs:
                self._client.delete_run(run.info.run_id)
            elif key:
                self._runs[key] = run
        return {key: run.data.tags.get(DIGEST, "") for key, run in self._runs.items()}

    def write(self, run: TrackedRun) -> None:
        """Add what the run lacks; one with other metrics than the records, which cannot be changed, is replaced."""
        entities, found = self._mlflow.entities, cast(Any, self._runs.get(run.key))
        wanted = {(tag, x, round(1000 * at), step) for step, at, values in run.points for tag, x in _finite(values)}
        logged = set() if found is None else self._read_metrics(found)
        if found is not None and not logged <= wanted:
            self._client.delete_run(found.info.run_id)
            found, logged = None, set()
        if found is None:
            start, tags = round(1000 * run.started), {KEY: run.key}
            found = self._client.create_run(self._experiment, start_time=start, tags=tags, run_name=run.name)
        run_id, new = found.info.run_id, [entities.Metric(*metric) for metric in sorted(wanted - logged)]
        while len(new) > MOST_METRICS:
            self._client.log_batch(run_id, metrics=new[:MOST_METRICS])
            del new[:MOST_METRICS]
        for name, text in run.texts.items():
            self._client.log_text(run_id, text, name)
        if run.ended is None:
            self._client.update_run(run_id, status=STATUS[run.state])
        else:
            self._client.set_terminated(run_id, STATUS[run.state], round(1000 * run.ended))
        params = [entities.Param(*param) for param in run.params.items()]
        words = [entities.RunTag(*tag) for tag in {**run.tags, DIGEST: run.digest}.items()]
        self._client.log_batch(run_id, metrics=new, params=params, tags=words)

    def _read_metrics(self, found: Any) -> set[tuple[str, float, int, int]]:
        histories = (self._client.get_metric_history(found.info.run_id, tag) for tag in found.data.metrics)
        return {(one.key, one.value, one.timestamp, one.step) for history in histories for one in history}


class TrackioTracker:
    """The runs of the project with the study's name, in the folder $TRACKIO_DIR or trackio's default."""

    def __init__(self, study: str) -> None:
        self._trackio = import_extra("trackio", "0.43.")
        self._storage = self._trackio.sqlite_storage.SQLiteStorage
        self._storage.validate_project_name(study)
        self._project, self._known = study, dict[str, str]()
        self.place = str(self._storage.init_db(study))

    def read_digests(self) -> dict[str, str]:
        """Return the digest of each run by its key."""
        configs = self._storage.get_all_run_configs(self._project)
        self._known = {key: config[DIGEST] for key, config in configs.items() if DIGEST in config}
        return self._known

    def write(self, run: TrackedRun) -> None:
        """Replace the run: its metrics and its configuration are added in one transaction."""
        if run.key in self._known and not self._storage.delete_run(self._project, run.name, run_id=run.key):
            raise OSError(f"run {run.name} could not be replaced")
        # A run without a line of metrics would not be shown.
        markdown = {n: self._trackio.Markdown(x)._to_dict() for n, x in run.texts.items() if n.endswith(".md")}
        points = run.points or ((0, run.started, markdown),)
        spec = {name: text for name, text in run.texts.items() if name == paths.SPEC}
        self._storage.bulk_log(
            project=self._project,
            run=run.name,
            run_id=run.key,
            metrics_list=[dict(_finite(values)) for _, _, values in points],
            steps=[step for step, _, _ in points],
            timestamps=[datetime.fromtimestamp(at, UTC).isoformat() for _, at, _ in points],
            config={**run.params, **run.tags, **spec, DIGEST: run.digest},
        )

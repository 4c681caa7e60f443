"""`TrialWorker`: trains trials in one process, one after the other, and stores what they leave, epoch by epoch.

A new attempt of a trial, started by a retry or by `study resume`, loads the last checkpoint from the trial's folder, reports the
checkpoint's epochs beyond `num_reported_epochs` again, and continues training. Checkpoints are written while the next epoch
trains, so that those epochs may be fewer than were reported; the others are trained and reported again. Where the worker listens
for SIGTERM, which announces that a machine is taken away, it interrupts the epoch between two steps, stores a checkpoint and
exits.
"""

import gc
import platform
import shutil
import signal
import tempfile
import threading
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from sklearn.metrics import confusion_matrix

from search_spaces.config import TrialConfig
from trainables.damaged_files import DamagedFileError
from trainables.devices import choose_device, describe_libraries, device_name, explaining_device_memory
from trainables.processes import prepare_to_train
from trainables.records.record import EpochReport
from trainables.records.trial_files import CheckpointWriter, TrialFiles
from trainables.storage.store import Store
from trainables.training.epoch_metrics import EpochMetrics
from trainables.training.evaluation import compute_mean_f1, noting_operations
from trainables.training.loop import TrainingRun
from trainables.training.trial_cost import make_run
from trainables.training.trial_data import ResidentImages, TrialData, limit_memory
from trainables.training.trial_run import EpochInterrupted
from trainables.trial_settings import TrialSettings

# Only confirmation trials predict this split.
CONFIRM = "confirm"
# An event file is uploaded whole to an object store: after the first epoch, so often, and at the trial's end.
EVENT_SECONDS = 60.0


class TrialWorker:
    """One trial, which reports epoch by epoch; `reset_config` turns to another trial.

    `setup`, `reset_config` and `cleanup` have the names of Ray Tune's class API, in which `trainables.tune_adapter` puts it.
    """

    _failed_start: Exception | None = None

    def setup(self, config: dict[str, Any], data: TrialData | None = None, settings: Any = None) -> None:
        """Start an attempt of the trial in `config`.

        Args:
            config: trial_id, folder (below the study's root), network_folder (of a trial whose network is the same, "" for none),
                config_json (`TrialConfig.canonical_json`), num_cpus, num_gpus, num_threads, num_reported_epochs,
                splits_to_predict.
            data: The study's images and splits.
            settings: `TrialSettings`.
        """
        assert data is not None
        self.prepare(data, settings)
        self._start(config)

    def prepare(self, data: TrialData, settings: TrialSettings) -> None:
        """Take what all trials of the study share, before the first one starts."""
        # Not at the top: the process that starts trials imports this module too, and needs no TensorBoard and no Matplotlib.
        from trainables.records.event_log import EventLog

        self._make_events = EventLog
        self._data = data
        self._settings = settings
        self._resident = ResidentImages()
        self._events: EventLog | None = None
        self._upload_from: Path | None = None
        self._open = ExitStack()
        self._should_exit = False
        self._is_in_step = False
        self.listen_for_notice()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start an attempt of another trial in the same process; what goes wrong is raised by the first step.

        Tune neither counts nor reports an error of this method, and would start the trial again without end.
        """
        self.cleanup()
        self._failed_start = None
        try:
            self._start(new_config)
        except Exception as error:
            self._failed_start = error
        return True

    def _start(self, config: dict[str, Any]) -> None:
        self._counted_until = time.perf_counter()
        num_gpus, num_threads = float(config["num_gpus"]), int(config["num_threads"])
        self._num_gpus = num_gpus
        self._num_devices = num_gpus or float(config["num_cpus"])
        prepare_to_train(num_threads)
        self._trial_config = TrialConfig.from_json(config["config_json"])
        self._folder = str(config["folder"])
        self._splits_to_predict = tuple(config["splits_to_predict"])
        self._files = TrialFiles(Store(self._settings.study_uri).child(self._folder))
        self._attempt = self._files.read_num_attempts()
        self._writer = CheckpointWriter(self._files, self._attempt, self._settings.checkpoint_seconds)
        self._open.callback(self._writer.close)
        checkpoint, damages = self._files.read_checkpoint()
        self._notes: dict[str, None] = dict.fromkeys(damages)
        device = choose_device(self._settings.device, num_gpus)
        # The model of the trial before is freed, so that the next one finds its memory free.
        if self.__dict__.pop("_run", None) is not None and device.type == "cuda":
            gc.collect()
        self._resident.num_gpus = num_gpus or 1.0
        with self._explaining_memory(device):
            limit_memory(device, num_gpus)
            self._run = make_run(
                self._trial_config,
                self._data,
                device=device,
                weights=self._settings.weights,
                checkpoint=checkpoint,
                profile=self._settings.profile,
                place=self._resident.place,
            )
            self._open.callback(self._run.close)
            if checkpoint is None and config["network_folder"]:
                self._take_over(config["network_folder"])
        self._num_reported = min(int(config["num_reported_epochs"]), self._run.epoch)
        self._idle_since = time.perf_counter()
        self._run.stopwatch.add("start", self._idle_since - self._counted_until)

    def _take_over(self, folder: str) -> None:
        """Take the network of another trial, so that the head alone is fitted; where it is damaged, train one."""
        assert isinstance(self._run, TrainingRun)
        try:
            trained = TrialFiles(Store(self._settings.study_uri).child(folder)).read_trained()
        except (DamagedFileError, FileNotFoundError) as error:
            self._notes[f"the network of {folder} could not be used, and was trained anew: {error}"] = None
            return
        self._run.take_over(*trained)
        self._notes[f"the network is that of {folder}, which differs in model.head_refit alone"] = None

    def report_epoch(self) -> EpochReport:
        """Train, evaluate, store and report one epoch, or report an epoch that the checkpoint already contains."""
        if self._failed_start is not None:
            raise self._failed_start
        self._is_in_step = True
        self._run.stopwatch.add("idle", time.perf_counter() - self._idle_since)
        held = self._run.history
        metrics = held[self._num_reported] if self._num_reported < len(held) else self._run_epoch()
        self._num_reported += 1
        results: dict[str, Any] = {}
        if self._run.is_finished and self._num_reported == len(self._run.history):
            results = self._finish()
        if metrics.divergence and CONFIRM in self._splits_to_predict:
            results = self._store_last_finite()
        if "digests" in results:  # predicting and writing took time, in which the attempt may have ended
            self._files.check_attempt(self._attempt)
        now = time.perf_counter()
        device_seconds = (now - self._counted_until) * self._num_devices
        self._counted_until = self._idle_since = now
        self._is_in_step = False
        # Those that were measured outside of the training run too.
        seconds = {**dict(metrics.part_seconds), **self._run.stopwatch.take()}
        return EpochReport(
            metrics=metrics.model_copy(update={"part_seconds": tuple(seconds.items())}),
            device_seconds=device_seconds,
            device=device_name(self._run.device),
            libraries=describe_libraries(self._run.device),
            images_on=self._run.images_on,
            node=self.node_name(),
            num_parameters=self._run.num_parameters,
            num_threads=torch.get_num_threads(),
            devices_per_trial=self._num_devices,
            notes=tuple(self._notes),
            **results,
        )

    def _run_epoch(self) -> EpochMetrics:
        try:
            with self._explaining_memory(self._run.device), noting_operations(self._notes):
                metrics = self._run.run_epoch(should_stop=lambda: self._should_exit)
        except EpochInterrupted:
            self._writer.write(self._run.checkpoint())
            self._end()
        with self._run.stopwatch.part("report"):
            self._write_events(metrics)
        with self._run.stopwatch.part("checkpoint"):
            self._keep_state(metrics)
        if self._should_exit:
            self._end()
        return metrics

    def _keep_state(self, metrics: EpochMetrics) -> None:
        """Start to write a checkpoint if one is due or the process is about to exit.

        A state that diverged is not kept: another attempt would diverge again. Of a trial that may be confirmed, the state before
        it is, whether one was due or not.
        """
        if metrics.divergence:
            self._writer.flush()
        elif self._should_exit or self._writer.is_due:
            self._writer.write(self._run.checkpoint())
        elif CONFIRM in self._splits_to_predict:
            self._writer.hold(self._run.checkpoint())

    def node_name(self) -> str:
        """Return the host of this process."""
        return platform.node()

    def listen_for_notice(self) -> None:
        """On SIGTERM exit only after the current state is stored."""
        if threading.current_thread() is not threading.main_thread():
            return

        def take_notice(*_: object) -> None:
            self._should_exit = True
            if not self._is_in_step:
                self._end()

        signal.signal(signal.SIGTERM, take_notice)

    def _end(self) -> NoReturn:
        self.cleanup()
        raise SystemExit("the process was terminated by SIGTERM; the trial's checkpoint holds its state")

    def cleanup(self) -> None:
        """Close the event file and the writer of checkpoints."""
        self._open.close()
        if self._events is not None:
            self._events.close()
            self._upload_events()
            if self._upload_from is not None:
                shutil.rmtree(self._upload_from)
            self._events = None

    def _explaining_memory(self, device: torch.device) -> AbstractContextManager[None]:
        return explaining_device_memory(self._trial_config, device, self._num_gpus)

    def _finish(self) -> dict[str, Any]:
        """Store the final weights and predictions; return the record's fields about them.

        A trial that diverged in its last epoch stores nothing.
        """
        if not self._run.history[-1].is_finite:
            return {}
        self._writer.wait()
        self._files.check_attempt(self._attempt)
        # A trial of a fold has trained on the images of these splits.
        splits = () if self._trial_config.fold else self._splits_to_predict
        results: dict[str, Any] = {"predictions": splits}
        digests: dict[str, str] = {}
        num_classes = len(self._data.class_names)
        for split in splits:
            with self._explaining_memory(self._run.device):
                predictions = self._run.predict(split)
            digests |= self._files.write_predictions(predictions, self._attempt)
            if split == CONFIRM:
                results["confirm_macro_f1"] = compute_mean_f1(predictions.labels, predictions.predicted, num_classes)
            if split == "search" and self._events is not None:
                counts = confusion_matrix(predictions.labels, predictions.predicted, labels=range(num_classes))
                self._events.write_confusion(counts, self._run.epoch)
                self._upload_events()
        digests |= self._files.write_weights(self._run.state_dict(), self._attempt)
        return results | {"digests": digests}

    def _store_last_finite(self) -> dict[str, Any]:
        """Store the weights of the last finite checkpoint of a trial that diverged, by which the comparison scores it.

        Returns:
            The record's fields about them; epoch 0 where no epoch was finite.
        """
        checkpoint = self._files.read_finite_checkpoint()
        if checkpoint is None:
            return {"last_finite_epoch": 0}
        self._files.check_attempt(self._attempt)
        digests = self._files.write_weights(self._run.complete_state(checkpoint.evaluated_state), self._attempt)
        return {"last_finite_epoch": checkpoint.epoch, "digests": digests}

    def _write_events(self, metrics: EpochMetrics) -> None:
        if self._events is None:
            store = self._files.store
            self._uploaded = -EVENT_SECONDS
            self._upload_from = None if store.is_local else Path(tempfile.mkdtemp(prefix="abstudy-events-"))
            folder, space = self._upload_from or store.local_path, self._settings.space
            self._events = self._make_events(folder, self._trial_config, self._folder, self._data, space, metrics.epoch)
            if metrics.epoch == 1 and isinstance(self._run, TrainingRun):
                self._events.write_batch(self._run.preview_batch())
        self._events.write_epoch(metrics)
        if time.monotonic() - self._uploaded >= EVENT_SECONDS:
            self._upload_events()

    def _upload_events(self) -> None:
        if self._upload_from is None:
            return
        self._uploaded = time.monotonic()
        for path in self._upload_from.iterdir():
            self._files.store.write_bytes(path.name, path.read_bytes())

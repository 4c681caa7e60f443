"""One recorded training, in a process of its own: a module apart, which such a process can import."""

import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from search_spaces.config import TrialConfig
from study.inputs.preparation import Prepared, prepare
from study.spec.study_spec import StudySpec
from trainables.training.loop import TrainingRun


@cache
def _prepare(spec_json: str) -> Prepared:
    torch.set_num_threads(1)
    return prepare(StudySpec.model_validate_json(spec_json))


def record_curve(config: TrialConfig, spec: StudySpec, log: Path) -> None:
    """Train one configuration to the end, or until it diverges; log it with the CPU seconds of its one thread."""
    prepared = _prepare(spec.model_dump_json(exclude_none=True))
    started = time.process_time()
    run = TrainingRun(config, prepared.data, device=torch.device("cpu"), weights=prepared.weights)
    _write_line(config, list(_run_epochs(run, config.whole("max_epochs"), started)), log)


def _run_epochs(run: TrainingRun, last: int, started: float) -> Iterator[dict[str, Any]]:
    """Train until `last` epochs are finished, or the run diverges, and yield what is recorded of each."""
    while run.epoch < last:
        metrics = run.run_epoch()
        now = time.process_time()
        values = {name: getattr(metrics, name) for name in ("macro_f1", "train_loss", "search_loss")}
        finite = values if metrics.is_finite else dict.fromkeys(values)
        yield {"epoch": metrics.epoch, **finite, "cpu_seconds": now - started}
        started = now
        if not metrics.is_finite:
            return


def _write_line(config: TrialConfig, epochs: list[dict[str, Any]], log: Path) -> None:
    line = json.dumps({"fingerprint": config.fingerprint, "config": config.to_dict(), "epochs": epochs})
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")

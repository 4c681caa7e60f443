"""Record whole learning curves, without pruning, of configurations spread evenly over a study's space.

    python -m benchmarks.search.record_curves --set data.source=parquet --set data.path=... --set model.weights=...

Configurations are a Latin hypercube per arm (`scipy.stats.qmc`). A run that is stopped goes on where it was: every finished
trial is a line of WORK/curves.jsonl. At the end all lines become one parquet file, one row per trial and epoch.
"""

import json
import math
import multiprocessing
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from scipy.stats import qmc

from search_spaces.config import TrialConfig, Value
from search_spaces.space import CategoricalParameter, FloatParameter, IntParameter, Parameter, SearchSpace
from study.inputs.preparation import Prepared, prepare
from study.spec.reading import load_spec
from study.spec.study_spec import StudySpec
from trainables.seeds import derive_seed
from trainables.training.loop import TrainingRun

CURVES = Path(__file__).parent / "curves"
PARQUET = CURVES / "cifar10_small.parquet"
MADE = b"abstudy.made"

_prepared: Prepared


def make_configs(spec: StudySpec, fixed: dict[str, Value], num_per_arm: int) -> list[TrialConfig]:
    """Return `num_per_arm` configurations of every arm, evenly spread over its space, arms alternating."""
    columns = []
    for arm in spec.arms():
        seed = derive_seed(spec.seed, "recording", arm.name) % 2**32
        points = qmc.LatinHypercube(len(arm.space.parameters), rng=seed).random(num_per_arm)
        columns.append(
            [
                TrialConfig(
                    arm=arm.name,
                    seed=derive_seed(spec.seed, "recording", arm.name, index) % 2**31,
                    hyperparameters=_place_in_space(arm.space, point),
                    fixed=fixed,
                )
                for index, point in enumerate(points)
            ]
        )
    return [config for row in zip(*columns, strict=True) for config in row]


def _place_in_space(space: SearchSpace, point: np.ndarray) -> dict[str, Value]:
    chosen: dict[str, Value] = dict(space.fixed)
    for parameter, u in zip(space.parameters, point, strict=True):
        if parameter.condition is None or parameter.condition.holds(chosen):
            chosen[parameter.name] = _quantile(parameter, float(u))
    return chosen


def _quantile(parameter: Parameter, u: float) -> Value:
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[int(u * len(parameter.choices))]
    if isinstance(parameter, IntParameter):
        return parameter.low + int(u * (parameter.high - parameter.low + 1))
    assert isinstance(parameter, FloatParameter)
    if parameter.log:
        return math.exp(math.log(parameter.low) + u * math.log(parameter.high / parameter.low))
    return parameter.low + u * (parameter.high - parameter.low)


def _start_worker(spec: StudySpec) -> None:
    global _prepared
    torch.set_num_threads(1)
    _prepared = prepare(spec)


def _record_curve(config_json: str) -> dict[str, Any]:
    """Train one configuration to the end, or until it diverges; seconds are CPU seconds of one thread."""
    config = TrialConfig.from_json(config_json)
    started = time.process_time()
    run = TrainingRun(config, _prepared.data, device=torch.device("cpu"), weights=_prepared.weights)
    epochs = []
    while not run.is_finished:
        metrics = run.run_epoch()
        now = time.process_time()
        epochs.append(
            {
                "epoch": metrics.epoch,
                "macro_f1": metrics.macro_f1 if metrics.is_finite else None,
                "train_loss": metrics.train_loss if metrics.is_finite else None,
                "search_loss": metrics.search_loss if metrics.is_finite else None,
                "cpu_seconds": now - started,
            }
        )
        started = now
        if not metrics.is_finite:
            break
    return {"fingerprint": config.fingerprint, "config": config.to_dict(), "epochs": epochs}


def _finished(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def write_parquet(lines: list[dict[str, Any]], made: dict[str, Any], path: Path) -> None:
    """Write one row per trial and epoch, with how it was made in the file's metadata."""
    rows = [
        {"trial": number, "arm": line["config"]["arm"], "seed": line["config"]["seed"]}
        | line["config"]["hyperparameters"]
        | epoch
        for number, line in enumerate(lines)
        for epoch in line["epochs"]
    ]
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    metadata = {**(table.schema.metadata or {}), MADE: json.dumps(made).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def main(
    spec: str = str(CURVES / "cifar10_small.toml"),
    overrides: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    num_per_arm: int = 80,
    workers: int = 2,
    work: Path = Path("studies/curves"),
    output: Path = PARQUET,
) -> None:
    """Train what is missing, then write the parquet file."""
    loaded, _ = load_spec(spec, overrides or [])
    prepared = prepare(loaded)
    configs = make_configs(loaded, prepared.fixed, num_per_arm)
    work.mkdir(parents=True, exist_ok=True)
    log = work / "curves.jsonl"
    done = {line["fingerprint"]: line for line in _finished(log)}
    missing = [c for c in configs if c.fingerprint not in done]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(loaded,)) as pool,
        log.open("a", encoding="utf-8") as file,
    ):
        futures = [pool.submit(_record_curve, c.canonical_json()) for c in missing]
        for future in as_completed(futures):
            line = future.result()
            done[line["fingerprint"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
            last = line["epochs"][-1]
            print(f"{len(done)}/{len(configs)} {line['config']['arm']} {last['macro_f1']} {last['epoch']}", flush=True)
    made = {
        "spec": Path(spec).read_text(encoding="utf-8"),
        "images": prepared.splits.fingerprint,
        "weights": prepared.fixed["weights"],
        "torch": version("torch"),
        "machine": platform.processor() or platform.machine(),
    }
    write_parquet([done[c.fingerprint] for c in configs], made, output)
    print(f"{output}: {len(configs)} trials, {output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    typer.run(main)

"""Record whole learning curves, without pruning, of configurations spread evenly over a study's space.

    python -m benchmarks.search.record_curves --set data.source=parquet --set data.path=... --set model.weights=...

Configurations are a Latin hypercube per arm (`scipy.stats.qmc`). Every finished trial is a line of WORK/curves.jsonl, so that an
interrupted recording can be continued; in the end all lines become one parquet file, one row per trial and epoch. With --hours no
trial starts after that time, and the file says how many of the trials it has. A later recording goes on with the trials of that
file, also on another machine, where it has the same images and weights.
"""

import json
import math
import platform
import time
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from scipy.stats import qmc

from benchmarks.parallel import run_parallel
from benchmarks.search.recorded_trial import record_curve
from benchmarks.search.replay_curves import CURVES, MADE, PARQUET, place_in_space
from search_spaces.config import TrialConfig, Value
from study.inputs.preparation import prepare
from study.spec.reading import load_spec
from study.spec.study_spec import StudySpec
from trainables.seeds import derive_seed

# Columns of an epoch.
MEASURED = ("epoch", "macro_f1", "train_loss", "search_loss", "cpu_seconds")


def make_configs(spec: StudySpec, fixed: dict[str, Value], num_per_arm: int) -> list[TrialConfig]:
    """Return `num_per_arm` configurations of every arm, evenly spread over its space, arms alternating.

    Args:
        spec: of the study.
        fixed: `TrialConfig.fixed` of its trials.
        num_per_arm: how many.
    """
    points = {}
    for arm in spec.arms():
        seed = derive_seed(spec.seed, "recording", arm.name) % 2**32
        points[arm.name] = qmc.LatinHypercube(len(arm.space.parameters), rng=seed).random(num_per_arm)
    return [
        TrialConfig(
            arm=arm.name,
            seed=derive_seed(spec.seed, "recording", arm.name, index) % 2**31,
            hyperparameters=place_in_space(arm.space, points[arm.name][index]),
            fixed=fixed,
        )
        for index in range(num_per_arm)
        for arm in spec.arms()
    ]


def _read_log(log: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return {line["fingerprint"]: line for line in lines}


def _read_file(path: Path, configs: Sequence[TrialConfig], made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the lines of the trials that a file has already.

    Raises:
        typer.BadParameter: if it is of another spec, of other images or weights, or has other configurations.
    """
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    kept = json.loads(table.schema.metadata[MADE])
    is_same = all(kept.get(name) == made[name] for name in ("images", "weights"))
    # The first recordings have the text of the spec alone, and keep it so: what was overridden is not known.
    settings = "settings" if "settings" in kept else "spec"
    if settings == "spec":
        made.pop("settings")
    if not is_same or _read_settings(kept[settings]) != _read_settings(made[settings]):
        raise typer.BadParameter(
            f"{path} has curves of another spec, other images or other weights; give another --output"
        )
    lines = {}
    for number, rows in table.to_pandas().groupby("trial"):
        config = configs[int(number)] if int(number) < len(configs) else None
        first = rows.iloc[0]
        if config is None or (first["seed"], first["max_lr"]) != (config.seed, config.hyperparameters["max_lr"]):
            raise typer.BadParameter(f"{path} has other configurations; give its --num-per-arm, or another --output")
        measured = rows[list(MEASURED)].astype(object)
        epochs = measured.where(measured.notna(), None).to_dict(orient="records")
        lines[config.fingerprint] = {"config": config.to_dict(), "epochs": epochs}
    return lines


def _read_settings(text: str) -> dict[str, Any]:
    """Return the settings of a spec but for where images and weights are, which are compared themselves."""
    settings = tomllib.loads(text)
    for name in ("source", "path"):
        settings.get("data", {}).pop(name, None)
    settings.get("model", {}).pop("weights", None)
    return settings


def write_parquet(lines: Mapping[int, dict[str, Any]], made: dict[str, Any], path: Path) -> None:
    """Write one row per trial, by number, and epoch, and their origin, `made`, in the file's metadata."""
    rows = [
        {"trial": number, "arm": line["config"]["arm"], "seed": line["config"]["seed"]}
        | line["config"]["hyperparameters"]
        | epoch
        for number, line in lines.items()
        for epoch in line["epochs"]
    ]
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    metadata = {**(table.schema.metadata or {}), MADE: json.dumps(made).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def main(
    spec: str = str(CURVES / "cifar10_small.toml"),
    overrides: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    num_per_arm: int = 80,
    work: Path = Path("studies/curves"),
    output: Path = PARQUET,
    hours: Annotated[float, typer.Option(help="After which no trial starts.")] = math.inf,
) -> None:
    """Train the missing configurations, then write the parquet file."""
    until = time.monotonic() + 3600 * hours
    loaded, text = load_spec(spec, overrides or [])
    prepared = prepare(loaded)
    configs = make_configs(loaded, prepared.fixed, num_per_arm)
    work.mkdir(parents=True, exist_ok=True)
    log = work / "curves.jsonl"
    made = {
        "spec": Path(spec).read_text(encoding="utf-8"),
        "settings": text,
        "images": prepared.splits.fingerprint,
        "weights": prepared.fixed["weights"],
        "torch": version("torch"),
        "machine": platform.processor() or platform.machine(),
    }
    before = _read_file(output, configs, made)
    missing = [config for config in configs if config.fingerprint not in {**before, **_read_log(log)}]
    run_parallel(record_curve, ((config, loaded, log) for config in missing if time.monotonic() < until))
    done = {**before, **_read_log(log)}
    found = {number: done[c.fingerprint] for number, c in enumerate(configs) if c.fingerprint in done}
    if not found:
        raise typer.BadParameter(f"no trial was recorded within {hours:g} hours; give more")
    made["trials"] = f"{len(found)} of {len(configs)}"
    write_parquet(found, made, output)
    print(f"{output}: {made['trials']} trials, {output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    typer.run(main)

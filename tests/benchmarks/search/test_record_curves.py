"""A recording goes on where it was stopped, and a part of it is a file that says so."""

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import typer

from benchmarks.search import record_curves
from benchmarks.search.replay_curves import CURVES, MADE, load_curves
from study.spec.reading import load_spec

SPEC = """
name = "few"
data = { source = "planted", num_images = 400 }
model = { weights = "none" }
train = { image_size = 16, batch_size = 32 }
search = { factor = "interpolation", max_epochs = 2, fixed = { backbone = "resnet18", class_weighting = "none" } }
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that records in this process, and returns the origin of the file and the arms of its trials."""
    (tmp_path / "few.toml").write_text(SPEC)

    def call(most: int, **options: Any) -> dict[str, Any]:
        def run(function: Callable[..., None], calls: Iterable[tuple[Any, ...]]) -> None:
            for arguments in itertools.islice(calls, most):
                function(*arguments)

        monkeypatch.setattr(record_curves, "run_parallel", run)
        output = tmp_path / "few.parquet"
        given = {"num_per_arm": 2, "work": tmp_path / "work", "output": output, **options}
        record_curves.main(str(tmp_path / "few.toml"), **given)
        made: dict[str, Any] = json.loads(pq.read_table(output).schema.metadata[MADE])
        arms = load_curves(output).arms
        return {**made, "arms": {name: curves.macro_f1.shape for name, curves in arms.items()}}

    return call


def test_a_stopped_recording_is_a_file_and_goes_on(tmp_path: Path, record: Callable[..., dict[str, Any]]) -> None:
    first = record(3)
    assert first["trials"] == "3 of 4"
    assert first["arms"] == {"bicubic": (2, 2), "bilinear": (1, 2)}
    rows = pq.read_table(tmp_path / "few.parquet").to_pandas()
    # On another machine there is the file alone.
    (tmp_path / "work" / "curves.jsonl").unlink()
    whole = record(99)
    assert len((tmp_path / "work" / "curves.jsonl").read_text().splitlines()) == 1
    assert whole["trials"] == "4 of 4"
    assert whole["arms"] == {"bicubic": (2, 2), "bilinear": (2, 2)}
    all_rows = pq.read_table(tmp_path / "few.parquet").to_pandas()
    pd.testing.assert_frame_equal(all_rows[all_rows["trial"].isin(rows["trial"])].reset_index(drop=True), rows)


def test_a_file_of_another_spec_is_refused_and_one_of_an_earlier_form_read(
    tmp_path: Path, record: Callable[..., dict[str, Any]]
) -> None:
    record(99)
    output, log = tmp_path / "few.parquet", tmp_path / "work" / "curves.jsonl"

    def rewrite(change: Callable[[dict[str, Any]], Any]) -> None:
        table = pq.read_table(output)
        made = json.loads(table.schema.metadata[MADE])
        change(made)
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, MADE: json.dumps(made)}), output)
        log.unlink(missing_ok=True)

    with pytest.raises(typer.BadParameter, match="curves of another spec"):
        record(99, overrides=["train.batch_size=16"])
    rewrite(lambda made: made.update(settings=made["settings"].replace("max_epochs = 2", "max_epochs = 3")))
    with pytest.raises(typer.BadParameter, match="curves of another spec"):
        record(99)
    rewrite(lambda made: made.pop("settings"))
    record(99)
    assert not log.exists(), "nothing was missing"
    with pytest.raises(typer.BadParameter, match="other configurations"):
        record(99, num_per_arm=3)


def test_no_trial_starts_after_the_hours(record: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(typer.BadParameter, match="no trial was recorded within 0 hours"):
        record(99, hours=0.0)


def test_specs_of_the_recordings_are_valid() -> None:
    for name, epochs in (("cifar10_small", 9), ("refuse_small", 6)):
        spec, _ = load_spec(str(CURVES / f"{name}.toml"), [])
        assert spec.search.max_epochs == epochs
        assert [arm.name for arm in spec.arms()] == ["resnet18", "resnet50"]
        # A folder describes no groups of classes.
        is_folder = spec.data.source == "folder"
        assert all(("group" in arm.space.values_of("class_weighting")) is not is_folder for arm in spec.arms())

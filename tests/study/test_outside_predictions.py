"""`study compare` and `study analyze` with --predictions: the same tables for models trained elsewhere; bad files are named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.validation.statistics_simulation import NUM_CLASSES, World
from tests.study.command_line import Outcome, run_cli


def make_table(num_seeds: int = 4, shift: float = 0.6) -> pd.DataFrame:
    arms = World(seed_sd=0.02, num_seeds=num_seeds, shifts=(0.0, shift), num_images=400).draw(np.random.default_rng(0))
    parts = []
    for name, arm in zip(("old", "new"), arms, strict=True):
        for seed in arm.seeds:
            probabilities = np.full((400, NUM_CLASSES), 0.01)
            probabilities[np.arange(400), arm.predicted[seed]] = 0.91
            part = {"arm": name, "seed": seed, "sample_id": arm.sample_ids, "label": arm.labels}
            parts.append(pd.DataFrame({**part, "probabilities": list(probabilities)}))
    return pd.concat(parts, ignore_index=True)


def compare(table: pd.DataFrame, folder: Path, *options: str):  # type: ignore[no-untyped-def]
    table.to_parquet(folder / "predictions.parquet")
    return run_cli("compare", "--predictions", folder / "predictions.parquet", *options)


def test_table_is_printed_and_written(tmp_path: Path) -> None:
    outcome = compare(make_table(), tmp_path, "--to", str(tmp_path / "out"))
    assert outcome.status == 0, outcome
    assert "new vs old" in outcome.output
    assert "BETTER" in outcome.output
    written = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert written.loc[0, "num_seeds"] == 4
    assert "new vs old" in (tmp_path / "out" / "comparison.md").read_text()
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "new vs old" in page
    assert page.count("<svg") == 1
    assert "http-equiv" in page
    assert "<script" not in page
    turned = compare(make_table(), tmp_path, "--control", "new")
    assert "old vs new" in turned.output
    assert "WORSE" in turned.output


def test_one_seed_gives_the_estimate_and_no_interval(tmp_path: Path) -> None:
    outcome = compare(make_table(num_seeds=1), tmp_path)
    assert outcome.status == 2
    assert "new vs old +" in outcome.errors
    assert "estimates only" in outcome.errors


def at(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.at[5, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("probabilities", np.full(NUM_CLASSES, 0.2)), "sum to one, but those of sample 5 sum to 2.0"),
        (at("probabilities", np.full(NUM_CLASSES, np.nan)), "must be finite, but sample 5"),
        (at("probabilities", np.ones(3) / 3), "the same number of probabilities"),
        (at("label", 10), "must be in [0, 10)"),
        (at("label", 7), "must agree on the labels, but sample 5"),
        (lambda t: t.drop(index=5), "must predict the same images, but sample 5"),
        (lambda t: t[~((t.arm == "new") & (t.seed == 2))], "the same seeds, but 'old' has seed 2"),
        (lambda t: t[t.label != 4], "class 4 of 10 has none"),
        (lambda t: t.rename(columns={"label": "lable"}), "no column 'label' (did you mean 'lable'?)"),
        (lambda t: t.drop(columns="probabilities"), "probabilities or logits"),
        (lambda t: t[t.arm == "old"], "needs two arms"),
        (lambda t: t.iloc[:0], "has no rows"),
        (lambda t: t.assign(seed=t.seed * 0.5), "must hold whole numbers"),
    ],
)
def test_bad_predictions_are_named(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    outcome = compare(change(make_table()), tmp_path)
    assert outcome.status == 2, outcome
    assert message in outcome.errors.replace("\n", " ")
    assert "Traceback" not in outcome.errors


def test_neither_or_both_of_study_and_predictions_is_refused() -> None:
    for arguments in (("compare",), ("compare", "x", "--predictions", "y")):
        outcome = run_cli(*arguments)
        assert outcome.status == 2
        assert "takes one STUDY" in outcome.errors


def test_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not")
    for name in ("x.parquet", "missing.parquet"):
        outcome = run_cli("compare", "--predictions", tmp_path / name)
        assert outcome.status == 2
        assert name in outcome.errors


def analyze(table: pd.DataFrame, folder: Path, *options: str) -> Outcome:
    table.to_parquet(folder / "predictions.parquet")
    return run_cli("analyze", "--predictions", folder / "predictions.parquet", *options)


def test_forensics_are_printed_and_written(tmp_path: Path) -> None:
    table = make_table()
    num_images, num_classes = table["sample_id"].nunique(), len(table["probabilities"].iloc[0])
    names = [f"name{i}" for i in range(num_classes)]
    np.save(tmp_path / "people.npy", np.full((num_images, num_classes), 5))
    options = ("--class-names", ",".join(names), "--human-counts", str(tmp_path / "people.npy"))
    groups = ("--group", f"one={names[0]}, {names[1]}", "--group", f"other={','.join(names[2:])}")
    outcome = analyze(table, tmp_path, *options, *groups, "--to", str(tmp_path / "out"))
    assert outcome.status == 0, outcome
    assert "new: macro-F1" in outcome.output
    assert "mean F1 of the one classes minus mean F1 of the other classes" in outcome.output
    found = json.loads((tmp_path / "out" / "forensics.json").read_text())
    assert found["class_names"] == names
    assert [arm["arm"] for arm in found["arms"]] == ["old", "new"]
    page = (tmp_path / "out" / "forensics.html").read_text()
    assert page.count("data:image/png") == 2
    assert "<script" not in page
    assert "minus mean F1 of the other classes" in page
    assert found["arms"][0]["group_contrasts"][0]["groups"] == ["one", "other"]


def test_forensics_refuse_arguments_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "people.npy", np.ones((3, 2)))
    for options, message in (
        (("--class-names", "a,b"), "need as many different names"),
        (("--human-counts", str(tmp_path / "people.npy")), "human counts must be (images, classes)"),
        (("--human-counts", str(tmp_path / "none.npy")), "there is no file"),
        (
            ("--group", "hard=class 1,class 99", "--group", "easy=class 0"),
            "the group 'hard' names the class 'class 99'",
        ),
        (("--group", "hard"), "--group takes NAME=CLASS,CLASS"),
    ):
        outcome = analyze(make_table(), tmp_path, *options)
        assert outcome.status == 2
        assert message in outcome.errors
    assert "one seed only" in analyze(make_table(num_seeds=1), tmp_path).errors
    for arguments, message in (
        (("analyze",), "analyze takes a STUDY, or --predictions FILE"),
        (("analyze", "x", "--to", "y"), "`study analyze STUDY` does not use --to; remove it"),
    ):
        outcome = run_cli(*arguments)
        assert outcome.status == 2
        assert message in outcome.errors

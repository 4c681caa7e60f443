"""`study judge`: the tables and findings of models trained elsewhere; one message lists everything that is wrong."""

import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.confusions.values import CONFUSION_TOLERANCE
from analysis.external.outside_findings import analyze_outside_arms
from analysis.external.outside_predictions import read_predictions_files
from benchmarks.validation.statistics_simulation import NUM_CLASSES, World
from search_spaces.errors import UserInputError
from tests.study.command_line import Outcome, run_cli

FORENSICS = {"forensics.html", "forensics.json"}


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


def judge(table: pd.DataFrame, folder: Path, *options: str) -> Outcome:
    table.to_parquet(folder / "predictions.parquet")
    return run_cli("judge", folder / "predictions.parquet", *options)


def test_table_is_printed_and_written(tmp_path: Path) -> None:
    outcome = judge(make_table(), tmp_path, "--to", str(tmp_path / "out"))
    assert outcome.status == 0, outcome
    assert "new vs old" in outcome.output
    assert "BETTER" in outcome.output
    assert outcome.output.index("new vs old") < outcome.output.index("new: macro-F1")
    comparison = {"comparison.csv", "comparison.html", "comparison.md", "comparison.tex", "side_metrics.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == comparison | FORENSICS
    written = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert written.loc[0, "num_seeds"] == 4
    assert "new vs old" in (tmp_path / "out" / "comparison.md").read_text()
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "new vs old" in page
    assert page.count("<svg") == 1
    assert "http-equiv" in page
    assert "<script" not in page
    beside = pd.read_csv(tmp_path / "out" / "side_metrics.csv").set_index("metric")
    labels, predicted = (make_table()[name] for name in ("label", "probabilities"))
    hits = np.stack(predicted).argmax(axis=1) == labels
    is_new = make_table()["arm"] == "new"
    assert beside.loc["accuracy", "difference"] == pytest.approx(hits[is_new].mean() - hits[~is_new].mean())
    assert beside.loc["accuracy", "recipe_low"] < beside.loc["accuracy", "models_low"]
    assert "Metrics beside macro-F1, new vs old" in page
    turned = judge(make_table(), tmp_path, "--control", "new")
    assert "new vs old" in turned.output, "the better side stands first, whatever the control"
    assert "WORSE" not in turned.output


def at(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.at[5, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("probabilities", np.full(NUM_CLASSES, 0.2)), "those of 1 rows do not; row 5 sums to 2.0000"),
        (
            at("probabilities", np.full(NUM_CLASSES, np.nan)),
            "must be finite, but 1 rows have NaN or inf, the first is row 5",
        ),
        (
            lambda t: t.assign(probabilities=[np.full(NUM_CLASSES, 1 / NUM_CLASSES)] * len(t)),
            "must name a class, but in each row several classes share the highest; check the export",
        ),
        (at("probabilities", np.ones(3) / 3), "the same number of probabilities, at least 2, but rows have 3, 10"),
        (at("label", 10), "must lie in [0, 10), but reach from 0 to 10"),
        (at("label", 7), "1 images with another label (the first: sample 5)"),
        (lambda t: t.drop(index=5), "1 images added (the first: sample 5)"),
        (lambda t: t[t.label != 4], "1 have none: class 4"),
        (lambda t: t.rename(columns={"label": "lable"}), "no 'label' (did you mean 'lable'?)"),
        (lambda t: t.drop(columns="probabilities"), "no 'probabilities' and no 'logits'"),
        (lambda t: t.iloc[:0], "has no rows"),
        (lambda t: t.assign(seed=t.seed * 0.5), "must be whole numbers"),
        (lambda t: t.drop(columns="seed"), "arm 'old', seed 0: 1200 sample ids occur more than once"),
    ],
)
def test_bad_predictions_are_named(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    outcome = judge(change(make_table()), tmp_path)
    assert outcome.status == 2, outcome
    assert message in outcome.errors.replace("\n", " ")
    assert "Traceback" not in outcome.errors


def test_arms_with_other_seeds_are_compared_and_the_note_says_what_is_left_out(tmp_path: Path) -> None:
    table = make_table()
    shown = table[~((table.arm == "new") & (table.seed == 2))]
    outcome = judge(shown, tmp_path, "--to", str(tmp_path / "out"))
    assert outcome.status == 0, outcome
    written = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert list(written.loc[0, ["verdict", "num_seeds", "num_control_seeds"]]) == ["BETTER", 3, 4]
    text = " ".join(outcome.output.split())
    assert "| 3 and 4 seeds |" in text
    assert "Seeds of new are not those of old, so that their runs do not pair" in text


def test_a_class_of_one_image_is_judged(tmp_path: Path) -> None:
    table = make_table(num_seeds=1)
    alone = table[table.label == 3].sample_id.unique()[1:]
    outcome = judge(table[~table.sample_id.isin(alone)], tmp_path, "--to", str(tmp_path / "out"))
    assert outcome.status == 0, outcome
    found = json.loads((tmp_path / "out" / "forensics.json").read_text())
    recall = found["arms"][0]["class_scores"][3]["recall"]["models"]
    assert (recall["low"], recall["high"]) == (0.0, 1.0)
    written = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert written.loc[0, "low_pp"] < written.loc[0, "effect_pp"] < written.loc[0, "high_pp"]


def test_one_message_lists_everything_wrong(tmp_path: Path) -> None:
    """All differences between the arms, or all that is wrong with the values, and how to write such a file."""
    table = make_table(num_seeds=1)
    other = table.arm == "new"
    third = table[other].assign(arm="third", sample_id=table[other].sample_id + 5)
    relabeled = table.assign(label=np.where(other & (table.sample_id < 9), 0, table.label))
    outcome = judge(pd.concat([relabeled[~other | (table.sample_id >= 3)], third]), tmp_path)
    message = outcome.errors.replace("\n", " ")
    assert outcome.status == 2
    for part in (
        "arm 'new', seed 0 differs from arm 'old', seed 0: 3 images missing",
        "arm 'third', seed 0 differs from",
    ):
        assert part in message
    assert "5 images missing (the first: sample 0), 5 images added (the first: sample 400)" in message
    assert "np.savez(" in message

    write_arrays(
        tmp_path / "bad.npz", labels=np.arange(1, 9), probabilities=np.full((8, 8), 0.5), class_names=list("aabcdefg")
    )
    message = run_cli("judge", tmp_path / "bad.npz").errors.replace("\n", " ")
    for part in ("subtract 1 if they count from 1", "sum to one", "these repeat: a"):
        assert part in message


def list_lines(outcome: Outcome) -> list[str]:
    assert outcome.status == 2, outcome
    assert not outcome.output
    return [line.strip() for line in outcome.errors.splitlines()]


def test_one_message_lists_all_options_that_do_not_fit(tmp_path: Path) -> None:
    """Before anything is printed or written."""
    make_table().to_parquet(tmp_path / "two.parquet")
    (tmp_path / "file").touch()
    rates, groups = ("--margin", "-1", "--alpha", "2", "--control", "x"), ("--group", "g", "--group", "odd=y")
    paths = ("--human-counts", "none.npy", "--to", tmp_path / "file")
    lines = list_lines(run_cli("judge", tmp_path / "two.parquet", *rates, *groups, *paths))
    for start in (
        "- --margin: `0 < margin < 1` must hold, but got -1.0",
        "- --alpha: `0 < alpha < 1` must hold, but got 2.0",
        "- --to must name a folder, but",
        "- --group takes NAME=CLASS,CLASS, but got 'g'",
        "- human counts: there is no file none.npy",
        "- the group 'odd' names the class 'y'",
        "- the predictions have no arm 'x'",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, start
    (line,) = list_lines(judge(make_table(), tmp_path, "--group", "a=class 1", "--group", "a=class 2"))
    assert "groups need different names, but got a, a" in line


def test_one_message_lists_all_files_that_cannot_be_read(tmp_path: Path) -> None:
    """The order of the classes of a sound file is not doubted because another file is missing."""
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    texts = ["a", "b"] * 4
    pd.DataFrame({"label": texts, "predicted": texts}).to_csv(tmp_path / "sound.csv", index=False)
    files = [tmp_path / name for name in ("none.npz", "bad.parquet", "sound.csv")]
    lines = list_lines(run_cli("judge", *files, "--group", "g"))
    assert "- --group takes NAME=CLASS,CLASS, but got 'g'" in lines
    assert f"- there is no file {files[0]}" in lines
    assert sum(line.startswith(f"- {files[1]} is not a readable parquet file") for line in lines) == 1
    assert sum(line.startswith("- ") for line in lines) == 4


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    labels, probabilities = single_network()
    np.savez_compressed(tmp_path / "net.npz", labels=labels, probabilities=probabilities)
    content = bytearray((tmp_path / "net.npz").read_bytes())
    for place in range(40, len(content), 37):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        (tmp_path / "damaged.npz").write_bytes(damaged)
        # A changed byte that no reader looks at, such as a date, changes nothing.
        with contextlib.suppress(UserInputError):
            read_predictions_files([tmp_path / "damaged.npz"])


def test_tables_and_arrays_that_no_writer_made_are_named(tmp_path: Path) -> None:
    table = pa.table({"label": [0, 1], "predicted": [0, 1]}).replace_schema_metadata({b"pandas": b"{}"})
    pq.write_table(table, tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': '"
        archive.writestr("label.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    fields = np.array([(1, 2.0)] * 2, dtype=[("x", "i4"), ("y", "f8")])
    np.savez(tmp_path / "c.npz", label=[0, 1], predicted=[0, 1], arm=fields)
    np.savez(tmp_path / "d.npz", label=[0, 1], predicted=np.array([0, 1j]))
    np.savez(tmp_path / "bytes.npz", label=[0, 1], predicted=[0, 1], arm=np.array([b"\xff"]))
    assert list(read_predictions_files([tmp_path / "bytes.npz"]).arms) == ["\ufffd"]
    for name, kind in (("a.parquet", "parquet"), ("b.npz", "npz"), ("c.npz", "npz"), ("d.npz", "npz")):
        with pytest.raises(UserInputError, match=f"{name} is not a readable {kind} file"):
            read_predictions_files([tmp_path / name])


def test_files_that_ask_for_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    small = {"label": np.array([0, 1]), "predicted": np.array([0, 1])}
    np.savez_compressed(tmp_path / "unpacks.npz", **small, note=np.zeros(2**28 + 1, dtype=np.uint8))
    with pytest.raises(UserInputError, match=r"unpacks\.npz is not a readable npz file: it would unpack to 268,"):
        read_predictions_files([tmp_path / "unpacks.npz"])
    for largest in (999_999_999, 9_999_999):
        np.savez(tmp_path / "far.npz", label=np.array([largest, 1]), predicted=np.array([1, largest]))
        with pytest.raises(UserInputError, match=rf"classes reach {largest:,}, too many for 2 rows"):
            read_predictions_files([tmp_path / "far.npz"])


def test_options_of_a_comparison_have_no_effect_on_one_arm(tmp_path: Path) -> None:
    labels, probabilities = single_network()
    file = write_arrays(tmp_path / "net.npz", labels=labels, probabilities=probabilities)
    (line,) = list_lines(run_cli("judge", file, "--margin", "0.01", "--control", "net"))
    assert "a comparison needs two arms, but there is only 'net'; add another, or remove --control, --margin" in line


def write_arrays(path: Path, **arrays: object) -> Path:
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def single_network(num_classes: int = 6, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and probabilities of a network that predicts half of class 0 as class 1."""
    labels = np.arange(num_classes * size) % num_classes
    predicted = labels.copy()
    predicted[np.flatnonzero(labels == 0)[: size // 2]] = 1
    predicted[::17] = (predicted[::17] + 2) % num_classes
    probabilities = np.full((len(labels), num_classes), 0.2 / (num_classes - 1))
    probabilities[np.arange(len(labels)), predicted] = 0.8
    return labels, probabilities


def test_single_network_is_analyzed_in_full(tmp_path: Path) -> None:
    labels, probabilities = single_network()
    file = write_arrays(tmp_path / "net.npz", labels=labels, probabilities=probabilities, class_names=list("abcdef"))
    outcome = run_cli("judge", file, "--to", tmp_path / "out")
    assert outcome.status == 0, outcome
    assert {path.name for path in (tmp_path / "out").iterdir()} == FORENSICS
    assert "A/B" not in outcome.output
    assert "net: macro-F1" in outcome.output
    assert "a predicted as b" in outcome.output
    assert "They say nothing about the recipe" in outcome.output
    found = json.loads((tmp_path / "out" / "forensics.json").read_text())
    (arm,) = found["arms"]
    assert (arm["arm"], arm["seeds"]) == ("net", [0])
    assert arm["test_macro_f1"]["recipe"] is None
    assert arm["test_macro_f1"]["models"]["low"] < arm["test_macro_f1"]["models"]["high"]
    strongest = arm["directed"][0]
    assert (strongest["true_class"], strongest["predicted_class"], strongest["verdict"]) == ("a", "b", "MATERIAL")
    assert strongest["recipe_verdict"] is None
    undecided = [cell for cell in arm["directed"] if cell["verdict"] == "UNDECIDED"]
    assert undecided
    assert all(
        cell["images_to_decide"] for cell in undecided if cell["rate"]["models"]["estimate"] != CONFUSION_TOLERANCE
    )
    assert arm["confused_pairs"]
    page = (tmp_path / "out" / "forensics.html").read_text()
    for part in ("They say nothing about the recipe", "MATERIAL", "images that would decide", "Suspected label errors"):
        assert part in page


def test_formats_give_the_same_predictions(tmp_path: Path) -> None:
    labels, probabilities = single_network(num_classes=3)
    names, ids = ("cat", "dog", "emu"), np.arange(len(labels))[::-1]
    texts = np.array(names)[labels]
    wide = {f"p_{name}": probabilities[:, c] for c, name in enumerate(names)}
    logits = {f"logit_{c}": np.log(probabilities[:, c]) for c in (2, 0, 1)}
    tables = {
        "wide.csv": pd.DataFrame({"label": texts, "file": "x", **wide}),
        "names.parquet": pd.DataFrame({"target": texts, **dict(zip(names, probabilities.T, strict=True))}),
        "categories.parquet": pd.DataFrame({"label": pd.Categorical(texts), **wide}),
        "numbers.parquet": pd.DataFrame({"label": labels, "seed": 3, "sample_id": ids, **logits}),
        "list.parquet": pd.DataFrame({"label": texts, "probs": list(probabilities)}),
    }
    for name, table in tables.items():
        table.to_csv(tmp_path / name, index=False) if name.endswith("csv") else table.to_parquet(tmp_path / name)
    write_arrays(
        tmp_path / "half.npz", labels=labels.astype(float), probs=probabilities.astype(np.float16), arm="x", seed=3
    )
    write_arrays(
        tmp_path / "both.npz", labels=labels, logits=np.log(probabilities), predictions=probabilities.argmax(axis=1)
    )
    expected = probabilities.argmax(axis=1)
    for name in (*tables, "half.npz", "both.npz"):
        read = read_predictions_files([tmp_path / name], names)
        order = np.argsort(ids) if name == "numbers.parquet" else slice(None)
        assert np.array_equal(read.first.labels, labels[order]), name
        assert np.array_equal(read.first.predicted, expected[order]), name
        assert read.first.probabilities == pytest.approx(probabilities[order], abs=2e-3), name
        assert read.names == names
        (arm,) = read.arms
        assert (arm, list(read.arms[arm])) == (
            "x" if name == "half.npz" else name.split(".")[0],
            [3 if name in ("half.npz", "numbers.parquet") else 0],
        )


def test_arrays_of_seeds_and_arms(tmp_path: Path) -> None:
    labels, probabilities = single_network(num_classes=3)
    two = np.stack([probabilities, probabilities[:, ::-1]])
    seeds = read_predictions_files([write_arrays(tmp_path / "s.npz", labels=labels, probabilities=two, seeds=[7, 9])])
    assert list(seeds.arms["s"]) == [7, 9]
    arms = read_predictions_files([write_arrays(tmp_path / "a.npz", labels=labels, probabilities=two, arms=["u", "v"])])
    every = read_predictions_files(
        [write_arrays(tmp_path / "b.npz", labels=labels, logits=np.stack([two, two]), arms=["u", "v"], seeds=[1, 2])]
    )
    assert {arm: list(by_seed) for arm, by_seed in arms.arms.items()} == {"u": [0], "v": [0]}
    assert {arm: list(by_seed) for arm, by_seed in every.arms.items()} == {"u": [1, 2], "v": [1, 2]}
    assert np.array_equal(arms.arms["v"][0].predicted, two[1].argmax(axis=1))
    assert np.array_equal(every.arms["v"][2].predicted, two[1].argmax(axis=1))
    with pytest.raises(UserInputError, match="scores of 2 seeds, so the file needs 'seeds'"):
        read_predictions_files([write_arrays(tmp_path / "n.npz", labels=labels, probabilities=two)])
    with pytest.raises(UserInputError, match=r"240 labels, but probabilities of 120 images"):
        read_predictions_files(
            [write_arrays(tmp_path / "l.npz", labels=[*labels, *labels], probabilities=probabilities)]
        )


def test_a_class_that_no_model_of_an_arm_predicts_is_named(tmp_path: Path) -> None:
    """Its F1 of 0 is as often a mistake of the export as one of the model."""
    labels, probabilities = single_network(num_classes=4)
    without = probabilities.copy()
    without[:, 3] = 0.0
    without /= without.sum(axis=1, keepdims=True)
    files = [
        write_arrays(tmp_path / f"{n}.npz", labels=labels, probabilities=p)
        for n, p in (("all", probabilities), ("three", without))
    ]
    (note,) = (n for n in analyze_outside_arms(read_predictions_files(files)).notes if "predicts" in n)
    assert "that no model of an arm predicts, so that their F1 is 0: three: class 3. Check" in note


def test_classes_without_images_and_predicted_classes_alone(tmp_path: Path) -> None:
    """Macro-F1 is the mean over the classes with images, and names of images appear in the list of label errors."""
    labels, probabilities = single_network(num_classes=4)
    absent = np.insert(probabilities, 2, 0.0, axis=1)
    shifted = np.where(labels >= 2, labels + 1, labels)
    plain, gap = (
        analyze_outside_arms(read_predictions_files([write_arrays(tmp_path / f"{n}.npz", labels=y, probabilities=p)]))
        for n, y, p in (("plain", labels, probabilities), ("gap", shifted, absent))
    )
    assert gap.arms[0].test_macro_f1.estimate == pytest.approx(plain.arms[0].test_macro_f1.estimate)
    assert "1 of 5 classes have no images: class 2" in gap.notes[1]
    assert not any("no model of an arm predicts" in note for note in (*plain.notes, *gap.notes))
    ids = [f"image{i}.png" for i in range(len(labels))]
    named = analyze_outside_arms(
        read_predictions_files(
            [write_arrays(tmp_path / "i.npz", labels=labels, probabilities=probabilities, sample_ids=ids)]
        )
    )
    assert plain.label_issues
    assert [issue.sample_id for issue in named.label_issues] == [
        ids[int(issue.sample_id)] for issue in plain.label_issues
    ]
    texts = np.array(list("wxyz"))
    hard = write_arrays(tmp_path / "hard.npz", labels=texts[labels], predictions=texts[probabilities.argmax(axis=1)])
    found = analyze_outside_arms(read_predictions_files([hard]))
    assert found.class_names == tuple("wxyz")
    assert found.arms[0].test_macro_f1 == plain.arms[0].test_macro_f1
    assert "no probabilities" in found.notes[1]


def test_one_seed_per_arm_is_compared_for_these_models(tmp_path: Path) -> None:
    """Each model has a file of its own; seeds need not be equal."""
    labels, probabilities = single_network()
    right = np.full_like(probabilities, 0.04)
    right[np.arange(len(labels)), labels] = 0.8
    old = write_arrays(tmp_path / "old.npz", labels=labels, probabilities=probabilities, seed=1)
    new = write_arrays(tmp_path / "new.npz", labels=labels, probabilities=right, seed=2)
    outcome = run_cli("judge", old, new, "--to", tmp_path / "out")
    assert outcome.status == 0, outcome
    written = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert (written.loc[0, "verdict"], written.loc[0, "num_seeds"]) == ("BETTER", 1)
    assert 0 < written.loc[0, "low_pp"] < written.loc[0, "effect_pp"] < written.loc[0, "high_pp"]
    texts = [outcome.output, *((tmp_path / "out" / f"comparison.{kind}").read_text() for kind in ("html", "md", "tex"))]
    assert all("these models" in text for text in texts)
    assert all("recipe" in text for text in texts)
    assert "…" not in run_cli("judge", old, new, width=80).output


def test_groups_and_predicted_classes_alone_beside_macro_f1(tmp_path: Path) -> None:
    """Losses and calibration need probabilities; sides pair by seed, whatever its order in the files."""
    labels, probabilities = single_network()
    right = np.full_like(probabilities, 0.04)
    right[np.arange(len(labels)), labels] = 0.8
    two, names = np.stack([probabilities, right]), list("abcdef")
    old = write_arrays(tmp_path / "old.npz", labels=labels, probabilities=two, seeds=[1, 2], class_names=names)
    new = write_arrays(tmp_path / "new.npz", labels=labels, probabilities=two[::-1], seeds=[2, 1], class_names=names)
    files = (old, new)
    outcome = run_cli("judge", *files, "--group", "odd=b,d,f", "--to", tmp_path / "out")
    assert outcome.status == 0, outcome
    assert "beside macro-F1 (exploratory)" not in outcome.output
    found = pd.read_csv(tmp_path / "out" / "side_metrics.csv")
    assert found["group"].fillna("").tolist() == [""] * 6 + ["odd"] * 6
    assert found["difference"].abs().max() == 0
    assert found["recipe_high"].max() < 0.1
    for name, scores in (("old", probabilities), ("new", right)):
        write_arrays(tmp_path / f"{name}.npz", labels=labels, predictions=scores.argmax(axis=1))
    outcome = run_cli("judge", *files, "--to", tmp_path / "out")
    assert "new vs old, beside macro-F1 (exploratory): these models: accuracy +" in outcome.output
    metrics = pd.read_csv(tmp_path / "out" / "side_metrics.csv")["metric"].tolist()
    assert metrics == ["accuracy", "balanced accuracy", "worst class's F1"]


def test_forensics_are_printed_and_written(tmp_path: Path) -> None:
    table = make_table()
    num_images, num_classes = table["sample_id"].nunique(), len(table["probabilities"].iloc[0])
    names = [f"name{i}" for i in range(num_classes)]
    np.save(tmp_path / "people.npy", np.full((num_images, num_classes), 5))
    options = ("--class-names", ",".join(names), "--human-counts", str(tmp_path / "people.npy"))
    groups = ("--group", f"one={names[0]}, {names[1]}", "--group", f"other={','.join(names[2:])}")
    outcome = judge(table, tmp_path, *options, *groups, "--to", str(tmp_path / "out"))
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
        (("--class-names", "a,b"), "10 classes need as many names, but got 2: a, b"),
        (("--human-counts", str(tmp_path / "people.npy")), "human counts must be (images, classes)"),
    ):
        outcome = judge(make_table(), tmp_path, *options)
        assert outcome.status == 2
        assert message in outcome.errors


def test_arms_and_files_may_have_any_name(tmp_path: Path) -> None:
    """pandas takes None and NA in a csv file for missing values, and the terminal takes brackets for colors."""
    table = make_table().assign(arm=lambda t: t.arm.map({"old": "None", "new": "[bold]"}))
    scores = pd.DataFrame(table.pop("probabilities").tolist()).add_prefix("p_")
    pd.concat([table, scores], axis=1).to_csv(tmp_path / "predictions.csv", index=False)
    outcome = run_cli("judge", tmp_path / "predictions.csv", "--control", "None")
    assert outcome.status == 0, outcome.errors
    assert "[bold] vs None |" in outcome.output


def test_images_are_paired_by_their_file_names(tmp_path: Path) -> None:
    labels, probabilities = single_network(num_classes=3)
    files, order = [f"a/{i:04}.png" for i in range(len(labels))], np.random.default_rng(0).permutation(len(labels))
    table = pd.DataFrame({"filename": files, "label": labels, **{f"p_{c}": probabilities[:, c] for c in range(3)}})
    table.to_csv(tmp_path / "one.csv", index=False)
    table.iloc[order].to_csv(tmp_path / "two.csv", index=False)
    read = read_predictions_files([tmp_path / "one.csv", tmp_path / "two.csv"])
    first, second = (by_seed[0] for by_seed in read.arms.values())
    assert np.array_equal(
        first.predicted[np.argsort(first.sample_ids)], second.predicted[np.argsort(second.sample_ids)]
    )
    other = table.assign(filename=table.filename.replace("a/0003.png", "b/0003.png"))
    other.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(
        UserInputError, match=r"1 images missing \(the first: a/0003.png\), 1 images added \(the first: b/0003.png\)"
    ):
        read_predictions_files([tmp_path / "one.csv", tmp_path / "two.csv"])
    table.drop(columns="filename").to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(UserInputError, match=r"some files have names, but those of two\.csv have none"):
        read_predictions_files([tmp_path / "one.csv", tmp_path / "two.csv"])
    for name in ("one", "two"):
        table.rename(columns={"filename": "photograph"}).to_csv(tmp_path / f"{name}.csv", index=False)
    message = "the column 'photograph' seems to name the images, but is not read; call it"
    with pytest.raises(UserInputError, match=message):
        read_predictions_files([tmp_path / "one.csv", tmp_path / "two.csv"])
    assert len(read_predictions_files([tmp_path / "one.csv"]).first.labels) == len(labels)


def test_names_of_classes_may_look_like_truth_values_or_numbers(tmp_path: Path) -> None:
    rows = pd.DataFrame({"label": [True, True, False, False], "p_true": [0.9, 0.9, 0.2, 0.2]})
    rows.assign(p_false=1 - rows["p_true"]).to_csv(tmp_path / "one.csv", index=False)
    read = read_predictions_files([tmp_path / "one.csv"])
    assert read.first.labels.tolist() == read.first.predicted.tolist() == [0, 0, 1, 1]
    other_names = read_predictions_files([tmp_path / "one.csv"], ("sick", "healthy"))
    assert other_names.first.labels.tolist() == [0, 0, 1, 1], "a column is named by its own file"
    rows.assign(label=[0, 0, 1, 1], p_false=1 - rows["p_true"]).to_csv(tmp_path / "zero.csv", index=False)
    mixed = read_predictions_files([tmp_path / "one.csv", tmp_path / "zero.csv"])
    assert [by_seed[0].labels.tolist() for by_seed in mixed.arms.values()] == [[0, 0, 1, 1]] * 2
    probabilities = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    write_arrays(
        tmp_path / "two.npz", labels=[10, 10, 2, 2, 3, 3], probabilities=probabilities, class_names=("10", "2", "3")
    )
    read = read_predictions_files([tmp_path / "two.npz"])
    assert read.first.labels.tolist() == read.first.predicted.tolist() == [0, 0, 1, 1, 2, 2]
    # Of a model that never predicts 3, as of one that does.
    pd.DataFrame({"label": [1, 1, 2, 2, 3, 3], "prediction": [1, 1, 2, 2, 2, 2]}).to_csv(
        tmp_path / "three.csv", index=False
    )
    read = read_predictions_files([tmp_path / "three.csv"], ("1", "2", "3"))
    assert read.first.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert read.first.predicted.tolist() == [0, 0, 1, 1, 1, 1]


def test_two_spellings_of_an_accent_are_one_class_and_others_are_asked_about(tmp_path: Path) -> None:
    file = tmp_path / "found.csv"
    file.write_text("label,predicted\n" + "cafe\u0301,caf\u00e9\ntea,caf\u00e9\ncaf\u00e9,tea\n" * 4)
    assert read_predictions_files([file]).class_names == ("caf\u00e9", "tea")
    file.write_text("label,predicted\n" + "Tea,tea\ntea,rum\nrum,rum \n" * 4)
    with pytest.raises(UserInputError, match=r"\('Tea', 'tea'\).*--class-names") as error:
        read_predictions_files([file])
    assert "('rum', 'rum ')" in str(error.value)
    assert read_predictions_files([file], ["Tea", "tea", "rum", "rum "]).class_names == ("Tea", "tea", "rum", "rum ")


def test_two_files_of_one_name_say_how_to_tell_them_apart(tmp_path: Path) -> None:
    labels, probabilities = single_network(num_classes=3)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_arrays(tmp_path / folder / "predictions.npz", labels=labels, probabilities=probabilities)
    with pytest.raises(UserInputError, match="has seed 0 twice; an arm without a name is named after its file"):
        read_predictions_files([tmp_path / folder / "predictions.npz" for folder in ("one", "two")])


def test_names_of_classes_are_given_to_a_comparison_too(tmp_path: Path) -> None:
    labels, probabilities = single_network(num_classes=3)
    texts = np.array(["cat", "dog", "emu"])[labels]
    for name in ("one", "two"):
        pd.DataFrame({"label": texts, "probabilities": list(probabilities)}).to_parquet(tmp_path / f"{name}.parquet")
    files = [tmp_path / f"{name}.parquet" for name in ("one", "two")]
    assert "--class-names" in run_cli("judge", *files).errors
    assert run_cli("judge", *files, "--class-names", "cat, dog, emu").status == 0


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_names_that_a_terminal_would_execute_are_escaped(tmp_path: Path, suffix: str) -> None:
    names = ["\x1b]0;owned\x07cat", "dog"]
    rows = pd.DataFrame({"label": names * 4, "predicted": names * 3 + names[::-1]})
    rows["arm"], rows["sample_id"] = names[0], [f"\x1b{number}" for number in range(8)]
    if suffix == ".npz":
        texts = {name: rows[name].to_numpy(str) for name in ("label", "predicted", "sample_id")}
        write_arrays(tmp_path / "a.npz", arm=names[0], class_names=names, **texts)
    else:
        rows.to_csv(tmp_path / "a.csv", index=False)
    found = read_predictions_files([tmp_path / f"a{suffix}"], None if suffix == ".npz" else names)
    assert found.class_names == ("\\x1b]0;owned\\x07cat", "dog")
    assert list(found.arms) == ["\\x1b]0;owned\\x07cat"]
    assert found.image_names is not None
    assert all(name.isprintable() for name in found.image_names)
    assert found.names == found.class_names


def test_names_in_a_message_are_escaped(tmp_path: Path) -> None:
    pd.DataFrame({"\x1b]0;owned": [0, 1], "arm": ["\x1b[2Ja", "b"]}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserInputError, match="there is no 'label'") as refused:
        read_predictions_files([tmp_path / "a.csv"])
    assert "\x1b" not in str(refused.value)

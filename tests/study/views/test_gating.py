"""`study gate`: its exit statuses and texts, the log that comparisons share, and what it refuses."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from scipy.special import ndtri

from study.views.gating import LoggedLook
from tests.golden.make_golden import FINISHED
from tests.study.command_line import Outcome, run_cli

NUM_IMAGES, NUM_CLASSES = 400, 4
YES, NO, REFUSED, UNDECIDED = 0, 1, 2, 4


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tmp_path


def draw(accuracy: float, seeds: range, *, stream: int = 0, num_images: int = NUM_IMAGES) -> np.ndarray:
    """Return (S, N) predictions of models that are right on the images that are easy enough for them."""
    labels = np.arange(num_images) % NUM_CLASSES
    ease = np.random.default_rng(0).standard_normal(num_images)
    noise = [np.random.default_rng([stream, seed]).standard_normal(num_images) for seed in seeds]
    own = ease + 0.5 * np.stack(noise)
    return np.where(own > np.sqrt(1.25) * ndtri(1 - accuracy), labels, (labels + 1) % NUM_CLASSES)


def write(name: str, accuracy: float = 0.75, seeds: range = range(5), **changes: Any) -> str:
    """Write a file of predictions; return its name."""
    stream = changes.pop("stream", sum(map(ord, name)))
    predictions = draw(accuracy, seeds, stream=stream, num_images=changes.pop("num_images", NUM_IMAGES))
    labels = np.arange(predictions.shape[1]) % NUM_CLASSES
    np.savez(name, **{"labels": labels, "predictions": predictions, "seeds": np.array(seeds), **changes})
    return name


def gate(*arguments: str | Path) -> Outcome:
    return run_cli("gate", *arguments, width=1000)


def read_lines(log: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(log).read_text().splitlines()]


def test_yes_no_and_undecided_are_exit_statuses() -> None:
    old = write("old.npz")
    found = gate(old, write("better.npz", 0.9))
    assert found.status == YES, found
    assert found.output.startswith("YES: better.npz is better than old.npz.\n+")
    assert "| BETTER (material) | 5 seeds | 400 test images | better.npz vs old.npz\n" in found.output
    assert "at 99.1 % |" in found.output
    assert "at most 5 %, and so is a no, whenever you look and stop" in found.output
    assert "has 5 / ((S + 2) (S + 3)) of it, S >= 3" in found.output
    assert "if these have chosen nothing; --log FILE counts" in found.output
    worse = gate(old, write("worse.npz", 0.6))
    assert (worse.status, worse.output.splitlines()[0]) == (NO, "NO: worse.npz is worse than old.npz.")
    same = gate(old, write("same.npz"), "--margin", "0.2")
    assert (same.status, same.output.splitlines()[0]) == (NO, "NO: same.npz and old.npz differ by less than 20 pp.")
    unknown = gate(old, "same.npz")
    assert unknown.status == UNDECIDED
    assert unknown.output.startswith("UNDECIDED: it is not known whether same.npz is better than old.npz; about ")
    assert "would decide it (now 5 and 400), if the difference stays." in unknown.output


def test_not_worse_asks_for_the_margin() -> None:
    old, same = write("old.npz"), write("same.npz")
    found = gate(old, same, "--not-worse", "--margin", "0.2")
    assert (found.status, found.output.splitlines()[0]) == (
        YES,
        "YES: same.npz is not worse than old.npz by 20 pp or more.",
    )
    worse = gate(old, write("worse.npz", 0.5), "--not-worse", "--margin", "0.02")
    assert (worse.status, worse.output.splitlines()[0]) == (
        NO,
        "NO: worse.npz is worse than old.npz by more than 2 pp.",
    )
    assert gate(old, same, "--not-worse", "--margin", "0.001").status == UNDECIDED


def test_json_and_markdown_with_the_summary_of_a_step(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = write("old.npz"), write("a*b.npz", 0.9)
    found = json.loads(gate(old, new, "--json").output)
    assert (found["answer"], found["not_worse"], found["row"]["verdict"]) == ("yes", False, "BETTER")
    assert 0 < found["p_value"] < 0.05
    assert found["row"]["effect"]["low"] > 0
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary.md"))
    (here / "summary.md").write_text("before\n")
    shown = gate(old, new, "--markdown")
    assert shown.status == YES
    assert shown.output.startswith("### study gate: yes\n\n- a\\*b.npz is better than old.npz.\n- +")
    assert (here / "summary.md").read_text() == f"before\n{shown.output}"
    gate(old, new)
    assert (here / "summary.md").read_text() == f"before\n{shown.output}"


@pytest.mark.parametrize(("count", "status"), [(1, UNDECIDED), (2, UNDECIDED), (3, YES)])
def test_fewer_than_three_seeds_say_nothing_about_fresh_ones(count: int, status: int) -> None:
    found = gate(write("old.npz", seeds=range(count)), write("new.npz", 0.95, range(count)))
    assert found.status == status
    assert ("needs at least 3 pairs of seeds" in found.output) == (count < 3)
    assert ("BETTER (material, these models)" in found.output) == (count == 1)
    assert ("the verdict is about these models alone" in found.output) == (count == 1)


def test_folders_of_one_file_per_seed_pair_by_seed_and_the_rest_is_said(here: Path) -> None:
    for name, accuracy, seeds in (("old", 0.75, range(6)), ("new", 0.9, range(1, 5))):
        (here / name).mkdir()
        for seed in seeds:
            write(f"{name}/{seed}.npz", accuracy, range(seed, seed + 1), stream=len(name) * round(100 * accuracy))
    found = gate("old", "new")
    assert found.status == YES, found
    assert "| 4 seeds |" in found.output
    assert "Seeds without a partner on the other side, which are left out: 2." in found.output
    other = gate(write("old.npz"), write("new.npz", 0.9, range(10, 14)))
    assert "| 4 seeds |" in other.output, "seeds that share none pair in their order"
    assert "which are left out: 1." in other.output


def test_an_arm_of_a_file_is_chosen() -> None:
    labels = np.arange(NUM_IMAGES) % NUM_CLASSES
    parts = [
        pd.DataFrame({"arm": arm, "seed": seed, "sample_id": np.arange(NUM_IMAGES), "label": labels, "predicted": row})
        for arm, accuracy in (("a", 0.75), ("b", 0.9))
        for seed, row in enumerate(draw(accuracy, range(4), stream=ord(arm)))
    ]
    pd.concat(parts).to_csv("both.csv", index=False)
    found = gate("both.csv:a", "both.csv:b")
    assert found.status == YES, found
    assert "both.csv:b is better than both.csv:a" in found.output
    assert "it has the arms a, b; name one, such as both.csv:a" in gate("both.csv", "both.csv:b").errors
    assert "it has no arm 'c'" in gate("both.csv:c", "both.csv:b").errors


def test_looks_at_one_comparison_share_a_place_in_the_log() -> None:
    log = ("--log", "gate.jsonl")
    for count in (2, 3, 5):
        found = gate(write("old.npz", seeds=range(count)), write("new.npz", 0.84, range(count)), *log)
        assert "Comparison 1 of the log, with 0 yes before it: e-value " in found.output
        assert "an expected share of at most 10 % is false (e-LOND)" in found.output
        assert "seen" not in found.output
    again = gate("old.npz", "new.npz", *log)
    assert again == found, "the same look again is no new look"
    lines = read_lines("gate.jsonl")
    assert [(line["number"], len(line["pairs"])) for line in lines] == [(1, 2), (1, 3), (1, 5)]
    assert [line["p_value"] for line in lines] == sorted((line["p_value"] for line in lines), reverse=True)
    second = gate("old.npz", write("other.npz", 0.76), *log)
    assert "Comparison 2 of the log, with 1 yes before it" in second.output
    assert "They are seen: earlier comparisons of the log that used them: 1." in second.output
    third = gate("old.npz", "new.npz", "--not-worse", *log)
    assert "Comparison 3 of the log" in third.output, "another question is another comparison"
    assert [line["question"] for line in read_lines("gate.jsonl")][-1] == "not worse by 0.005"
    elsewhere = gate(write("a.npz", num_images=240), write("b.npz", num_images=240), *log)
    assert "Comparison 4 of the log" in elsewhere.output
    assert "seen" not in elsewhere.output, "other images"


def test_images_in_another_order_are_the_same_comparison() -> None:
    order, answers = np.random.default_rng(0).permutation(NUM_IMAGES), []
    for rows in (np.arange(NUM_IMAGES), order):
        for name, accuracy in (("old", 0.75), ("new", 0.8)):
            table = pd.DataFrame({"image": [f"{i}.png" for i in rows], "label": rows % NUM_CLASSES})
            predicted = draw(accuracy, range(5), stream=ord(name[0]))[:, rows]
            everything = [table.assign(seed=seed, prediction=own) for seed, own in enumerate(predicted)]
            pd.concat(everything).to_csv(f"{name}.csv", index=False)
        answers.append(gate("old.csv", "new.csv", "--log", "gate.jsonl"))
    assert answers[0] == answers[1]
    assert len(read_lines("gate.jsonl")) == 1, "the same look again is no new look"


def test_seeds_of_an_earlier_look_cannot_be_left_out() -> None:
    old, log = write("old.npz"), ("--log", "gate.jsonl")
    gate(old, write("new.npz", 0.8), *log)
    before = read_lines("gate.jsonl")
    found = gate(old, write("new.npz", 0.8, range(1, 5)), *log)
    assert found.status == REFUSED
    assert "1 pairs of seeds of an earlier look at comparison 1 of the log are missing or have changed" in found.errors
    assert read_lines("gate.jsonl") == before


def make_line(number: int, answer: str = "no", **changes: Any) -> str:
    line = {"old": "a", "new": "b", "question": "better", "images": "i", "pairs": [f"{number}"], "rate": 0.1}
    return json.dumps({**line, "number": number, "p_value": 0.5, "e_value": 0.0, "answer": answer, **changes}) + "\n"


def test_what_is_a_yes_alone_may_be_none_after_many_comparisons() -> None:
    old, new = write("old.npz"), write("new.npz", 0.84)
    assert gate(old, new).status == YES
    Path("gate.jsonl").write_text("".join(make_line(number) for number in range(1, 5001)))
    found = gate(old, new, "--log", "gate.jsonl")
    assert found.status == UNDECIDED
    assert "; alone, it would be a yes." in found.output
    Path("found.jsonl").write_text("".join(make_line(number, "yes") for number in range(1, 5001)))
    assert gate(old, new, "--log", "found.jsonl").status == UNDECIDED, "its share of the rate is small"
    Path("early.jsonl").write_text("".join(make_line(number, "yes") for number in range(1, 4)))
    assert gate(old, new, "--log", "early.jsonl").status == YES


def test_a_second_writer_waits_for_the_first() -> None:
    old, new, outcomes = write("old.npz"), write("new.npz", 0.9), []
    thread = threading.Thread(target=lambda: outcomes.append(gate(old, new, "--log", "gate.jsonl")))
    with FileLock("gate.jsonl.lock"):
        thread.start()
        thread.join(1.5)
        assert thread.is_alive()
        Path("gate.jsonl").write_text(make_line(1))
    thread.join(60)
    assert [line["number"] for line in read_lines("gate.jsonl")] == [1, 2]
    assert outcomes[0].status == YES


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("no json\n", (), "--log gate.jsonl, line 1 is not of `study gate`"),
        (make_line(1) + '{"number": 2}\n', (), "--log gate.jsonl, line 2 is not of `study gate`, or is damaged: old"),
        (make_line(1), ("--rate", "0.2"), "--rate 0.2: the log gate.jsonl has the rate 0.1, which holds for all of it"),
        (None, ("--margin", "3"), "--margin: `0 < margin < 1` must hold, but got 3.0"),
        (None, ("--alpha", "0.5"), "--alpha: `0 < alpha < 0.5` must hold, but got 0.5"),
        (None, ("--markdown", "--json"), "--markdown and --json are two forms of the same answer; remove one"),
    ],
)
def test_bad_logs_and_options_are_refused(content: str | None, options: tuple[str, ...], message: str) -> None:
    if content is not None:
        Path("gate.jsonl").write_text(content)
    found = gate(write("old.npz"), write("new.npz"), "--log", "gate.jsonl", *options)
    assert found.status == REFUSED, found
    assert message in found.errors
    assert "Traceback" not in found.errors


def test_one_message_lists_everything_wrong(here: Path) -> None:
    (here / "log").mkdir()
    found = gate("three", "new.npz", "--margin", "0", "--rate", "2", "--log", "log")
    assert found.status == REFUSED
    for part in (
        "this gate cannot answer:\n- --margin:",
        "- --rate:",
        "there is no file new.npz",
        "\n- there is no study at studies/three",
        "- --log log is damaged",
    ):
        assert part in found.errors, found.errors
    assert "--rate is that of a log" in gate("old.npz", "old.npz", "--rate", "0.1").errors
    for name, changes, message in (
        ("images.npz", {"num_images": 300}, "differs from arm 'old.npz', seed 0: 100 images missing"),
        ("classes.npz", {"class_names": list("abcde")}, "same classes in the same order"),
    ):
        write("old.npz", class_names=list("abcd"))
        assert message in gate("old.npz", write(name, **{"class_names": list("abcd"), **changes})).errors
    absent = {"class_names": list("abcde")}
    assert "but has none of e" in gate(write("a.npz", **absent), write("b.npz", **absent)).errors
    assert "OLD and NEW are both 'old.npz'" in gate("old.npz", "old.npz").errors


def test_arms_and_winners_of_studies(here: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(FINISHED, here / "studies" / name)
    arms = gate("one:bicubic", "one:bilinear")
    assert arms.status == UNDECIDED, arms
    assert "needs at least 3 pairs of seeds (now 2)" in arms.output
    assert json.loads(gate("one:bicubic", "one:bilinear", "--json").output)["row"]["margin"] == 0.02, "of the plan"
    winners = gate("studies/one", "two", "--log", "gate.jsonl")
    assert winners.status == UNDECIDED, winners
    (line,) = read_lines("gate.jsonl")
    assert {line["old"].split(":")[0], line["new"].split(":")[0]} == {"studies/one", "two"}
    assert line["old"].split(":")[1] == line["new"].split(":")[1]
    assert LoggedLook(**line).pairs
    assert "the study 'finished' has no arm 'bicubik' (did you mean 'bicubic'?)" in gate("one:bicubik", "one").errors
    missing = gate("three", "four").errors
    assert "there is no study at studies/three" in missing
    assert "there is no study at studies/four" in missing
    assert "OLD and NEW are both 'one:" in gate("one", f"one:{line['old'].split(':')[1]}").errors
    assert "must have the same classes" in gate(write("old.npz"), "one").errors

"""The audits of a study: choice of images, and human counts."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analysis.causes.confused_images import ConfusedClasses
from analysis.confusions.values import ArmConfusions, ConfusedPair, DirectedConfusion, Materiality
from analysis.shortcuts.values import SwapAudits
from analysis.statistics.interval import Interval, TwoIntervals
from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from study.cluster.tasks import Task
from study.inputs.human_labels import load_human_shares
from study.results import audits
from study.results.audit_parts import AuditPart, AuditParts, StepKind
from study.results.audits import AuditStep, choose_audit_images, keep_audited, rank_confusions
from study.results.figure_files import load_image_files, write_image_files
from study.state.paths import AUDIT_PARTS, TEST_IMAGES_CSV
from tests.analysis.findings_factory import make_ring_audit
from tests.study.simulated import make_spec
from trainables.data.images import ImageOrigin, ImageSet
from trainables.storage.store import Store
from trainables.training.predictions import Predictions

NAMES = ("a", "b", "c")


def make_images(num_train: int = 4, num_test: int = 6, side: int = 12) -> ImageSet:
    total = num_train + num_test
    return ImageSet(
        images=np.zeros((total, side, side, 3), dtype=np.uint8),
        labels=np.arange(total) % 3,
        class_names=NAMES,
        source="folder",
        official_test=np.arange(total) >= num_train if num_train else None,
    )


def test_audit_images_are_stratified_by_class() -> None:
    ids, labels = np.arange(50, 350), np.repeat([0, 1, 2], [200, 60, 40])
    chosen = choose_audit_images(ids, labels, 150, seed=1)
    assert len(set(chosen.tolist())) == 150
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(labels[chosen - 50]).tolist() == pytest.approx([100, 30, 20], abs=1)
    assert np.array_equal(choose_audit_images(ids, labels, 150, seed=1), chosen)
    assert not np.array_equal(choose_audit_images(ids, labels, 150, seed=2), chosen)
    assert np.array_equal(choose_audit_images(ids, labels, 300, seed=1), ids)
    assert choose_audit_images(np.arange(5), np.array([0, 0, 1, 2, 2]), 300, seed=1).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("rare", range(1, 9))
def test_a_rare_class_gives_two_audit_images_or_none(rare: int) -> None:
    """Swaps need a partner of the class; a single image would keep the audit of all classes from being made."""
    labels = np.repeat([0, 1, 2], [500, 500 - rare, rare])
    for seed in range(5):
        counts = np.bincount(labels[choose_audit_images(np.arange(1000), labels, 200, seed)], minlength=3)
        assert counts[2] != 1
        assert counts[2] >= 2 or rare <= 2
        assert 198 <= counts.sum() <= 200


def test_a_pull_needs_audited_images_of_its_classes_and_of_a_third() -> None:
    """A class that the choice leaves out divided by zero, and ended every analysis of the study."""
    cells = [(0, 1), (1, 0), (2, 0), (0, 2)]
    assert keep_audited(cells, np.array([0, 0, 1, 1, 3, 3])) == [(0, 1), (1, 0)]
    assert keep_audited(cells, np.array([0, 0, 1, 1])) == []
    # With folds, of one fold.
    labels = np.array([0, 0, 1, 1, 3, 3, 2, 2, 0, 0])
    assert keep_audited(cells, labels, np.repeat([0, 1], [6, 4])) == [(0, 1), (1, 0)]


def test_audit_images_belong_to_as_many_groups_as_possible() -> None:
    labels, groups = np.repeat([0, 1], 100), np.repeat(np.arange(10), 20)
    chosen = choose_audit_images(np.arange(200), labels, 20, 1, groups)
    assert len(chosen) == 20
    assert (np.bincount(groups[chosen]) == 2).all()


def make_rate(rate: float) -> TwoIntervals:
    return TwoIntervals(models=Interval(estimate=rate, low=rate / 2, high=2 * rate), recipe=None)


def make_cell(true: str, predicted: str, rate: float, verdict: Materiality = Materiality.MATERIAL) -> DirectedConfusion:
    return DirectedConfusion(
        true_class=true,
        predicted_class=predicted,
        rate=make_rate(rate),
        num_images=100,
        verdict=verdict,
        recipe_verdict=None,
        images_to_decide=None,
    )


def test_significant_pairs_and_material_cells_are_ranked_by_rate() -> None:
    pairs = (
        ConfusedPair(classes=("a", "b"), rate=make_rate(0.08), expected_rate=0.01, p_adjusted=0.01),
        ConfusedPair(classes=("b", "c"), rate=make_rate(0.05), expected_rate=0.01, p_adjusted=0.04),
    )
    cells = (
        make_cell("d", "a", 0.35),
        make_cell("c", "b", 0.12),
        make_cell("c", "d", 0.1, Materiality.UNDECIDED),
        make_cell("a", "d", 0.06, Materiality.NOT),
    )
    ranked = rank_confusions(ArmConfusions(confused_pairs=pairs, clusters=(), group_contrasts=(), directed=cells))
    assert ranked == (("d", "a"), ("b", "c"), ("c", "b"), ("a", "b"), ("b", "a"))
    both = (make_cell("a", "b", 0.2), make_cell("b", "a", 0.1))
    ranked = rank_confusions(ArmConfusions(confused_pairs=(), clusters=(), group_contrasts=(), directed=both))
    assert ranked == (("a", "b"), ("b", "a"))


def make_step(folder: Path, evidence: Any, cells: Sequence[tuple[int, int]]) -> AuditStep:
    return AuditStep(
        name="causes",
        kind=StepKind.CAUSES,
        study_uri=str(folder),
        evidence=evidence,
        ids=np.arange(4, 10),
        cells=cells,
        masks=None,
        seed=7,
    )


def test_with_folds_one_prediction_of_all_runs_chooses_and_measures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ids = np.arange(4, 10)
    predictions = [Predictions(sample_ids=ids, labels=ids % 3, logits=np.eye(6, 3, dtype=np.float32), split="test")]
    evidence = SimpleNamespace(runs=["first", "second"], predictions=predictions, folds=[ids[::2], ids[1::2]])
    monkeypatch.setattr(audits, "make_logits", lambda _store, runs, _classes: runs)
    monkeypatch.setattr(audits, "find_root_causes", lambda *arguments, **_: arguments)
    found: Any = audits.find_causes(make_step(tmp_path, evidence, [(0, 1)]), make_images())
    models, images, _ = found.causes
    assert models.compute_logits == ["first", "second"]
    assert models.are_own_errors
    assert images.folds[ids].tolist() == [0, 1, 0, 1, 0, 1]
    assert audits.take_images(make_step(tmp_path, evidence, []), make_images()).folds.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(("num_seeds", "choosing", "measuring"), [(1, [0], [0]), (2, [0], [1]), (3, [0], [1, 2])])
def test_causes_take_pairs_and_directed_cells_from_all_test_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_seeds: int, choosing: list[int], measuring: list[int]
) -> None:
    ids = np.arange(4, 10)
    predictions = [
        Predictions(sample_ids=ids, labels=ids % 3, logits=np.full((6, 3), seed, dtype=np.float32), split="test")
        for seed in range(num_seeds)
    ]
    evidence = SimpleNamespace(runs=list(range(num_seeds)), predictions=predictions, folds=())
    monkeypatch.setattr(audits, "make_logits", lambda _store, runs, _classes: runs)
    monkeypatch.setattr(audits, "find_root_causes", lambda *arguments, **options: (*arguments, options))
    step = make_step(tmp_path, evidence, [(2, 0), (0, 1), (1, 0)])
    found: Any = audits.find_causes(step, make_images())
    models, images, confusions, options = found.causes
    assert models.sample_ids.tolist() == ids.tolist()
    assert models.selecting[:, 0, 0].tolist() == choosing
    assert models.measuring[:, 0, 0].tolist() == models.compute_logits == measuring
    assert models.are_own_errors == (num_seeds == 1)
    assert len(images.labels) == 10
    assert confusions == [
        ConfusedClasses(one=2, other=0, is_directed=True),
        ConfusedClasses(one=0, other=1, is_directed=False),
    ]
    assert options == {"seed": 7}


def test_human_counts_belong_to_the_test_images_in_their_order(tmp_path: Path) -> None:
    counts = np.arange(18).reshape(6, 3) + 1
    np.save(tmp_path / "counts.npy", counts)
    shares = load_human_shares(str(tmp_path / "counts.npy"), make_images())
    assert np.isnan(shares[:4]).all()
    assert shares[4:] == pytest.approx(counts / counts.sum(axis=1, keepdims=True))
    without = load_human_shares(str(tmp_path / "counts.npy"), make_images(0, 6))
    assert np.isfinite(without).all()


# A header of 8 PB.
CLAIM = b"\x93NUMPY\x01\x00\x50\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (2**50,)}".replace(
    b"2**50", b"1125899906842624"
).ljust(80)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda file: np.save(file, np.ones((5, 3))),
            r"\(6, 3\), a row for each image of the test set, but are \(5, 3\)",
        ),
        (lambda file: np.save(file, np.array([{}], dtype=object), allow_pickle=True), "not an .npy file of numbers"),
        (lambda file: np.save(file, np.array(["x"])), "not an .npy file of numbers"),
        (lambda file: file.write_bytes(b"none"), "not an .npy file of numbers"),
        (lambda file: file.write_bytes(b""), "not an .npy file of numbers"),
        (lambda file: file.write_bytes(b"PK\x03\x04 no archive"), "not an .npy file of numbers"),
        (lambda file: file.write_bytes(CLAIM), "not an .npy file of numbers"),
        (lambda _: None, "there is no file"),
    ],
)
def test_bad_human_counts_are_refused_with_the_name_of_the_file(tmp_path: Path, write, message: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "counts.npy"
    write(file)
    with pytest.raises(UserInputError, match=message) as caught:
        load_human_shares(str(file), make_images())
    assert "counts.npy" in str(caught.value)


class FakeWorkers:
    """Workers that compute nothing, and stop after some steps."""

    def __init__(self, num_steps: int = 99, problem: str = "", failing: Collection[StepKind] = tuple(StepKind)) -> None:
        self.asked: list[tuple[str, StepKind]] = []
        self._num_steps, self._problem, self._failing = num_steps, problem, failing

    def run_trials(self, *_: object) -> None:
        raise NotImplementedError

    def run_tasks(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[AuditPart]:
        assert function is audits.run_step
        for number, task in enumerate(tasks):
            if number >= self._num_steps:
                raise KeyboardInterrupt
            (step,) = task.arguments
            self.asked.append((step.evidence.arm, step.kind))
            if self._problem and step.kind in self._failing:
                yield AuditPart(problem=self._problem)
                continue
            swaps = (
                SwapAudits(ring_audits=(make_ring_audit(NAMES, 2, large=False),))
                if step.kind is StepKind.SWAPS
                else None
            )
            yield AuditPart(audits=swaps, exported=swaps)


def audit(folder: Path, workers: FakeWorkers, basis: str = "basis", side: int = 12) -> tuple[dict[str, AuditPart], str]:
    images = make_images(side=side)
    run = SimpleNamespace(config=make_spec_config())
    first = SimpleNamespace(sample_ids=np.arange(10), labels=images.labels, groups=None)
    evidence: Any = {
        a: SimpleNamespace(arm=a, predictions=[first], runs=[run], folds=()) for a in ("one", "batch_size=2/x")
    }
    nothing = ArmConfusions(confused_pairs=(), clusters=(), group_contrasts=(), directed=())
    store = Store(folder)
    study: Any = SimpleNamespace(spec=make_spec(), store=store)
    parts = AuditParts(store, basis)
    return audits.audit_arms(study, dict.fromkeys(evidence, nothing), evidence, images, workers, parts, lambda _: None)


def make_spec_config() -> TrialConfig:
    return TrialConfig(arm="one", seed=0, hyperparameters={}, fixed={})


def test_interrupted_analysis_goes_on_with_the_steps_that_are_left(tmp_path: Path) -> None:
    whole = FakeWorkers()
    expected = audit(tmp_path / "whole", whole)
    assert len(whole.asked) == len(set(whole.asked)) == 6
    stopped, resumed = FakeWorkers(num_steps=4), FakeWorkers()
    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path / "stopped", stopped)
    assert audit(tmp_path / "stopped", resumed) == expected
    assert [*stopped.asked, *resumed.asked] == whole.asked
    again, other = FakeWorkers(), FakeWorkers()
    audit(tmp_path / "stopped", again)
    audit(tmp_path / "stopped", other, basis="another")
    assert (again.asked, other.asked) == ([], whole.asked)
    for file in (tmp_path / "stopped" / AUDIT_PARTS).iterdir():
        file.write_text(file.read_text().replace("basis", "bases", 1))
    damaged = FakeWorkers()
    assert audit(tmp_path / "stopped", damaged, basis="another") == expected
    assert damaged.asked == whole.asked
    AuditParts(Store(tmp_path / "stopped")).delete()
    assert not list((tmp_path / "stopped" / AUDIT_PARTS).iterdir())


def test_the_longest_steps_of_all_arms_begin_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (StepKind.CAUSES, StepKind.CAMS, StepKind.SWAPS)
    for arms in (("one", "batch_size=2/x"), ("batch_size=2/x", "one")):
        cells = {"one": [], "batch_size=2/x": [(NAMES[0], NAMES[1])] if arms[0] != "one" else []}
        by_arm = iter(cells.values())
        monkeypatch.setattr(audits, "rank_confusions", lambda _, by_arm=by_arm: next(by_arm))
        workers = FakeWorkers()
        audit(tmp_path / arms[0].replace("/", "_"), workers)
        # Of one kind, that of the arm with more cells to explain.
        assert workers.asked == [(arm, kind) for kind in kinds for arm in arms]


def test_problem_of_a_step_is_the_reason_for_no_audits(tmp_path: Path) -> None:
    found, note = audit(tmp_path, FakeWorkers(problem="there is no such loop"))
    assert note == "The Clever Hans audit could not be made: there is no such loop."
    assert set(found.values()) == {AuditPart()}


def test_a_step_that_cannot_be_made_leaves_the_others(tmp_path: Path) -> None:
    workers = FakeWorkers(problem="need four images of a class", failing=[StepKind.CAMS])
    found, note = audit(tmp_path, workers)
    assert note == "The tests of the heat maps could not be made: need four images of a class."
    assert all(arm.audits.ring_audits and arm.exported.ring_audits for arm in found.values())


def test_images_too_small_to_remove_cues_from_have_no_causes_and_keep_their_other_audits(tmp_path: Path) -> None:
    found, note = audit(tmp_path, FakeWorkers(), side=8)
    assert list(found) == ["one", "batch_size=2/x"]
    assert (
        note
        == "No root cause is tested: cues are removed from images of 12 pixels a side at least, but these have 8 x 8."
    )
    assert audits.find_causes(make_step(tmp_path, SimpleNamespace(), [(0, 1)]), make_images(side=8)) == AuditPart()


def test_files_of_test_images_are_no_formulas_in_csv_and_are_read_back(tmp_path: Path) -> None:
    names = ("=cmd.png", "'=b.png", "plain.png")
    origin = ImageOrigin(names=names, sizes=np.ones((3, 2), dtype=np.int32), kinds={"RGB": 3})
    images = ImageSet(
        images=np.zeros((3, 8, 8, 3), dtype=np.uint8),
        labels=np.array([0, 1, 1]),
        class_names=("@SUM(A1)", "dog"),
        origin=origin,
    )
    store = Store(tmp_path)
    write_image_files(store, images, np.arange(3))
    lines = store.read_text(TEST_IMAGES_CSV).splitlines()
    assert lines[1:] == ["0,'=cmd.png,'@SUM(A1)", "1,''=b.png,dog", "2,plain.png,dog"]
    assert load_image_files(store) == dict(enumerate(names))

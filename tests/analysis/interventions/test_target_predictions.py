"""The images that choose, and predicted changes of targets, with models that rely on one known cue."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.interventions import target_predictions
from analysis.interventions.intervention import ChoosingModels
from analysis.interventions.target_predictions import (
    RemovedCues,
    cross_fit,
    find_choosing,
    predict_without_cue,
    predict_without_reliance,
)
from analysis.interventions.values import Target, TargetKind
from analysis.shortcuts.swaps import AuditImages, Images
from trainables.seeds import numpy_generator

NAMES = ("red", "green", "blue")
NUM_SEEDS = 3


def make_images(num: int = 240) -> AuditImages:
    """Return noise whose ring has the color of the class, except that half of the class "red" has the ring of "green"."""
    generator = numpy_generator(0, "images")
    labels = np.arange(num) % 3
    images = generator.integers(90, 160, (num, 32, 32, 3)).astype(np.uint8)
    shown = np.where((labels == 0) & (np.arange(num) % 2 == 0), 1, labels)
    ring = np.ones((32, 32), dtype=bool)
    ring[4:-4, 4:-4] = False
    for image, channel in zip(images, shown, strict=True):
        image[ring, channel] = 250
    return AuditImages(images=images, labels=labels.astype(np.int64), class_names=NAMES)


def read_ring(images: Images) -> np.ndarray:
    """Return (S, n, K) logits of models that read the color of the ring alone."""
    ring = images[:, :4].astype(np.float64).mean(axis=(1, 2))
    return np.stack([ring + 0.01 * seed for seed in range(NUM_SEEDS)])


def read_nothing(images: Images) -> np.ndarray:
    """Return logits of models that call every image "blue"."""
    return np.tile(np.array([0.0, 0.0, 1.0]), (NUM_SEEDS, len(images), 1))


def test_a_gap_that_would_vanish_is_predicted_as_a_reduction_by_all_of_it() -> None:
    target = Target(kind=TargetKind.RING_GAP, classes=("green", "blue"))
    found = predict_without_reliance(
        target, ChoosingModels(audit_images=make_images(), compute_logits=read_ring, seed=1)
    )
    assert found.high < -0.5
    none = predict_without_reliance(
        target, ChoosingModels(audit_images=make_images(), compute_logits=read_nothing, seed=1)
    )
    assert none.estimate == 0


@pytest.mark.parametrize("cue", [None, "context"])
def test_the_rate_without_the_cue_that_causes_the_confusion_falls(cue: str | None) -> None:
    target = Target(kind=TargetKind.CELLS, classes=("red",), cells=(("red", "green"),))
    models = ChoosingModels(audit_images=make_images(), compute_logits=read_ring, seed=1)
    found, removed = predict_without_cue(target, cue, models)
    assert removed in {"context", "color"}
    assert cue in (removed, None)
    # Some rings of donors are those of other classes than the donors', which references become and the cell does not.
    assert found.estimate == pytest.approx(-0.5, abs=0.12)
    assert found.low < found.estimate < found.high < 0


def test_a_cue_that_nothing_depends_on_predicts_no_change() -> None:
    target = Target(kind=TargetKind.CELLS, classes=("red",), cells=(("red", "blue"),))
    models = ChoosingModels(audit_images=make_images(), compute_logits=read_nothing, seed=1)
    found, _ = predict_without_cue(target, "shape", models)
    assert found.estimate == 0
    assert found.low < 0 < found.high


NUM_CLASSES, PER_CLASS, NUM_MODELS = 10, 60, 4
CUE = "texture"


def draw_world(number: int, specific: float = 0.0) -> tuple[RemovedCues, frozenset[tuple[int, int]]]:
    """Return models before and after a cue was removed, and the wrong cell with the highest rate.

    Every image has wrong classes of its own that all models find likely. Without the cue, a part of these is drawn anew, the same
    in every class. `specific` is the evidence for class 1 in images of class 0, which is gone without the cue.
    """
    generator = numpy_generator(number, "removed cues")
    labels = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    shape = (len(labels), NUM_CLASSES)
    own, again = generator.normal(0, 1.2, (2, *shape))
    seeds = generator.normal(0, 0.6, (2, NUM_MODELS, *shape))
    true = 2.5 * np.eye(NUM_CLASSES)[labels]
    cue = np.zeros(shape)
    cue[labels == 0, 1] = specific
    before = true + cue + own + seeds[0]
    after = 0.8 * true + 0.6 * own + 0.8 * again + seeds[1]
    odds = np.exp(before)
    world = RemovedCues(
        images=AuditImages(
            images=np.zeros((len(labels), 1, 1, 3), dtype=np.uint8),
            labels=labels,
            class_names=tuple(map(str, range(NUM_CLASSES))),
        ),
        donors=(labels + 5) % NUM_CLASSES,
        probabilities=odds / odds.sum(axis=2, keepdims=True),
        predicted={CUE: after.argmax(axis=2)},
    )
    everything = np.arange(NUM_MODELS), np.arange(len(labels))
    return world, world.find_strongest(1, *everything)


def test_a_removal_that_is_the_same_for_all_cells_predicts_nothing() -> None:
    """The change of the cell that was chosen, on the images and models that chose it, is a fall in such a world."""
    plain, found = [], []
    for number in range(120):
        world, cells = draw_world(number)
        ((true, called),) = cells
        own = world.images.labels == true
        before, after = world.probabilities.argmax(axis=2), world.predicted[CUE]
        plain.append(float((after[:, own] == called).mean() - (before[:, own] == called).mean()))
        found.append(world.predict(cells, numpy_generator(number, "halves"))[0])
    assert np.mean(plain) < -0.01
    estimates = np.array([one.estimate for one in found])
    assert abs(estimates.mean()) < 3 * estimates.std() / np.sqrt(len(found)) + 0.001
    # Nominal 2.5 %.
    assert np.mean([one.high < 0 for one in found]) <= 0.05


def test_the_cell_that_the_cue_fills_is_predicted_to_fall_beyond_what_any_cell_does() -> None:
    found, plain = [], []
    for number in range(20):
        world, cells = draw_world(number, specific=3.0)
        assert cells == {(0, 1)}
        change, cue = world.predict(cells, numpy_generator(number, "halves"))
        assert cue == CUE
        found.append(change)
        own = world.images.labels == 0
        before, after = world.probabilities.argmax(axis=2), world.predicted[CUE]
        plain.append(float((after[:, own] == 1).mean() - (before[:, own] == 1).mean()))
    assert np.mean(plain) < np.mean([one.estimate for one in found]) < -0.1
    assert np.mean([one.high < 0 for one in found]) > 0.7


def test_cells_that_the_user_names_are_measured_whatever_is_strongest() -> None:
    world, _ = draw_world(0, specific=3.0)
    change, _ = world.predict(frozenset({(5, 6)}), numpy_generator(0, "halves"), is_named=True)
    assert change.low < 0 < change.high
    chosen, _ = world.predict(frozenset({(5, 6)}), numpy_generator(0, "halves"))
    assert chosen.high < 0


def test_what_some_models_and_images_choose_is_measured_on_others_and_every_pair_once() -> None:
    images, seen = make_images(60), np.zeros((NUM_SEEDS, 60), dtype=int)
    chosen_on: list[tuple[np.ndarray, np.ndarray]] = []

    def choose(models: np.ndarray, some: np.ndarray) -> None:
        chosen_on.append((models, some))

    def measure(_: None, models: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert not set(models) & set(chosen_on[-1][0])
        assert not set(some) & set(chosen_on[-1][1])
        seen[np.ix_(models, some)] += 1
        return np.full((len(models), len(some)), 0.25), some

    found = cross_fit(choose, measure, NUM_SEEDS, images, numpy_generator(0, "halves"))
    assert (seen == 1).all()
    assert found.estimate == pytest.approx(0.25)
    grouped = replace(images, groups=np.arange(60, dtype=np.int64) // 6)
    cross_fit(choose, measure, NUM_SEEDS, grouped, numpy_generator(0, "halves"))
    parts = [np.isin(np.arange(60), some).reshape(10, 6) for _, some in chosen_on[4:]]
    assert all((part == part[:, :1]).all() for part in parts)


def test_the_worst_of_classes_without_gaps_are_not_predicted_to_improve(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.arange(NUM_CLASSES), 20)
    images = AuditImages(
        images=np.zeros((200, 1, 1, 3), dtype=np.uint8), labels=labels, class_names=tuple(map(str, range(NUM_CLASSES)))
    )
    worst, predicted = [], []
    for number in range(60):
        generator = numpy_generator(number, "gaps")
        common, own = generator.integers(-1, 2, 200), generator.integers(-1, 2, (NUM_MODELS, 200))
        gaps = np.where(generator.random((NUM_MODELS, 200)) < 0.6, common, own).astype(float)
        means = [gaps[:, labels == c].mean() for c in range(NUM_CLASSES)]
        target = Target(kind=TargetKind.RING_GAP, classes=(str(np.argmax(means)),))
        effects = images.effects(gaps)
        monkeypatch.setattr(target_predictions, "measure_loss", lambda *_, found=effects, **__: found)
        models = ChoosingModels(audit_images=images, compute_logits=read_nothing, seed=number)
        worst.append(-max(means))
        predicted.append(predict_without_reliance(target, models).estimate)
    assert np.mean(worst) < -0.15
    assert abs(np.mean(predicted)) < 0.05


def test_the_half_depends_on_seed_and_sample_id_alone() -> None:
    ids = np.arange(4000)
    choosing = find_choosing(ids, None, 5)
    assert abs(choosing.mean() - 0.5) < 0.03
    assert np.array_equal(find_choosing(ids[::-1], None, 5), choosing[::-1])
    assert np.array_equal(find_choosing(ids[100:200], None, 5), choosing[100:200])
    other = find_choosing(ids, None, 6)
    assert abs((other == choosing).mean() - 0.5) < 0.03


def test_images_of_one_group_are_in_one_half() -> None:
    ids = np.arange(1200)
    choosing = find_choosing(ids, ids // 4, 5).reshape(-1, 4)
    assert (choosing == choosing[:, :1]).all()
    assert abs(choosing.mean() - 0.5) < 0.1

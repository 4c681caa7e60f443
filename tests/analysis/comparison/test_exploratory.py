"""The metrics beside macro-F1 are scikit-learn's, and their influence predicts what adding an image does."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from analysis.comparison.exploratory import METRICS, _score, compute_class_differences, compute_side_metrics
from analysis.statistics.arm_predictions import ArmPredictions
from benchmarks.validation.statistics_simulation import NUM_CLASSES, World, first_seeds
from search_spaces.errors import UserInputError
from tests.built_values import arm_of, predictions_of
from trainables.training.predictions import Predictions

NAMES = ("cat", "dog", "ship")


def draw(seed: int, skill: float, repeats: np.ndarray | None = None) -> Predictions:
    """Return predictions of 240 images; images of one class are fewer; `repeats` (240,) repeats images."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [120, 80, 40])
    logits = generator.standard_normal((240, 3))
    logits[np.arange(240), labels] += skill
    repeats = np.ones(240, dtype=np.int64) if repeats is None else repeats
    return predictions_of(np.repeat(labels, repeats), np.repeat(logits, repeats, axis=0))


def test_values_are_those_of_scikit_learn() -> None:
    arms = [[draw(seed, skill) for seed in (1, 2)] for skill in (1.5, 1.0)]
    found = {(m.name, m.group): m for m in compute_side_metrics(arms[:1], arms[1:], NAMES, {"animals": ["cat", "dog"]})}
    expected = {
        "accuracy": lambda p: sk.accuracy_score(p.labels, p.predicted),
        "balanced accuracy": lambda p: sk.balanced_accuracy_score(p.labels, p.predicted),
        "log loss": lambda p: sk.log_loss(p.labels, p.probabilities),
        "Brier score": lambda p: sum(
            sk.brier_score_loss(p.labels == k, p.probabilities[:, k]) for k in range(p.probabilities.shape[1])
        ),
        "worst class's F1": lambda p: sk.f1_score(p.labels, p.predicted, average=None).min(),
    }
    for name, compute in expected.items():
        metric = found[name, ""]
        assert metric.treatment == pytest.approx(np.mean([compute(p) for p in arms[0]]), abs=1e-6)
        assert metric.difference.estimate == pytest.approx(metric.treatment - metric.control, abs=1e-12)
        assert metric.difference.recipe is not None
    inside = arms[0][0].labels < 2
    shares = [(p.predicted == p.labels)[inside].mean() for p in arms[0]]
    assert found["accuracy", "animals"].treatment == pytest.approx(np.mean(shares))
    assert len(found) == 2 * len(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_the_influence_is_the_derivative_in_the_weight_of_an_image(name: str) -> None:
    compute = METRICS[name]
    value, influence = compute(_score(draw(3, 1.0), (0, 1, 2)))
    assert influence.mean() == pytest.approx(0, abs=1e-9)
    for image in (0, 100, 150, 230):
        repeats = np.full(240, 50)
        repeats[image] += 1
        heavier, _ = compute(_score(draw(3, 1.0, repeats), (0, 1, 2)))
        assert (heavier - value) * repeats.sum() == pytest.approx(influence[image], abs=0.05)


def test_one_seed_answers_for_these_models_alone_and_mistakes_are_refused() -> None:
    one, other = [[draw(1, 1.5)]], [[draw(1, 1.0)]]
    assert all(m.difference.recipe is None for m in compute_side_metrics(one, other, NAMES, {}))
    with pytest.raises(UserInputError, match="classes that do not exist: cow"):
        compute_side_metrics(one, other, NAMES, {"animals": ["cow"]})
    with pytest.raises(UserInputError, match="same seeds"):
        compute_side_metrics(one, [[draw(1, 1.0), draw(2, 1.0)]], NAMES, {})


@pytest.mark.parametrize("name", ["worst class's F1", "balanced accuracy"])
def test_one_image_of_a_rare_class_makes_no_difference(name: str) -> None:
    """Of 1,000 images, 20 are of a class of which the control gets ten right, and the treatment one more."""
    labels = np.repeat([0, 1], [980, 20])

    def predict(num_right: int) -> Predictions:
        predicted = labels.copy()
        predicted[980 + num_right :] = 0
        logits = 4 * np.eye(2, dtype=np.float32)[predicted]
        return predictions_of(labels, logits)

    for better in (10, 11):
        found = compute_side_metrics([[predict(better)]], [[predict(10)]], ("common", "rare"), {})
        models = next(metric for metric in found if metric.name == name).difference.models
        assert models.low < 0 < models.high
        assert models.high - models.low > 0.05


def test_the_worst_class_of_a_group_has_the_interval_that_it_has_among_all() -> None:
    """Images of other classes that are taken for it are errors of its F1 too."""
    arms = [[draw(seed, skill) for seed in (1, 2, 3)] for skill in (1.5, 1.0)]
    found = {
        m.group: m.difference.models
        for m in compute_side_metrics(arms[:1], arms[1:], NAMES, {"ships": ["ship"]})
        if m.name == "worst class's F1"
    }
    worst = METRICS["worst class's F1"]
    assert all(worst(_score(p, (0, 1, 2)))[0] == worst(_score(p, (2,)))[0] for arm in arms for p in arm)
    everyone, ships = found[""], found["ships"]
    assert everyone is not None
    assert ships is not None
    assert (ships.estimate, ships.low, ships.high) == (everyone.estimate, everyone.low, everyone.high)


TEN = tuple(f"class {i}" for i in range(NUM_CLASSES))


@pytest.fixture(name="pair")
def make_pair():
    """Treatment and control, 3 seeds, 400 images."""
    world = World(seed_sd=0.05, num_seeds=3, shifts=(0.0, 0.2), num_images=400)
    control, treatment = world.draw(np.random.default_rng(0))
    return treatment, control


def test_intervals_of_both_questions_stay_in_range_and_share_the_estimate(pair):
    for found in compute_class_differences(*pair, TEN):  # type: ignore[call-arg]
        for interval in (found.effect, found.models_effect):
            assert -1 <= interval.low <= interval.estimate <= interval.high <= 1
        assert found.models_effect.estimate == found.effect.estimate
        assert found.models_effect.high - found.models_effect.low <= found.effect.high - found.effect.low
        assert (found.p_value < 0.05) == (found.effect.low > 0 or found.effect.high < 0)


def test_three_seeds_do_not_make_the_intervals_useless(pair):
    """The crossed interval of one class alone has two degrees of freedom, and reaches beyond 30 pp here."""
    widths = [found.effect.high - found.effect.low for found in compute_class_differences(*pair, TEN)]  # type: ignore[call-arg]
    assert np.mean(widths) / 2 < 0.2


def test_equal_arms_have_no_flagged_class_where_classes_have_five_images() -> None:
    """Some of the 100 classes were flagged in each of 150 such draws."""
    generator, labels = np.random.default_rng(0), np.repeat(np.arange(100), 5)
    difficulty = generator.normal(size=len(labels))

    def draw_arm() -> ArmPredictions:
        wrong = difficulty + generator.normal(size=(3, len(labels))) > 1.2
        return arm_of(labels, np.where(wrong, generator.integers(0, 100, wrong.shape), labels))

    for _ in range(5):
        found = compute_class_differences(draw_arm(), draw_arm(), [str(label) for label in range(100)])
        assert not any(one.is_flagged for one in found)


def test_one_seed_has_no_differences_for_new_seeds(pair):
    assert compute_class_differences(*(first_seeds(arm, 1) for arm in pair), TEN) == ()  # type: ignore[call-arg]


def test_groups_of_images_widen_the_intervals(pair):
    copies = [
        replace(
            arm,
            labels=np.repeat(arm.labels, 4),
            sample_ids=np.arange(4 * len(arm.labels)),
            predicted=np.repeat(arm.predicted, 4, axis=1),
        )
        for arm in pair
    ]
    grouped = [replace(arm, groups=np.arange(len(arm.labels)) // 4) for arm in copies]
    widths = [
        np.mean([f.models_effect.high - f.models_effect.low for f in compute_class_differences(*sides, TEN)])  # type: ignore[call-arg]
        for sides in (copies, grouped)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_a_class_without_images_does_not_disturb_the_others(pair):
    more = [replace(arm, num_classes=NUM_CLASSES + 1) for arm in pair]
    found = compute_class_differences(*more, [*TEN, "absent"])  # type: ignore[call-arg]
    assert (found[-1].effect.estimate, found[-1].p_value) == (0.0, 1.0)
    assert [f.effect for f in found[:-1]] == [f.effect for f in compute_class_differences(*pair, TEN)]  # type: ignore[call-arg]

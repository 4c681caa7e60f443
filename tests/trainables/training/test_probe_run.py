"""A head alone on cached features: the same as on images, bitwise reproducible and resumable; heads that start from a probe."""

from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.errors import UserInputError
from tests.trainables.training.test_loop import CPU, assert_same_run, change, make_data, without_timings
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import MEAN, find_head, fold_state
from trainables.training import frozen_features
from trainables.training.evaluation import compute_logits
from trainables.training.linear_probe import Sample, draw_sample, fit_linear_probe, measure_probe
from trainables.training.loop import ProbeRun, TrainingRun
from trainables.training.trial_cost import make_run

DATA = make_data(num_train=48)
PROBE = change(tuning="probe", max_epochs=3, max_lr=0.1, class_weighting="inverse_frequency")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "abstudy" / "features"


def train(run: TrainingRun) -> TrainingRun:
    while not run.is_finished:
        run.run_epoch()
    return run


def test_a_probe_computes_its_features_once_for_all_trials(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(make_run(PROBE, DATA, device=CPU))
    assert isinstance(first, ProbeRun)
    first.predict("test")
    num_entries = len(list(cache.glob("*.npy")))
    monkeypatch.setattr(frozen_features, "compute_logits", None)
    second = train(make_run(PROBE, DATA, device=CPU))
    assert_same_run(first, second)
    other = train(make_run(change(tuning="probe", max_epochs=3, max_lr=0.2), DATA, device=CPU))
    assert without_timings(other.history) != without_timings(first.history)
    assert len(list(cache.glob("*.npy"))) == num_entries


def test_the_stored_weights_of_a_probe_predict_as_the_run_did() -> None:
    run = train(make_run(PROBE, DATA, device=CPU))
    state = run.state_dict()
    assert not any(MEAN in name for name in state)
    model = build_model(PROBE, 3, weights="none")
    model.load_state_dict(state)
    model = place_model(model, PROBE, CPU)
    images = torch.from_numpy(np.array(DATA.images))
    logits = compute_logits(model, images, np.sort(DATA.splits.test), PROBE, CPU, 16)
    np.testing.assert_allclose(logits, run.predict("test").logits, rtol=1e-4, atol=1e-4)
    assert float(np.ptp(logits)) > 0.01


@pytest.mark.parametrize("changes", [{}, {"probe_views": 2, "flip_probability": 1.0}, {"ema_decay": 0.9}])
def test_a_resumed_probe_is_the_same(changes: dict[str, float]) -> None:
    config = change(tuning="probe", max_epochs=3, max_lr=0.1, **changes)
    whole = train(make_run(config, DATA, device=CPU))
    first = make_run(config, DATA, device=CPU)
    first.run_epoch()
    assert_same_run(train(make_run(config, DATA, device=CPU, checkpoint=first.checkpoint())), whole)


def test_the_averaged_head_is_evaluated_and_the_other_trained_on() -> None:
    run = make_run(change(tuning="probe", max_epochs=2, max_lr=0.1, ema_decay=0.9), DATA, device=CPU)
    assert isinstance(run, ProbeRun)
    trained = find_head(run.model)[1]
    run.run_epoch()
    averaged = find_head(run.evaluated_model)[1]
    assert find_head(run.model)[1] is trained
    assert not torch.equal(averaged.weight, trained.weight)
    assert torch.equal(averaged.weight, find_head(run.evaluated_model)[1].weight)


def test_a_checkpoint_of_a_probe_holds_its_head_alone() -> None:
    run = make_run(PROBE, DATA, device=CPU)
    run.run_epoch()
    checkpoint = run.checkpoint()
    assert {name.partition(".")[0] for name in checkpoint.model_state} == {"head"}
    complete, state = run.complete_state(checkpoint.evaluated_state), run.state_dict()
    assert complete.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in complete.items())


def test_views_are_augmented_and_differ_from_the_images() -> None:
    plain = train(make_run(change(tuning="probe", max_epochs=2), DATA, device=CPU))
    views = train(make_run(change(tuning="probe", max_epochs=2, probe_views=2, flip_probability=1.0), DATA, device=CPU))
    assert plain.history[0].train_loss == views.history[0].train_loss
    assert plain.history[1].train_loss != views.history[1].train_loss


def test_a_head_that_starts_from_the_probe_is_the_probe() -> None:
    config = change(head_init="probe", max_epochs=2)
    logits = TrainingRun(config, DATA, device=CPU).predict("search").logits
    model, images = (
        place_model(build_model(config, 3, weights="none"), config, CPU),
        torch.from_numpy(np.array(DATA.images)),
    )
    with frozen_features.borrow_backbone(model, config, CPU) as backbone:
        probe = measure_probe(backbone, DATA, images)
        features = backbone.compute_part(images, np.sort(DATA.splits.search), "x")
    np.testing.assert_allclose(logits, probe.compute_logits(features), rtol=1e-3, atol=1e-3)
    assert float(np.ptp(logits)) > 0.1


@pytest.mark.parametrize("max_lr", [0.003, 0.02, 0.1])
def test_the_rates_of_a_first_study_train_a_probe_within_300_steps(max_lr: float) -> None:
    config = change(tuning="probe", max_epochs=50, max_lr=max_lr, batch_size=8)
    run = train(make_run(config, DATA, device=CPU))
    assert run.history[-1].search_loss < 0.1


def test_a_run_that_started_from_the_probe_is_resumed_without_it(cache: Path) -> None:
    config = change(head_init="probe", max_epochs=2)
    whole = train(TrainingRun(config, DATA, device=CPU))
    first = TrainingRun(config, DATA, device=CPU)
    first.run_epoch()
    for path in cache.iterdir():
        if path.is_file():
            path.unlink()
    second = train(TrainingRun(config, DATA, device=CPU, checkpoint=first.checkpoint()))
    assert_same_run(second, whole)
    assert not list(cache.glob("*.npy"))


def test_standardization_is_folded_into_the_head() -> None:
    model = build_model(change(), 3, weights="none").eval()
    head = find_head(model)[1]
    head.standardize(torch.linspace(-1, 1, head.in_features), torch.linspace(0.5, 2, head.in_features))
    inputs = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = model(inputs)
    plain = build_model(change(), 3, weights="none").eval()
    plain.load_state_dict(fold_state(model.state_dict()))
    assert torch.equal(plain(inputs), expected)
    assert not torch.allclose(build_model(change(), 3, weights="none").eval()(inputs), expected)


def test_processes_do_not_share_a_probe() -> None:
    with pytest.raises(UserInputError, match="trains in one process"):
        make_run(change(tuning="probe", processes=2), DATA, device=CPU)


def make_features(counts: tuple[int, ...], seed: int) -> Sample:
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centers = np.random.default_rng(9).normal(size=(len(counts), 6))
    return Sample((centers[labels] + generator.normal(size=(len(labels), 6))).astype(np.float32), labels)


def test_the_probe_is_logistic_regression_and_weights_unequal_classes() -> None:
    train_set, search = make_features((200, 20, 20), 0), make_features((60, 60, 60), 1)
    probe = fit_linear_probe(train_set, search, 3)
    predicted = probe.compute_logits(search[0]).argmax(axis=1)
    assert probe.is_balanced
    assert np.mean(predicted == search[1]) > 0.7
    even = fit_linear_probe(make_features((60, 60, 60), 2), search, 3)
    assert not even.is_balanced


@pytest.mark.parametrize("counts", [(30, 30), (30, 0, 30), (1, 30, 30), (30, 0)])
def test_two_classes_one_image_and_missing_classes(counts: tuple[int, ...]) -> None:
    sample = make_features(counts, 0)
    probe = fit_linear_probe(sample, sample, len(counts))
    predicted = probe.compute_logits(sample.features).argmax(axis=1)
    assert np.mean(predicted == sample.labels) > 0.8
    assert set(predicted.tolist()) <= set(sample.labels.tolist())


def test_a_feature_without_variance_stays_finite() -> None:
    sample = make_features((30, 30), 0)
    features = sample.features
    features[:, 0] = 3.0
    probe = fit_linear_probe(sample, sample, 2)
    changed = features.copy()
    changed[:, 0] = 4.0
    assert np.abs(probe.compute_logits(changed) - probe.compute_logits(features)).max() < 1.0


def test_a_sample_is_stratified() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    sample = draw_sample(np.arange(100), labels, 20)
    assert np.bincount(labels[sample]).tolist() == [18, 2]
    assert draw_sample(np.arange(100), labels, 100) is not sample
    assert len(draw_sample(np.arange(100), labels, 100)) == 100

"""A new classification layer after the last epoch: on unseen images, with what misleads weighing as much as what helps."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search_spaces.errors import UserInputError
from tests.trainables.training.test_loop import CPU, assert_same_run, change, without_timings
from trainables.data.augmentation.mixing import make_ring
from trainables.data.splits import Splits
from trainables.models.backbones import build_model, place_model
from trainables.models.heads import Head
from trainables.training.evaluation import compute_logits
from trainables.training.head_refit import check_head, list_refit_problems, list_refits, refit_head, weigh_alike
from trainables.training.loop import TrainingRun
from trainables.training.trial_cost import make_run
from trainables.training.trial_data import TrialData

SIDE, NAMES = 16, ("a", "b", "c")
RING = make_ring(SIDE, SIDE, 6 / 32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def make_shortcut_data(rho: float, number: int = 600, seed: int = 0) -> TrialData:
    """Return images whose center is noisy and whose ring shows the class with probability rho, else any class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    shown = np.where(generator.random(number) < rho, labels, generator.integers(3, size=number))
    images = generator.integers(0, 60, (number, SIDE, SIDE, 3), dtype=np.uint8)
    rows = np.arange(number)
    images[rows, :, :, labels] += generator.integers(0, 120, number, dtype=np.uint8)[:, None, None]
    ring = np.zeros((number, 3), dtype=np.uint8)
    ring[rows, shown] = 200
    images = np.where(RING[None, :, :, None], ring[:, None, None], images)
    parts = map(np.sort, np.array_split(generator.permutation(number), 4))
    splits = Splits(**dict(zip(("train", "search", "confirm", "test"), parts, strict=True)), data_fingerprint=str(seed))
    groups = {"soft": ("a",)}
    return TrialData(images=images, labels=labels, splits=splits, class_names=NAMES, class_groups=groups)


class Reader(nn.Module):
    """Reads the color of the ring and of the center, and tells classes apart by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = Head(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        middle = inputs[:, :, 4:-4, 4:-4].mean(dim=(2, 3))
        return self.fc(torch.cat([inputs[:, :, 0, 0], middle], dim=1))


def measure_accuracy(kind: str, train: TrialData, test: TrialData) -> float:
    """Return the accuracy on all images of other data after the head was fitted anew."""
    config, model = change(head_refit=kind), Reader().eval()
    refit_head(model, config, train, torch.from_numpy(train.images), CPU)
    every = np.arange(len(test.labels))
    logits = compute_logits(model, torch.from_numpy(test.images), every, config, CPU, 64)
    return float(np.mean(logits.argmax(axis=1) == test.labels))


def test_a_head_fitted_with_other_rings_does_not_read_the_ring() -> None:
    train, misleading = make_shortcut_data(0.95), make_shortcut_data(0.0, seed=1)
    with_swaps, as_they_are = (measure_accuracy(kind, train, misleading) for kind in ("ring_swaps", "balanced"))
    assert as_they_are < 0.6
    assert with_swaps > as_they_are + 0.2


def test_groups_that_weigh_alike_give_the_rare_ones_a_voice() -> None:
    """The groups are the classes that the rings show, as in deep feature reweighting."""
    train, misleading = make_shortcut_data(0.9, 2400), make_shortcut_data(0.0, seed=1)
    shown = train.images[:, 0, 0].argmax(axis=1).astype(np.int64)
    grouped = replace(train, groups=shown)
    assert measure_accuracy("groups", grouped, misleading) > measure_accuracy("balanced", train, misleading) + 0.1


def test_each_class_and_each_of_its_groups_weighs_alike() -> None:
    labels = np.repeat([0, 1, 2], [10, 4, 6])
    groups = np.concatenate([np.repeat([7, 8], [9, 1]), [7, 7, 8, 9], np.full(6, 7)])
    weights = weigh_alike(labels, groups)
    assert weights.mean() == pytest.approx(1.0)
    assert [weights[labels == k].sum() for k in range(3)] == pytest.approx([20 / 3] * 3)
    assert weights[(labels == 0) & (groups == 8)].sum() == pytest.approx(10 / 3)
    assert weights[(labels == 1) & (groups == 9)].sum() == pytest.approx(20 / 9)


def finish(run: TrainingRun) -> TrainingRun:
    while not run.is_finished:
        run.run_epoch()
    return run


DATA = make_shortcut_data(0.5, 160)
VARIANTS: list[dict[str, float | str]] = [
    {"ema_decay": 0.9},
    {"head_init": "probe"},
    {"tuning": "probe", "ema_decay": 0.5},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_refit_is_the_same_resumed_stored_and_taken_over(variant: dict[str, float | str]) -> None:
    config = change(head_refit="ring_swaps", max_epochs=2, **variant)
    whole = finish(make_run(config, DATA, device=CPU))
    plain = finish(make_run(change(max_epochs=2, **variant), DATA, device=CPU))
    assert without_timings(whole.history) == without_timings(plain.history), "the scores are those before"
    logits = whole.predict("test").logits
    assert not np.allclose(logits, plain.predict("test").logits)

    first = make_run(config, DATA, device=CPU)
    first.run_epoch()
    assert_same_run(finish(make_run(config, DATA, device=CPU, checkpoint=first.checkpoint())), whole)
    ended = make_run(config, DATA, device=CPU, checkpoint=whole.checkpoint())
    assert ended.is_finished
    np.testing.assert_allclose(ended.predict("test").logits, logits, rtol=1e-5, atol=1e-5)

    model = build_model(config, 3, weights="none")
    model.load_state_dict(whole.state_dict())
    model, images = place_model(model, config, CPU).eval(), torch.from_numpy(DATA.images)
    stored = compute_logits(model, images, DATA.splits.test, config, CPU, 16)
    np.testing.assert_allclose(stored, logits, rtol=1e-4, atol=1e-4)

    taken = make_run(config, DATA, device=CPU)
    assert isinstance(taken, TrainingRun)
    taken.take_over(plain.state_dict(), plain.history)
    assert taken.is_finished
    np.testing.assert_allclose(taken.predict("test").logits, logits, rtol=1e-4, atol=1e-4)


def list_bad_data() -> Iterator[tuple[str, TrialData, str]]:
    yield "groups", DATA, "the source gives none"
    yield "groups", replace(DATA, groups=np.where(DATA.labels == 1, 9, np.arange(160) % 4)), "b has one group alone"
    few = replace(DATA.splits, search=DATA.splits.search[DATA.labels[DATA.splits.search] != 2])
    yield "balanced", replace(DATA, splits=few), "needs 2 images of each class in the split search, but c has fewer"
    yield "ring_swaps", replace(DATA, images=DATA.images[:, :2, :2]), "covers the whole image"


@pytest.mark.parametrize(("kind", "data", "message"), list(list_bad_data()))
def test_data_that_do_not_allow_a_refit_are_refused_before_training(kind: str, data: TrialData, message: str) -> None:
    (problem,) = list_refit_problems(kind, data)
    assert message in problem
    assert kind not in list_refits(data)
    with pytest.raises(UserInputError, match=message):
        make_run(change(head_refit=kind), data, device=CPU)


def test_all_problems_are_listed_at_once_and_folds_are_one() -> None:
    few = replace(DATA.splits, search=DATA.splits.search[DATA.labels[DATA.splits.search] != 2])
    assert len(list_refit_problems("groups", replace(DATA, splits=few), has_folds=True)) == 3
    assert not list_refit_problems("none", replace(DATA, splits=few), has_folds=True)


def test_classes_are_weighed_alike_only_where_they_are_unequal() -> None:
    assert list_refits(DATA) == ("ring_swaps",)
    search = DATA.splits.search
    unequal = np.concatenate([search[DATA.labels[search] != 2], search[DATA.labels[search] == 2][:4]])
    assert list_refits(replace(DATA, splits=replace(DATA.splits, search=unequal))) == ("ring_swaps", "balanced")


@pytest.mark.parametrize(("num_groups", "is_proposed"), [(160, False), (4, True)])
def test_groups_of_one_image_each_are_no_choice(num_groups: int, *, is_proposed: bool) -> None:
    """As where a few images have near-duplicates: all weights would be alike."""
    groups = np.arange(160) % num_groups
    groups[:2] = 0
    data = replace(DATA, groups=groups)
    assert not list_refit_problems("groups", data), "who asks for it gets it"
    assert ("groups" in list_refits(data)) == is_proposed


def test_a_model_whose_head_is_not_at_its_end_is_refused() -> None:
    class Averaged(Reader):
        def forward(self, inputs: Tensor) -> Tensor:
            places = torch.cat([inputs.flatten(2).mT, inputs.flatten(2).mT], dim=2)
            return self.fc(places)

    unbiased = Reader()
    unbiased.fc = Head(6, 3, bias=False)
    images = torch.from_numpy(DATA.images)
    for model in (Averaged(), unbiased):
        with pytest.raises(UserInputError, match="has no linear head with a bias at its end"):
            check_head(model.eval(), change(head_refit="balanced"), DATA, images, CPU)
        check_head(model, change(), DATA, images, CPU)

"""Custom training loops: the trial around them, and what they may get wrong."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError
from search_spaces.extensions import TRUST
from tests.trainables.training.test_loop import make_data
from trainables.training.checkpoint import Checkpoint
from trainables.training.trainable import find_trainable, list_unread
from trainables.training.trial_cost import make_run
from trainables.training.trial_data import TrialData
from trainables.training.trial_run import TrainableRun, try_trainable, unpack_state

EXAMPLES = Path(__file__).parents[3] / "examples" / "abstudy_example"
pytestmark = pytest.mark.usefixtures("trusted")
CPU = torch.device("cpu")


class MeanColor:
    """Learns nothing but the mean color of each class; subclasses break one method each."""

    settings = ("sharpness",)

    def build(self, config, images, labels, num_classes):
        self.sharpness = config.number("sharpness")
        colors = images.mean(axis=(1, 2))
        self.means = np.stack([colors[labels == k].mean(axis=0) for k in range(num_classes)])

    def run_epoch(self):
        return 1.0

    def predict(self, images):
        distances = images.mean(axis=(1, 2))[:, None] - self.means
        return -self.sharpness * (distances**2).sum(axis=2)

    def checkpoint(self):
        return pickle.dumps((self.sharpness, self.means))

    def restore(self, state):
        self.sharpness, self.means = pickle.loads(state)


class Forgetful(MeanColor):
    def checkpoint(self):
        return pickle.dumps((self.sharpness, self.means + 1000 * np.eye(*self.means.shape)))


class WrongShape(MeanColor):
    def predict(self, images):
        return super().predict(images)[:, :1]


class Silent(MeanColor):
    def run_epoch(self):
        return None


class TextState(MeanColor):
    def checkpoint(self):
        return "state"


class Failing(MeanColor):
    def run_epoch(self):
        raise KeyError("momentum")


class Incomplete:
    def build(self, config, images, labels, num_classes):
        """Do nothing."""


def own(name: str, **values: float | str) -> TrialConfig:
    given = {"trainable": f"{__name__}:{name}", "sharpness": 0.01, **values}
    return TrialConfig(arm="own", seed=3, hyperparameters=given, fixed={"max_epochs": 4, "image_size": 32})


@pytest.fixture
def data() -> TrialData:
    return make_data(size=16)


def test_metrics_are_those_of_the_loops_predictions(data: TrialData) -> None:
    run = make_run(own("MeanColor"), data, device=CPU)
    assert isinstance(run, TrainableRun)
    metrics = run.run_epoch()
    found = run.predict("search")
    assert (metrics.epoch, metrics.train_loss) == (1, 1.0)
    expected = -np.log(found.probabilities[np.arange(len(found.labels)), found.labels]).mean()
    assert metrics.search_loss == pytest.approx(expected)
    assert (found.sample_ids == np.sort(data.splits.search)).all()
    assert metrics.macro_f1 is not None
    assert 0 < metrics.macro_f1 <= 1


def test_a_resumed_trial_of_scikit_learn_has_the_same_bits(data: TrialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv(TRUST, str(EXAMPLES))
    values = {"alpha": 0.001, "penalty": "l2"}
    config = own("MeanColor", trainable="abstudy_example.loops:PixelRegression", **values)
    whole = make_run(config, data, device=CPU)
    first = make_run(config, data, device=CPU)
    for _ in range(2):
        first.run_epoch()
    kept = Checkpoint.from_bytes(first.checkpoint().to_bytes())
    second = make_run(config, data, device=CPU, checkpoint=kept)
    while not whole.is_finished:
        whole.run_epoch()
    while not second.is_finished:
        second.run_epoch()
    assert [m.macro_f1 for m in whole.history] == [m.macro_f1 for m in second.history]
    assert np.array_equal(whole.predict("test").logits, second.predict("test").logits)
    assert kept.epoch == 2
    assert len(unpack_state(second.state_dict())) > 100
    sys.modules.pop("abstudy_example.loops", None)


def test_a_checkpoint_of_another_configuration_is_refused(data: TrialData) -> None:
    run = make_run(own("MeanColor"), data, device=CPU)
    run.run_epoch()
    with pytest.raises(UserInputError, match="the checkpoint must belong to the configuration"):
        make_run(own("MeanColor", sharpness=0.5), data, device=CPU, checkpoint=run.checkpoint())


def test_a_loop_whose_logits_are_not_finite_diverges(data: TrialData) -> None:
    metrics = make_run(own("MeanColor", sharpness=float("inf")), data, device=CPU).run_epoch()
    assert metrics.divergence


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Forgetful", r"Forgetful\.restore must bring back what predicts, but .* differ by up to \d"),
        (
            "WrongShape",
            r"WrongShape\.predict must return an array of numbers of shape \(\d+, 3\), but returned an array of",
        ),
        ("Silent", r"Silent\.run_epoch must return the training loss, a number, but returned NoneType"),
        ("TextState", r"TextState\.checkpoint must return bytes, but returned str 'state'"),
        ("Failing", r"Failing\.run_epoch failed with KeyError: 'momentum' \(.*test_trainable\.py, line \d+\)"),
        ("Incomplete", r"lacks run_epoch\(\), predict\(\), checkpoint\(\), restore\(\), settings, a tuple"),
        ("Absent", r"the trainable .* cannot be imported \(AttributeError"),
    ],
)
def test_what_breaks_the_protocol_is_named_before_the_first_trial(data: TrialData, name: str, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        try_trainable(own(name), data)


def test_a_loop_that_keeps_its_promises_passes(data: TrialData) -> None:
    try_trainable(own("MeanColor"), data)


def test_settings_that_the_loop_does_not_read_are_named() -> None:
    (problem,) = list_unread(f"{__name__}:MeanColor", ["sharpness", "sharpnes", "trainable", "max_epochs"])
    assert problem == f"{__name__}:MeanColor does not read sharpnes (did you mean 'sharpness'?)"
    with pytest.raises(UserInputError, match="must be a class"):
        find_trainable(f"{__name__}:own")

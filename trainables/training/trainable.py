"""`Trainable`: the protocol of a custom training loop, and the checks of what such a loop returns.

A study that names one, `[train] trainable = NAME`, still has search, confirmation, records, comparison and
audits. The metrics are computed here, from the loop's predictions, so that every loop is judged alike.
"""

import functools
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search_spaces.config import TrialConfig
from search_spaces.errors import UserInputError, nearest_name
from search_spaces.extensions import load_object, locating
from search_spaces.settings import BUILT_IN_LOOP

TRAINABLE_ENTRY_POINTS = "abstudy.trainables"
METHODS = ("build", "run_epoch", "predict", "checkpoint", "restore")
# Methods and the names of their arguments; the classes of others are instantiated without arguments.
EXAMPLE = "examples/abstudy_example/abstudy_example/loops.py"


class Trainable(Protocol):
    """A custom training loop. An instance, made without arguments, serves one trial.

    Equal configuration, data and seed must give equal predictions, whether or not the trial was interrupted: derive all random
    numbers from `config.seed`, and keep the state of generators in `checkpoint`.

    Attributes:
        settings: Names of the values of the configuration that the loop reads; a spec may search them or set them. The trial
            has `config.whole("max_epochs")` epochs in any case.
    """

    settings: tuple[str, ...]

    def build(
        self, config: TrialConfig, images: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int
    ) -> None:
        """Prepare the first epoch.

        Args:
            config: Configuration and seed of the trial.
            images: (N, H, W, 3) uint8, RGB images of the training split; read-only.
            labels: (N,) int64 in [0, K).
            num_classes: K.
        """

    def run_epoch(self) -> float:
        """Train one epoch and return the training loss; a trial whose loss is not finite has diverged."""

    def predict(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return (M, K) logits, such as the logarithms of probabilities, of (M, H, W, 3) images; called after an epoch."""

    def checkpoint(self) -> bytes:
        """Return all that the next epoch and `predict` depend on, apart from the arguments of `build`."""

    def restore(self, state: bytes) -> None:
        """Continue from a `checkpoint`: after `build`, to train on; or without it, to predict."""


@functools.lru_cache(maxsize=32)
def find_trainable(name: str) -> type[Any]:
    """Return the class of an entry point of the group `abstudy.trainables`, or of "package.module:Class" in the working folder.

    Raises:
        UserInputError: If it cannot be loaded, or lists everything that it lacks of `Trainable`.
    """
    found = load_object(name, TRAINABLE_ENTRY_POINTS, "the trainable")
    if not isinstance(found, type):
        raise UserInputError(f"the trainable {name!r} must be a class, but is {type(found).__name__}")
    missing = [f"{method}()" for method in METHODS if not callable(getattr(found, method, None))]
    settings = getattr(found, "settings", None)
    if not isinstance(settings, tuple | list) or not all(isinstance(entry, str) for entry in settings):
        missing.append("settings, a tuple of the names that it reads")
    if missing:
        raise UserInputError(f"the trainable {name!r} lacks {', '.join(missing)}; {EXAMPLE} shows one")
    return found


def is_own_loop(config: TrialConfig) -> bool:
    """Return whether a custom trainable trains this configuration, not the product's loop."""
    return config.word("trainable") != BUILT_IN_LOOP


def list_unread(name: str, given: Iterable[str]) -> list[str]:
    """Return a message for each given setting that neither the trainable nor the trial around it reads."""
    settings = list(find_trainable(name).settings)
    return [
        f"{name} does not read {setting}{nearest_name(setting, settings)}"
        for setting in given
        if setting not in (*settings, "trainable", "max_epochs")
    ]


class GuardedTrainable:
    """A `Trainable` whose errors and results are turned into messages that name the method and what came back."""

    def __init__(self, name: str, num_classes: int) -> None:
        """Make an instance of the class of `name`.

        Args:
            name: As for `find_trainable`.
            num_classes: K.
        """
        self.name = name
        self.num_classes = num_classes
        loop = find_trainable(name)
        with locating(f"{name}.__init__"):
            self._loop = loop()

    def build(self, config: TrialConfig, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Call `build` with arrays that cannot be written to; they must be copies."""
        images.setflags(write=False)
        labels.setflags(write=False)
        self._call("build", config, images, labels, self.num_classes)

    def run_epoch(self) -> float:
        """Call `run_epoch`; raise UserInputError if it does not return a number."""
        loss = self._call("run_epoch")
        if isinstance(loss, bool) or not isinstance(loss, float | int | np.floating | np.integer):
            raise self._wrong("run_epoch", "the training loss, a number", _describe(loss))
        return float(loss)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Call `predict`; raise UserInputError if it does not return (M, K) numbers."""
        found = self._call("predict", images)
        expected = (len(images), self.num_classes)
        if not isinstance(found, np.ndarray) or found.shape != expected or found.dtype.kind not in "fiu":
            raise self._wrong("predict", f"an array of numbers of shape {expected}", _describe(found))
        return np.ascontiguousarray(found, dtype=np.float32)

    def checkpoint(self) -> bytes:
        """Call `checkpoint`; raise UserInputError if it does not return bytes."""
        state = self._call("checkpoint")
        if not isinstance(state, bytes) or not state:
            raise self._wrong("checkpoint", "bytes", _describe(state))
        return state

    def restore(self, state: bytes) -> None:
        """Call `restore`."""
        self._call("restore", state)

    def _call(self, method: str, *arguments: object) -> Any:
        with locating(f"{self.name}.{method}"):
            return getattr(self._loop, method)(*arguments)

    def _wrong(self, method: str, expected: str, got: str) -> UserInputError:
        return UserInputError(f"{self.name}.{method} must return {expected}, but returned {got}")


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {str(value)[:40]!r}"

"""A custom training loop: logistic regression on the pixels, by stochastic gradient descent."""

import pickle

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

from search_spaces.config import TrialConfig

SIDE = 8


class PixelRegression:
    """`[train] trainable = "example-pixels"`, with the settings `alpha` and `penalty`."""

    settings = ("alpha", "penalty")

    def build(
        self, config: TrialConfig, images: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int
    ) -> None:
        """Keep the pixels; the classifier sees every class from its first batch on."""
        self.seed, self.classes, self.epoch = config.seed, np.arange(num_classes), 0
        self.classifier = SGDClassifier(
            loss="log_loss", alpha=config.number("alpha"), penalty=config.word("penalty"), random_state=config.seed
        )
        self.pixels, self.labels = read_pixels(images), labels

    def run_epoch(self) -> float:
        """Pass once over the images, in an order of seed and epoch, and return the training loss."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.labels))
        self.classifier.partial_fit(self.pixels[order], self.labels[order], classes=self.classes)
        self.epoch += 1
        return float(log_loss(self.labels, self.classifier.predict_proba(self.pixels), labels=self.classes))

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the logarithms of the probabilities."""
        probabilities = np.asarray(self.classifier.predict_proba(read_pixels(images)), dtype=np.float64)
        logits: NDArray[np.float64] = np.log(probabilities.clip(1e-7))
        return logits

    def checkpoint(self) -> bytes:
        """Return the classifier and the number of the epoch."""
        return pickle.dumps((self.classifier, self.epoch))

    def restore(self, state: bytes) -> None:
        """Take them over."""
        self.classifier, self.epoch = pickle.loads(state)


def read_pixels(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (N, 192) pixels in [0, 1], averaged over blocks of the images, whose side must be a multiple of 8 px."""
    n, side = images.shape[:2]
    blocks = images.reshape(n, SIDE, side // SIDE, SIDE, side // SIDE, 3)
    pixels: NDArray[np.float64] = blocks.mean(axis=(2, 4)).reshape(n, -1) / 255
    return pixels

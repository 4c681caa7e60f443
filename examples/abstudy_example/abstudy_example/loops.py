"""A training loop of one's own: logistic regression on the pixels, by stochastic gradient descent."""

import pickle

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

SIDE = 8


class PixelRegression:
    """`[train] trainable = "abstudy_example.loops:PixelRegression"`, with the settings `alpha` and `penalty`."""

    settings = ("alpha", "penalty")

    def build(self, config, images, labels, num_classes):
        """Keep the pixels; the classifier sees every class from its first batch on."""
        self.seed, self.classes, self.epoch = config.seed, np.arange(num_classes), 0
        self.classifier = SGDClassifier(
            loss="log_loss", alpha=config.number("alpha"), penalty=config.word("penalty"), random_state=config.seed
        )
        self.pixels, self.labels = read_pixels(images), labels

    def run_epoch(self):
        """Pass once over the images, in an order of seed and epoch, and return the training loss."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.labels))
        self.classifier.partial_fit(self.pixels[order], self.labels[order], classes=self.classes)
        self.epoch += 1
        return log_loss(self.labels, self.classifier.predict_proba(self.pixels), labels=self.classes)

    def predict(self, images):
        """Return the logarithms of the probabilities."""
        return np.log(self.classifier.predict_proba(read_pixels(images)).clip(1e-7))

    def checkpoint(self):
        """Return the classifier and the number of the epoch."""
        return pickle.dumps((self.classifier, self.epoch))

    def restore(self, state):
        """Take them over."""
        self.classifier, self.epoch = pickle.loads(state)


def read_pixels(images):
    """Return (N, 192) pixels in [0, 1], averaged over blocks of the images, whose side must be a multiple of 8 px."""
    n, side = images.shape[:2]
    blocks = images.reshape(n, SIDE, side // SIDE, SIDE, side // SIDE, 3)
    return blocks.mean(axis=(2, 4)).reshape(n, -1) / 255

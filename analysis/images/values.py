"""Findings about images before anything is trained: what the page and the terminal of an inspection show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.confusions.values import LabelIssue
from analysis.statistics.interval import Interval
from analysis.statistics.metrics import FloatArray, IntArray
from trainables.data.image_audit import AuditReport, AuditStage
from trainables.data.images import Aspect, ImageSet
from trainables.data.splits import Splits

# Modified z-score beyond which a value stands out (Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers, section 3.3).
ODDITY_THRESHOLD = 3.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePair:
    """Two images that are equal or nearly so.

    Attributes:
        first, second: sample ids.
        splits: split of each.
        labels: class index of each.
        distance: bits of 64 in which the perceptual hashes differ; None for equal pixels.
    """

    first: int
    second: int
    splits: tuple[str, str]
    labels: tuple[int, int]
    distance: int | None

    @property
    def is_across(self) -> bool:
        """Whether the images lie in different splits."""
        return self.splits[0] != self.splits[1]

    @property
    def is_conflict(self) -> bool:
        """Whether the images have different labels."""
        return self.labels[0] != self.labels[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddities:
    """The images of a set that are most extreme in one way.

    Attributes:
        kind: "blurred", "dark", "bright", "small", "large", "wide" or "tall".
        num_beyond: images beyond `ODDITY_THRESHOLD`.
        sample_ids: the most extreme ones beyond it, the most extreme first; not all of them.
        values: of these images: variance of the Laplacian, mean gray level of 255, root of the area in px, width / height.
        median: of all images.
    """

    kind: str
    num_beyond: int
    sample_ids: tuple[int, ...]
    values: tuple[float, ...]
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorProbe:
    """What color alone predicts.

    Attributes:
        features: what the probe sees.
        macro_f1: out of fold, with its interval for new images.
        chance: macro-F1 expected if the predictions were independent of the labels.
    """

    features: str
    macro_f1: Interval
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectra:
    """Radially averaged power spectra of images at the model's input size.

    Attributes:
        frequencies: (F,) cycles per pixel of the model's input, up to 1/2.
        power: (F,) mean power by interpolation; gray levels squared, per pixel.
    """

    frequencies: FloatArray
    power: dict[str, FloatArray]

    def gain(self, treatment: str = "bicubic", control: str = "bilinear") -> FloatArray:
        """Return (F,) power of one interpolation over that of the other; 1 where both have none."""
        both = self.power[treatment], self.power[control]
        return np.divide(*both, out=np.ones_like(both[0]), where=both[1] > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Training images of the first classes.

    Attributes:
        classes: class index of each row.
        before: by row, (E, H, W, 3) uint8.
        after: by row, (E, S, S, 3) uint8: the same images as the model sees them in training.
        cutmix_probability: share of them that got a box from another image.
        mixup_fraction: share of them that were blended with another image.
    """

    classes: tuple[int, ...]
    before: tuple[NDArray[np.uint8], ...]
    after: tuple[NDArray[np.uint8], ...]
    cutmix_probability: float
    mixup_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSeparability:
    """How well a probe separates two classes.

    Attributes:
        first, second: class indices of the image set.
        area: probability that the probe orders an image of each rightly; the interval is for it alone.
        confusion_rate: share of the two classes' images that are predicted as the other one.
    """

    first: int
    second: int
    area: Interval
    confusion_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLoss:
    """What a step down the ladder costs a pair of classes: the difference in area, with its interval.

    Attributes:
        first, second: class indices of the image set.
        loss: area at the larger side minus area at the smaller one; the interval is adjusted for all pairs of the step.
    """

    first: int
    second: int
    loss: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A side of the ladder.

    Attributes:
        side: of the images in pixels, before they are resized to the model's input.
        macro_f1: of the probe.
        loss: macro-F1 at the next larger side minus that here, paired; None at the largest side.
        weakest: the least separable pairs, the first one least.
        lost_pairs: the pairs that lose most in this step.
    """

    side: int
    macro_f1: Interval
    loss: Interval | None
    weakest: tuple[PairSeparability, ...]
    lost_pairs: tuple[PairLoss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AspectChoice:
    """How images become squares, chosen by a linear probe on a frozen backbone, out of fold.

    Attributes:
        aspect: the value of `data.aspect` that is proposed.
        current: the value that stays unless another is better by more than its standard error.
        backbone: its name.
        num_images: images of the probes, none of them of the test split.
        macro_f1: by aspect.
        gains: macro-F1 of the others minus that of the current one, paired; intervals of one standard error to either side.
    """

    aspect: Aspect
    current: Aspect
    backbone: str
    num_images: int
    macro_f1: Mapping[Aspect, float]
    gains: Mapping[Aspect, Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFindings:
    """What needs no network.

    Attributes:
        exact, near: pairs of equal and nearly equal images.
        oddities: images that stand out.
        class_colors: (K, 3) mean color of each class in [0, 255]; NaN for a class without images.
        are_gray: whether nearly all of them have equal channels, so that their colors are gray levels.
        num_color_images: images of the color probes, none of them of the test split.
        color_probes: what color, or the gray level, alone predicts; empty where no probe is possible.
        spectra: of each interpolation; None where images have the model's input size and are not resampled.
        resized: (n, S, S, 3) first training images of some classes by interpolation, and as they are "stored"; empty where images
            are not resampled.
        squared: (n, S, S, 3) uint8 training images whose sides differ, by the values of `data.aspect`; empty where all are
            squares, or their files cannot be decoded again.
    """

    exact: tuple[ImagePair, ...]
    near: tuple[ImagePair, ...]
    oddities: tuple[Oddities, ...]
    class_colors: FloatArray
    are_gray: bool
    num_color_images: int
    color_probes: tuple[ColorProbe, ...]
    spectra: Spectra | None
    resized: Mapping[str, NDArray[Any]]
    squared: Mapping[Aspect, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFindings:
    """What the probes on a frozen pretrained backbone show.

    Attributes:
        backbone: its name.
        interpolation: of all probes but the one that is compared with it.
        num_images: images of the probe at native resolution, none of them of the test split and no copies.
        classes: (P,) class indices of the probe; classes with fewer than two images are left out.
        macro_f1: of the probe.
        confusion: (P, P) counts, row = true class.
        pairs: the least separable pairs of classes.
        num_pairs: pairs that were compared.
        num_ladder_images: images of the ladder.
        rungs: of the ladder, from the native side down.
        label_issues: images that the probe and confident learning contradict.
        bicubic_gain: macro-F1 with bicubic minus bilinear interpolation, paired; None where images are not resampled.
    """

    backbone: str
    interpolation: str
    num_images: int
    classes: IntArray
    macro_f1: Interval
    confusion: IntArray
    pairs: tuple[PairSeparability, ...]
    num_pairs: int
    num_ladder_images: int
    rungs: tuple[Rung, ...]
    label_issues: tuple[LabelIssue, ...]
    bicubic_gain: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is known of a spec's images before anything is trained.

    Attributes:
        name: of the spec.
        image_set, splits: the images.
        stages: shape and values of every stage, from the files to the logits.
        audit: counts of the images.
        examples: images of classes before and after augmentation.
        image_size: side of the model's input.
        images: what needs no network.
        network: what the probes on a frozen backbone show; None where it was not computed.
        network_note: why not; "" where it was.
    """

    name: str
    image_set: ImageSet
    splits: Splits
    stages: tuple[AuditStage, ...]
    audit: AuditReport
    examples: Examples
    image_size: int
    images: ImageFindings
    network: NetworkFindings | None
    network_note: str

    def name_image(self, sample_id: int) -> str:
        """Return the file name of an image, or its sample id where it has none."""
        origin = self.image_set.origin
        return f"image {sample_id}" if origin is None else origin.names[sample_id]

"""Planted scenes: generated images whose cues have a known correlation with the class.

A scene has one object on a background, small distractors, and noise. Four cues have ten values each: shape, texture and color
of the object, and the background. Up to three shortcuts can be added: a colored patch in the corner, a colored frame, and
a faint sinusoid over the whole image. A cue with correlation rho copies the class with probability rho and is otherwise
drawn uniformly from all ten values, independently of everything else. So it agrees with the class with probability
rho + (1 - rho) / 10, and is independent of the class at rho = 0. A cue can also be limited to some classes: images of the
other classes then avoid these classes' values with probability rho, so that at rho = 1 a value means its class and no other.
Two classes can exchange their values of a cue, so that it does not tell them apart, or misleads; classes can have fewer images
than others; and a published test set can differ from the other scenes.

The pixels depend on the seed alone: only additions, products, square roots and table look-ups are used, which all machines
round equally, so that data fingerprints agree between a cluster and a workstation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from search_spaces.errors import UserInputError, check_choice
from trainables.data.decoding.decoded_images import allocate_images
from trainables.data.images import ImageSet
from trainables.data.sources.labeled_files import ImageSource
from trainables.data.sources.planted_drawing import NUM_VALUES, SHAPES, draw_scenes
from trainables.seeds import derive_seed, numpy_generator

Correlation = Annotated[float, Field(ge=0, le=1)]
Frequency = Annotated[float, Field(gt=0)]


class CueExchange(BaseModel):
    """Pairs of classes whose images show each other's value of a cue.

    Of the images of either class that show their own class's value, a share of `rate`, rounded to whole images, shows that of
    the other class instead. At 0.5 the cue does not tell the two classes apart, not even by chance; at a small rate it tells
    them apart, and misleads in these images. With `one_way`, only images of the first class of each pair show the other's
    value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cue: str
    pairs: tuple[tuple[str, str], ...]
    rate: Correlation
    one_way: bool = False


def check_exchanges(exchanges: Sequence[CueExchange], cues: Sequence[str]) -> None:
    """Raise UserInputError for a cue that the scenes do not have, an unknown class, and a class paired with itself."""
    for exchange in exchanges:
        check_choice("exchanges names the cue", exchange.cue, cues)
        for pair in exchange.pairs:
            for name in pair:
                check_choice("exchanges names the class", name, SHAPES)
            if pair[0] == pair[1]:
                raise UserInputError(f"exchanges pairs the class {pair[0]!r} with itself; name two classes")


def count_images_of_classes(num_images: int, class_frequencies: Mapping[str, float]) -> NDArray[np.int64]:
    """Return (10,) int64 numbers of images by class, which add up to `num_images`.

    Args:
        num_images: As in `PlantedSource`.
        class_frequencies: As in `PlantedSource`.

    Raises:
        UserInputError: For an unknown class, and for a class that would have no image.
    """
    for name in class_frequencies:
        check_choice("class_frequencies names the class", name, SHAPES)
    weights = np.array([class_frequencies.get(name, 1.0) for name in SHAPES])
    quotas = num_images * weights / weights.sum()
    counts: NDArray[np.int64] = np.floor(quotas).astype(np.int64)
    counts[np.argsort(counts - quotas, kind="stable")[: num_images - counts.sum()]] += 1
    if counts.min() == 0:
        raise UserInputError(
            f"each class needs an image, but {SHAPES[counts.argmin()]} has none of {num_images}; raise num_images or its "
            "frequency"
        )
    return counts


def exchange_values(
    values: NDArray[np.int64], labels: NDArray[np.int64], exchange: CueExchange, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return the (N,) int64 values of a cue after an exchange between the classes of each pair."""
    order = generator.permutation(len(labels))
    exchanged = values.copy()
    for pair in exchange.pairs:
        one, other = map(SHAPES.index, pair)
        for label, shown in ((one, other),) if exchange.one_way else ((one, other), (other, one)):
            own = order[(values[order] == label) & (labels[order] == label)]
            exchanged[own[: round(exchange.rate * len(own))]] = shown
    return exchanged


CUES = ("shape", "texture", "color", "background")
# Names of streams of random numbers that are not those of their cues: with another name the scenes would change.
STREAMS = {"color": "colour"}
SHORTCUTS = ("corner_patch", "frame", "sinusoid")
DEFAULT_CORRELATION: Mapping[str, float] = {"shape": 0.85, "texture": 0.6, "color": 0.5, "background": 0.4}
IMAGES_PER_BLOCK = 500


class PlantedTestSet(BaseModel):
    """A published test set of planted scenes, which may differ from the training scenes.

    Attributes:
        num_images: Number of scenes.
        exchanges: Of the test scenes, in addition to those of all scenes.
        class_frequencies: Of the test scenes: {} has classes of equal size; those of all scenes by default.
        correlation: rho of some cues and shortcuts in the test scenes; that of all scenes by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_images: Annotated[int, Field(ge=NUM_VALUES)]
    exchanges: tuple[CueExchange, ...] = ()
    class_frequencies: Mapping[str, Frequency] | None = None
    correlation: Mapping[str, Correlation] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedScenes:
    """Planted scenes with their ground truth.

    Attributes:
        image_set: Images, labels and object masks.
        cue_values: (N,) int64 in [0, 10) for each cue and shortcut; class k copies value k.
    """

    image_set: ImageSet
    cue_values: Mapping[str, NDArray[np.int64]]


class PlantedSource(ImageSource):
    """Planted scenes with object masks; by default, classes are balanced to within one image.

    Attributes:
        num_images: Number of scenes.
        image_size: Native side in pixels.
        cue_correlation: rho of each cue ("shape", "texture", "color", "background"), or one number for all four. The defaults
            are 0.85, 0.6, 0.5 and 0.4.
        shortcuts: rho of each shortcut ("corner_patch", "frame", "sinusoid"); none by default. A shortcut with rho = 0 is
            random, and serves as a control.
        noise_std: Standard deviation of the pixel noise, in gray levels of 255.
        num_distractors: Small shapes per scene, behind the object.
        object_scale: Factor of the object's size and of its distance from the center. At 1 no object reaches the outer eighth
            of the image, at 1.4 about half of them do.
        cue_classes: Classes that a cue or shortcut indicates; all by default.
        class_correlation: rho of a cue or shortcut in images of some classes, which replaces that of `cue_correlation` or
            `shortcuts`.
        exchanges: Pairs of classes that exchange their values of a cue or shortcut, applied in this order.
        class_frequencies: Number of images of a class relative to the others, which have 1.
        test_set: Published test set, in addition to the `num_images` scenes; none by default.

    Raises:
        UserInputError: For an unknown cue, shortcut or class, and for a class without images.
    """

    name = "planted"

    num_images: Annotated[int, Field(ge=NUM_VALUES)] = 2000
    image_size: Annotated[int, Field(ge=24, le=512)] = 32
    cue_correlation: Correlation | Mapping[str, Correlation] | None = None
    shortcuts: Mapping[str, Correlation] = Field(default_factory=dict)
    noise_std: Annotated[float, Field(ge=0, le=64)] = 10.0
    num_distractors: Annotated[int, Field(ge=0, le=20)] = 3
    object_scale: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    cue_classes: Mapping[str, Sequence[str]] = Field(default_factory=dict)
    class_correlation: Mapping[str, Mapping[str, Correlation]] = Field(default_factory=dict)
    exchanges: Sequence[CueExchange] = ()
    class_frequencies: Mapping[str, Frequency] = Field(default_factory=dict)
    test_set: PlantedTestSet | None = None

    def load(self) -> ImageSet:
        """Return the scenes, those of the test set last."""
        scenes, of_test = self.make_scenes().image_set, self.test_set
        if of_test is None:
            return scenes
        changes: dict[str, Any] = {
            "seed": derive_seed(self.seed, "planted", "test set"),
            "num_images": of_test.num_images,
            "exchanges": (*self.exchanges, *of_test.exchanges),
        }
        if of_test.class_frequencies is not None:
            changes["class_frequencies"] = of_test.class_frequencies
        if of_test.correlation:
            correlation = resolve_correlation(self.cue_correlation, self.shortcuts)
            for name in of_test.correlation:
                check_choice("test_set.correlation names", name, correlation)
            correlation |= of_test.correlation
            changes["cue_correlation"] = {cue: correlation[cue] for cue in CUES}
            changes["shortcuts"] = {name: rho for name, rho in correlation.items() if name not in CUES}
        return _append_test_set(scenes, self.model_copy(update=changes).make_scenes().image_set)

    def make_scenes(self) -> PlantedScenes:
        """Return the scenes without the test set, and the values of their cues."""
        correlation = resolve_correlation(self.cue_correlation, self.shortcuts)
        indicated = resolve_classes(self.cue_classes, tuple(correlation))
        by_class = resolve_class_correlation(correlation, self.class_correlation)
        check_exchanges(self.exchanges, tuple(correlation))
        counts = count_images_of_classes(self.num_images, self.class_frequencies)
        images = allocate_images(self.num_images, self.image_size, self.image_size)
        # The classes take turns as long as they have images left.
        turns = np.concatenate([np.arange(count) for count in counts])
        in_turn = np.repeat(np.arange(NUM_VALUES), counts)[np.argsort(turns, kind="stable")]
        labels = numpy_generator(self.seed, "planted", "labels").permutation(in_turn)
        cue_values = {}
        for cue, rho in by_class.items():
            generator = numpy_generator(self.seed, "planted", "cue", STREAMS.get(cue, cue))
            cue_values[cue] = draw_cue(labels, rho, generator, indicated.get(cue))
        for number, exchange in enumerate(self.exchanges):
            generator = numpy_generator(self.seed, "planted", "exchange", number)
            cue_values[exchange.cue] = exchange_values(cue_values[exchange.cue], labels, exchange, generator)
        masks = np.empty(images.shape[:3], dtype=bool)
        for block, start in enumerate(range(0, self.num_images, IMAGES_PER_BLOCK)):
            part = slice(start, start + IMAGES_PER_BLOCK)
            images[part], masks[part] = draw_scenes(
                {cue: values[part] for cue, values in cue_values.items()},
                image_size=self.image_size,
                noise_std=self.noise_std,
                num_distractors=self.num_distractors,
                object_scale=self.object_scale,
                generator=numpy_generator(self.seed, "planted", "scenes", block),
            )
        image_set = self.describe(images, labels, masks=masks)
        assert image_set.class_names == SHAPES
        return PlantedScenes(image_set=image_set, cue_values=cue_values)


def make_planted_scenes(**options: Any) -> PlantedScenes:
    """Return planted scenes and the values of their cues; the options are those of `PlantedSource`."""
    return PlantedSource(**options).make_scenes()


def _append_test_set(scenes: ImageSet, test_scenes: ImageSet) -> ImageSet:
    both = (scenes, test_scenes)
    joined: dict[str, Any] = {n: np.concatenate([getattr(s, n) for s in both]) for n in ("images", "labels", "masks")}
    return replace(scenes, **joined, official_test=np.repeat([False, True], list(map(len, both))))


def resolve_correlation(
    cue_correlation: float | Mapping[str, float] | None, shortcuts: Mapping[str, float]
) -> dict[str, float]:
    """Return rho of the four cues and of the shortcuts.

    Args:
        cue_correlation: As in `PlantedSource`.
        shortcuts: As in `PlantedSource`.

    Raises:
        UserInputError: For an unknown name.
    """
    if isinstance(cue_correlation, Mapping):
        for cue in cue_correlation:
            check_choice("cue_correlation names the cue", cue, CUES)
        of_cues = {**DEFAULT_CORRELATION, **cue_correlation}
    elif cue_correlation is None:
        of_cues = dict(DEFAULT_CORRELATION)
    else:
        of_cues = dict.fromkeys(CUES, cue_correlation)
    for shortcut in shortcuts:
        check_choice("shortcuts names", shortcut, SHORTCUTS)
    return of_cues | dict(shortcuts)


def resolve_class_correlation(
    correlation: Mapping[str, float], class_correlation: Mapping[str, Mapping[str, float]]
) -> dict[str, float | NDArray[np.float64]]:
    """Return rho of each cue and shortcut: a number, or (10,) one per class where they differ.

    Args:
        correlation: rho of the cues and shortcuts of the scenes.
        class_correlation: As in `PlantedSource`.

    Raises:
        UserInputError: For a cue that the scenes do not have, or an unknown class.
    """
    resolved: dict[str, float | NDArray[np.float64]] = dict(correlation)
    for cue, of_classes in class_correlation.items():
        check_choice("class_correlation names", cue, correlation)
        rhos = np.full(NUM_VALUES, float(correlation[cue]))
        for name, rho in of_classes.items():
            check_choice(f"class_correlation.{cue} names the class", name, SHAPES)
            rhos[SHAPES.index(name)] = rho
        resolved[cue] = rhos
    return resolved


def resolve_classes(cue_classes: Mapping[str, Sequence[str]], cues: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return the classes of each limited cue or shortcut as indices into `SHAPES`.

    Args:
        cue_classes: As in `PlantedSource`.
        cues: Names of the cues and shortcuts of the scenes.

    Raises:
        UserInputError: For a cue that the scenes do not have, an unknown class, and for none or all of the classes.
    """
    for cue, names in cue_classes.items():
        check_choice("cue_classes names", cue, cues)
        for name in names:
            check_choice(f"cue_classes.{cue} names the class", name, SHAPES)
        if not 0 < len(set(names)) < NUM_VALUES:
            raise UserInputError(
                f"cue_classes.{cue} must name some of the {NUM_VALUES} classes, not none or all of them"
            )
    return {cue: np.array(sorted(map(SHAPES.index, set(names)))) for cue, names in cue_classes.items()}


def draw_cue(
    labels: NDArray[np.int64],
    rho: float | NDArray[np.float64],
    generator: np.random.Generator,
    classes: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return (N,) int64 cue values: the label with probability `rho`, otherwise uniform over all ten values.

    With `classes`, only images of these classes copy the label; images of other classes take, with probability `rho`, one of
    the values of other classes. `rho` is a number, or (10,) one per class.
    """
    copies = generator.random(len(labels)) < (rho[labels] if isinstance(rho, np.ndarray) else rho)
    values = np.where(copies, labels, generator.integers(0, NUM_VALUES, len(labels)))
    if classes is not None:
        others = np.setdiff1d(np.arange(NUM_VALUES), classes)
        values = np.where(copies & ~np.isin(labels, classes), generator.choice(others, len(labels)), values)
    return values.astype(np.int64)

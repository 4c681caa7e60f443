"""Labeled images as a source finds them, before they are decoded, and the subset of them that is kept.

Descriptions of data sets (descriptions.toml) have class names and named groups of classes.
"""

import functools
import tomllib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter

from search_spaces.errors import UserInputError, nearest_name
from search_spaces.settings import Count, Section
from trainables.data.decoding.decode_set import DecodeRequest
from trainables.data.decoding.decoded_images import Decoded, decode_files
from trainables.data.decoding.encoded_files import EncodedImages
from trainables.data.image_memory import ImageMemoryBudget
from trainables.data.images import Aspect, ImageSet
from trainables.data.problems import make_printable
from trainables.data.stratified import choose_stratified
from trainables.seeds import numpy_generator

ClassGroups = Mapping[str, tuple[str, ...]]
# (N,) which images are of a published split; None if no image is.
Marks = NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Description of one data set.

    Attributes:
        class_names: K names in the order of the labels.
        groups: Named groups of class names.
    """

    class_names: tuple[str, ...]
    groups: ClassGroups


@functools.cache
def load_descriptions() -> Mapping[str, Description]:
    """Return the shipped descriptions, by the name of the data set."""
    text = (resources.files("trainables.data.sources") / "descriptions.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Description]).validate_python(tomllib.loads(text))


def resolve_groups(class_groups: Mapping[str, Sequence[str]] | None, class_names: Sequence[str]) -> ClassGroups:
    """Return the user's groups, or by default those of the described data set with exactly these classes, in any order.

    Args:
        class_groups: The user's groups, or None.
        class_names: K names.

    Raises:
        UserInputError: If a group is empty or names a class that does not exist.
    """
    if class_groups is None:
        described = load_descriptions().values()
        return next((d.groups for d in described if sorted(d.class_names) == sorted(class_names)), {})
    for group, members in class_groups.items():
        if not members:
            raise UserInputError(f"the group {group!r} in data.options.class_groups is empty; remove it")
        for member in members:
            if member not in class_names:
                raise UserInputError(
                    f"the group {group!r} names the class {member!r}, which the images do not have"
                    f"{nearest_name(member, class_names)}"
                )
    return {group: tuple(members) for group, members in class_groups.items()}


PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledFiles:
    """N labeled images, without their pixels.

    Attributes:
        labels: (N,) int64 in [0, K).
        class_names: K names, which become printable.
        parts: (N,) position of each image's published split in `PARTS`.
        groups: N names of the groups that images belong to; None where images are independent.
        encode: Returns the encoded images at sorted positions, (M,) int64.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    parts: NDArray[np.int64]
    groups: Sequence[str] | None
    encode: Callable[[NDArray[np.int64]], EncodedImages]

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(make_printable, self.class_names)))

    def mark(self, split: str) -> Marks:
        """Return (N,) which images are of a published split; None if no image is."""
        marks: NDArray[np.bool_] = self.parts == PARTS.index(split)
        return marks if marks.any() else None


class ImageSource(Section):
    """The options of a source, of which it makes its images. A spec sets some of them elsewhere than in data.options.

    Attributes:
        name: Name of the source in a spec.
        seed: Seed of the subset, and of everything else that is random.
        num_images: Keep this many images outside the test set, stratified; only these are decoded and checked.
    """

    model_config = ConfigDict(strict=True)

    name: ClassVar[str]
    seed: int = 0
    num_images: Count | None = None

    @abstractmethod
    def load(self) -> ImageSet:
        """Return the images; raise UserInputError, with all problems, if they cannot be used."""

    def choose_subset(
        self, labels: NDArray[np.int64], test: Marks = None, validation: Marks = None
    ) -> NDArray[np.int64]:
        """Return the sorted indices of the images to keep: all published test images, and `num_images` of the others.

        The others keep the shares of their classes, and of the published validation images within each class.

        Args:
            labels: (N,) int64 >= 0.
            test: (N,) bool, or None.
            validation: (N,) bool, or None.

        Raises:
            UserInputError: If there are fewer than `num_images`, or `num_images` is less than the number of classes.
        """
        n, number = len(labels), self.num_images
        if number is None:
            return np.arange(n, dtype=np.int64)
        is_test = np.zeros(n, dtype=bool) if test is None else test
        others = np.flatnonzero(~is_test)
        if number > len(others):
            raise UserInputError(
                f"data.num_images <= {len(others)} must hold (the number of images outside the test set), but got {number}"
            )
        num_classes = len(np.unique(labels[others]))
        if number < num_classes:
            raise UserInputError(
                f"data.num_images must be at least the number of classes ({num_classes}), but got {number}"
            )
        strata = labels if validation is None else 2 * labels + validation
        kept = others[choose_stratified(strata[others], number, numpy_generator(self.seed, "subset"))]
        return np.sort(np.concatenate([kept, np.flatnonzero(is_test)])).astype(np.int64)

    def describe(self, images: NDArray[np.uint8], labels: NDArray[np.int64], **parts: Any) -> ImageSet:
        """Return images of the classes that the description of the source's name has; `parts` are other arrays of the set."""
        known = load_descriptions()[self.name]
        names, groups = known.class_names, known.groups
        return ImageSet(images=images, labels=labels, class_names=names, source=self.name, class_groups=groups, **parts)


class FileSource(ImageSource):
    """The options of a source that decodes files.

    Attributes:
        path: A file, or a folder of files.
        native_size: Side in pixels at which images are stored; see `decode_files`.
        image_size: Side in pixels of the images that models are trained on; set as train.image_size in a spec.
        aspect: How images become squares; set as data.aspect in a spec.
        on_bad_image: Whether images that cannot be used are skipped; set as data.on_bad_image in a spec.
        class_groups: Named groups of classes, such as {rigid = ["ship"], deformable = ["cat", "dog"]}; by default those of the
            described data set with the same classes.
        group: What says which images belong together, such as those of a patient: a column, a field, or what the folders
            between a class and its images are. Set as data.group in a spec.
        memory_budget: Memory that the decoded images may take; not an option of a spec.
    """

    path: str | None = None
    native_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    image_size: Annotated[int, Field(ge=8)] | None = None
    aspect: Aspect = "crop"
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    class_groups: Mapping[str, Sequence[str]] | None = None
    group: str | None = None
    memory_budget: ImageMemoryBudget = Field(default_factory=ImageMemoryBudget)

    def load_found(self, found: LabeledFiles) -> ImageSet:
        """Return those of the images that were found which `num_images` leaves."""
        chosen = self.choose(found)
        return self.make_image_set(found, chosen, self.decode(found.encode(chosen)))

    def choose(self, found: LabeledFiles) -> NDArray[np.int64]:
        """Return the sorted positions of the stratified part of the images that `num_images` leaves."""
        return self.choose_subset(found.labels, found.mark("test"), found.mark("validation"))

    @property
    def request(self) -> DecodeRequest:
        """How images are decoded."""
        return DecodeRequest(self.native_size, self.image_size, self.aspect, self.on_bad_image)

    def decode(self, images: EncodedImages) -> Decoded:
        """Return decoded images; see `decode_files` for the errors."""
        return decode_files(images, self.request, self.memory_budget)

    def make_image_set(self, found: LabeledFiles, chosen: NDArray[np.int64], decoded: Decoded) -> ImageSet:
        """Return the image set of the images that were chosen and could be decoded.

        Args:
            found: All images.
            chosen: (M,) int64 from `choose`.
            decoded: The chosen images.
        """
        kept = chosen[decoded.kept]
        test, validation = found.mark("test"), found.mark("validation")
        group_names, numbers = np.unique(np.array(found.groups or (), dtype=str), return_inverse=True)
        return ImageSet(
            images=decoded.images,
            labels=found.labels[kept],
            class_names=found.class_names,
            source=self.name,
            official_test=None if test is None else test[kept],
            official_validation=None if validation is None else validation[kept],
            class_groups=resolve_groups(self.class_groups, found.class_names),
            groups=None if found.groups is None else numbers[kept],
            group_names=tuple(make_printable(str(name)) for name in group_names),
            origin=decoded.origin,
        )

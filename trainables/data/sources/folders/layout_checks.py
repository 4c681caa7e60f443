"""Checks of labeled files: classes that splits lack, and images that are listed twice."""

from collections import Counter
from collections.abc import Iterator, Sequence

from trainables.data.problems import Problem
from trainables.data.sources.folders.image_files import SPLIT_ORDER, ImageFile


def check_classes(files: Sequence[ImageFile], class_names: tuple[str, ...], advice: str) -> Iterator[Problem]:
    """Yield what is wrong with the classes: fewer than two, or other ones in one split than in another.

    Args:
        files: the images.
        class_names: their classes.
        advice: what to do about too few classes.
    """
    if len(class_names) < 2:
        yield Problem(
            f"a data set needs images of two classes or more, but {len(files)} images of {len(class_names)} were found",
            class_names,
            advice,
        )
    classes = {split: {f.class_name for f in files if f.split == split} for split in {f.split for f in files}}
    if "train" not in classes and classes.keys() - {""}:
        yield Problem("there are no training images", (), "set the split of some to train")
    for split in SPLIT_ORDER[1:]:
        missing = [name for name in class_names if name not in classes.get(split, ())]
        if split in classes and missing:
            yield Problem(
                f"classes without {split} images, which other splits have",
                tuple(missing),
                f"add {split} images of each, or remove these classes from the other splits",
            )


def check_repeated(files: Sequence[ImageFile]) -> Iterator[Problem]:
    """Yield the images that several manifests list."""
    counts = Counter(file.path for file in files)
    repeated = {file.name: None for file in files if counts[file.path] > 1}
    if repeated:
        yield Problem("images that several manifests list", tuple(repeated), "keep the row of each in one manifest")

"""Classes of planted scenes: how many images each has, and which exchange their values of a cue."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from search_spaces.errors import UserInputError, check_choice
from trainables.data.sources.planted.drawing import SHAPES

Correlation = Annotated[float, Field(ge=0, le=1)]
Frequency = Annotated[float, Field(gt=0)]


class CueExchange(BaseModel):
    """Pairs of classes whose images show each other's value of a cue.

    Of the images of either class that show their own class's value, a share of `rate`, rounded to whole images, shows that of the
    other class instead. At 0.5 the cue does not tell the two classes apart, not even by chance; at a small rate it tells them
    apart, and misleads in these images. With `one_way`, only images of the first class of each pair show the other's value.
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
        num_images: As in `load_planted`.
        class_frequencies: As in `load_planted`.

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
